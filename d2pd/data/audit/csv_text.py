"""The text of a CSV label file, in which single lines can be changed and all else stays."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from d2pd.data.annotations.csv_cells import LINE_BREAK
from d2pd.data.annotations.csv_columns import BOX_FIELDS
from d2pd.data.audit.spelled_box import SpelledBox

OF_A_BOX = ("class", "ignore", "occlusion")
"""Fields that say nothing of an image, besides those of the box."""

Span = tuple[int, int]


@dataclass(frozen=True)
class CsvLayout:
    """How a CSV is to be read.

    Attributes:
        separator: Between the cells.
        columns: Position of each field, see ``csv_columns.ALIASES``.
        has_header: Whether the first line names the columns.
        box_format: ``xyxy`` or ``xywh``.
    """

    separator: str
    columns: Mapping[str, int]
    has_header: bool
    box_format: str


class CsvText:
    """The records of a CSV as the file spells them; a quoted cell may hold line breaks.

    Args:
        text: The file, without byte order mark; it was read as labels before.
        layout: How it is to be read.
    """

    def __init__(self, text: str, layout: CsvLayout) -> None:
        self.layout = layout
        self._text = text
        self._columns = layout.columns
        self._box_fields = BOX_FIELDS[layout.box_format]
        # After its closing quote a cell goes on to the next separator, and without one to the end,
        # as in pandas and csv.
        separator = layout.separator
        plain = rf"[^{separator}\r\n]*"
        self._cell = re.compile(rf'"[^"]*(?:""[^"]*)*(?:"{plain}|\Z)|{plain}')
        record = rf"(?:{self._cell.pattern})(?:{separator}(?:{self._cell.pattern}))*"
        self._spans = _record_spans(text, re.compile(rf"({record})({LINE_BREAK.pattern})?"))

    @property
    def rows(self) -> list[int]:
        """The line that each record begins on, from 1."""
        return list(self._spans)

    def contents(self, row: int) -> list[str]:
        """Return what the cells of a record hold, without quotes and blanks."""
        record = self.row_text("line", row)
        return [_content(record[start:end]) for start, end in self._cell_spans(record)]

    def row_text(self, place: str, row: int) -> str:
        """Return a record as it stands in the file, without its line end.

        Args:
            place: ``line``, the only one.
            row: Line that the record begins on, from 1.
        """
        start, end, _ = self._spans[row]
        return self._text[start:end]

    def box(self, row: int) -> SpelledBox:
        """Return the box of a record."""
        cells = self.contents(row)
        a, b, c, d = (cells[self._columns[field]] for field in self._box_fields)
        return SpelledBox((a, b, c, d), "w" in self._box_fields)

    def with_box(self, row: int, box: SpelledBox) -> str:
        """Return a record with another box; blanks and quotes about a number stay."""
        texts = dict(zip(self._box_fields, box.texts, strict=True))
        return self._with_cells(row, texts)

    def without_box(self, row: int) -> str:
        """Return a record that names its image and no box."""
        return self._with_cells(row, dict.fromkeys((*self._box_fields, *OF_A_BOX), ""))

    def edited(self, rows: Mapping[tuple[str, int], str | None]) -> str:
        """Return the file with some of its records changed.

        Args:
            rows: New text of a record by ``line`` and its number; None takes it out, line end
                included.
        """
        pieces: list[str] = []
        position = 0
        for (_, row), new in sorted(rows.items()):
            start, end, next_start = self._spans[row]
            pieces.append(self._text[position:start])
            if new is not None:
                pieces.append(new)
            position = next_start if new is None else end
        return "".join([*pieces, self._text[position:]])

    def _with_cells(self, row: int, texts: Mapping[str, str]) -> str:
        """Change the content of some cells, of the fields that the file has."""
        text = self.row_text("line", row)
        spans = self._cell_spans(text)
        found = {
            self._columns[field]: new for field, new in texts.items() if field in self._columns
        }
        for column in sorted(found, reverse=True):
            if column >= len(spans):  # the line ends before: the cell is as good as empty
                continue
            start, end = spans[column]
            text = text[:start] + _with_content(text[start:end], found[column]) + text[end:]
        return text

    def _cell_spans(self, record: str) -> list[Span]:
        spans: list[Span] = []
        position = 0
        while position <= len(record):
            cell = self._cell.match(record, position)
            end = cell.end() if cell else len(record)
            spans.append((position, end))
            position = end + 1
        return spans


def _record_spans(text: str, record: re.Pattern[str]) -> dict[int, tuple[int, int, int]]:
    """Give start and end of each record, and the start of the next, by its first line."""
    spans: dict[int, tuple[int, int, int]] = {}
    line = 1
    for found in record.finditer(text):
        if found.end() > found.start():  # a text ends with an empty match
            spans[line] = (found.start(1), found.end(1), found.end())
            line += len(LINE_BREAK.findall(found.group()))
    return spans


def _content(cell: str) -> str:
    """Return what a cell holds, without quotes and blanks."""
    if cell.startswith('"'):
        inner, _, rest = cell[1:].replace('""', "\0").partition('"')
        cell = inner.replace("\0", '"') + rest
    return cell.strip()


def _with_content(cell: str, new: str) -> str:
    old = _content(cell)
    if old == new:
        return cell
    return cell.replace(old, new, 1) if new and old in cell else new
