"""The text of a JSON label file, in which single rows can be changed and all else stays."""

import json
import math
import re
from collections.abc import Container, Iterator, Mapping
from decimal import Decimal

from d2pd.data.audit.spelled_box import SpelledBox, exact, spell

LISTS = {"image": "images", "annotation": "annotations"}
"""The list that a place counts in."""

ROUNDING = Decimal("1e-9")
"""Share of a size by which ``area`` may differ and still say the same."""

_DECODER = json.JSONDecoder()
_BLANKS = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?[0-9]")

Span = tuple[int, int]


class JsonText:
    """The rows of ``images`` and ``annotations`` as the file spells them.

    Args:
        text: The file, without byte order mark; it was read as labels before.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        members = member_spans(text, _skip(text, 0))
        self._arrays = {place: members[key] for place, key in LISTS.items()}
        self._spans = {
            place: element_spans(text, start) for place, (start, _) in self._arrays.items()
        }

    def row_text(self, place: str, row: int) -> str:
        """Return a row as it stands in the file.

        Args:
            place: ``image`` or ``annotation``.
            row: Position in its list, from 0.
        """
        start, end = self._spans[place][row]
        return self._text[start:end]

    def image_id(self, row: int) -> int | str | None:
        """Return the id of an image, None where it has none that could be one."""
        return _identifier(self.row_text("image", row), "id")

    def boxes_of(self, image_ids: Container[int | str]) -> Iterator[tuple[int, int | str]]:
        """Give the row and the image id of each annotation of some images."""
        for row in range(len(self._spans["annotation"])):
            image_id = _identifier(self.row_text("annotation", row), "image_id")
            if image_id is not None and image_id in image_ids:
                yield row, image_id

    def box(self, row: int) -> SpelledBox:
        """Return the box of an annotation."""
        text = self.row_text("annotation", row)
        a, b, c, d = (text[start:end] for start, end in _box_spans(text))
        return SpelledBox((a, b, c, d), is_xywh=True)

    def with_box(self, row: int, box: SpelledBox) -> str:
        """Return an annotation with another box.

        ``width``, ``height`` and ``area`` follow where they said what the box said before.
        """
        text = self.row_text("annotation", row)
        new_texts = dict(zip(_box_spans(text), box.texts, strict=True))
        members = member_spans(text, 0)
        before, after = _sizes(self.box(row)), _sizes(box)
        for key in before.keys() & members.keys():
            start, end = members[key]
            if before[key] != after[key] and _says(text[start:end], before[key]):
                new_texts[start, end] = spell(after[key], text[start:end])
        return _replace(text, new_texts)

    def edited(self, rows: Mapping[tuple[str, int], str | None]) -> str:
        """Return the file with some of its rows changed.

        Args:
            rows: New text of a row by place and position; None takes it out.
        """
        lists: dict[str, dict[int, str | None]] = {}
        for (place, row), new in rows.items():
            lists.setdefault(place, {})[row] = new
        return _replace(
            self._text,
            {self._arrays[place]: "".join(self._list_text(place, lists[place])) for place in lists},
        )

    def _list_text(self, place: str, rows: Mapping[int, str | None]) -> Iterator[str]:
        """Give the pieces of a list; a row that goes takes the comma before it along."""
        text, spans = self._text, self._spans[place]
        start, end = self._arrays[place]
        yield text[start : spans[0][0]]
        is_first = True
        for position, (row_start, row_end) in enumerate(spans):
            new = rows.get(position, text[row_start:row_end])
            if new is None:
                continue
            if not is_first:
                yield text[spans[position - 1][1] : row_start]
            yield new
            is_first = False
        yield text[spans[-1][1] : end]


def member_spans(text: str, start: int) -> dict[str, Span]:
    """Find the values of a JSON object.

    Args:
        text: Valid JSON from ``start`` on.
        start: Position of the brace.

    Returns:
        First and last (exclusive) position of each value by its key; of a key that stands there
        twice the last one, as readers take it.
    """
    found: dict[str, Span] = {}
    position = _skip(text, start + 1)
    while text[position] != "}":
        key, position = _DECODER.raw_decode(text, position)
        value = _skip(text, _skip(text, position) + 1)
        _, end = _DECODER.raw_decode(text, value)
        found[key] = (value, end)
        position = _skip_comma(text, end)
    return found


def element_spans(text: str, start: int) -> list[Span]:
    """Find the elements of a JSON array; see ``member_spans``."""
    found: list[Span] = []
    position = _skip(text, start + 1)
    while text[position] != "]":
        _, end = _DECODER.raw_decode(text, position)
        found.append((position, end))
        position = _skip_comma(text, end)
    return found


def _skip(text: str, position: int) -> int:
    blanks = _BLANKS.match(text, position)
    return blanks.end() if blanks else position


def _skip_comma(text: str, position: int) -> int:
    position = _skip(text, position)
    return _skip(text, position + 1) if text[position] == "," else position


def _identifier(row: str, key: str) -> int | str | None:
    content = json.loads(row)
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _box_spans(row: str) -> list[Span]:
    return element_spans(row, member_spans(row, 0)["bbox"][0])


def _sizes(box: SpelledBox) -> dict[str, Decimal]:
    width, height = box.sizes
    return {"width": width, "height": height, "area": width * height}


def _says(text: str, size: Decimal) -> bool:
    if not _NUMBER.match(text) or not math.isfinite(float(text)):
        return False
    return abs(exact(text) - size) <= ROUNDING * size


def _replace(text: str, new_texts: Mapping[Span, str]) -> str:
    pieces: list[str] = []
    position = 0
    for (start, end), new in sorted(new_texts.items()):
        pieces += [text[position:start], new]
        position = end
    return "".join([*pieces, text[position:]])
