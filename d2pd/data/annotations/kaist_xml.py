"""Reader of XML labels: KAIST's (x, y, w, h) and those of Pascal VOC (xmin, ymin, xmax, ymax)."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from d2pd.data.annotations.label_tree import Frame, FrameObject, is_kaist_frame, read_tree
from d2pd.data.annotations.labels import LONGEST_SHOWN, Labels, PathLike, read_label_file
from d2pd.errors import AnnotationError

SIZED_BOX = ("x", "y", "w", "h")
CORNERS = ("xmin", "ymin", "xmax", "ymax")

READ = ("name", "bndbox", "occlusion", "difficult")
"""Parts of an object that become part of the record."""

NOTHING_SPECIAL = ("", "0", "unknown", "unspecified")
"""What the other parts hold where they say nothing: ``pose`` unknown, ``truncated`` 0."""


MOST_DIGITS = 9
"""Of a height or width; see ``labels.FARTHEST``."""


class _PlainTree(ET.TreeBuilder):
    """Refuses a document type: labels have none, and it could declare entities that explode."""

    def doctype(self, *_: str | None) -> None:
        raise ValueError("a document type (DOCTYPE) is declared, which no label file needs")


def read_kaist_xml(path: PathLike, *, class_names: Sequence[str] | None = None) -> Labels:
    """Read XML labels, one file a frame, such as ``set00/V000/I00000.xml``.

    A file without objects is an image without objects; ``difficult`` 1 makes a region to ignore.
    An annotation has ``extras`` where its object says more, such as ``truncated`` 1.

    Args:
        path: The folder of all, or one file.
        class_names: See ``read_tree``.

    Raises:
        MissingFileError: If the folder or a file is not there, or may not be read.
        AnnotationError: If a file cannot be used; the message names file, line and column, or the
            object.

    Source: S. Hwang et al., rgbt-ped-detection, data/scripts/kaist_to_voc_format.py, and the files
    ``annotations-xml-new``.
    """
    return read_tree(Path(path), ".xml", _read_frame, class_names)


def _read_frame(path: Path, name: str) -> Frame:
    root = _parse(path)
    if root.tag != "annotation":
        raise AnnotationError(
            f"{path}: the outermost element is <{root.tag}>, not <annotation>; these are labels of "
            "another kind"
        )
    stated = (root.findtext("filename") or "").strip()
    if stated and not is_kaist_frame(name):
        name = stated
    objects = [_object(each, row, path) for row, each in enumerate(root.iterfind("object"))]
    return Frame(path, name, _size(root, path), objects)


def _parse(path: Path) -> ET.Element:
    content = read_label_file(path)
    parser = ET.XMLParser(target=_PlainTree())
    try:
        parser.feed(content)
        return parser.close()
    except ET.ParseError as error:
        line, column = error.position
        reason = str(error).split(":")[0]
        raise AnnotationError(
            f"{path}, line {line}, column {column + 1}: not XML ({reason}); the file may be cut "
            "off or of another format: copy it again"
        ) from error
    except (ValueError, LookupError) as error:  # LookupError: an encoding that Python lacks
        raise AnnotationError(f"{path}: cannot be read as XML labels ({error})") from error


def _size(root: ET.Element, path: Path) -> tuple[int, int] | None:
    cells = [(root.findtext(f"size/{side}") or "0").strip() for side in ("height", "width")]
    if not all(cell.isascii() and cell.isdigit() and len(cell) <= MOST_DIGITS for cell in cells):
        raise AnnotationError(
            f"{path}: height and width in <size> must be whole numbers of pixels, got "
            f"{' and '.join(cell[:LONGEST_SHOWN] for cell in cells)}"
        )
    height, width = map(int, cells)
    return (height, width) if height and width else None


def _object(each: ET.Element, row: int, path: Path) -> FrameObject:
    where = f"{path}, object {row}"
    word = (each.findtext("name") or "").strip()
    if not word:
        raise AnnotationError(f"{where}: there is no <name>; give the object its class")
    return FrameObject(
        word,
        _box(each.find("bndbox"), where),
        row,
        _code(each, "difficult", ("0", "1"), where) == 1,
        _code(each, "occlusion", ("0", "1", "2"), where),
        {part.tag: _text(part) for part in each if part.tag not in READ and _says_more(part)},
    )


def _box(box: ET.Element | None, where: str) -> list[float]:
    cells = {} if box is None else {part.tag: _text(part) for part in box}
    form = next((form for form in (SIZED_BOX, CORNERS) if all(key in cells for key in form)), None)
    if form is None:
        raise AnnotationError(
            f"{where}: <bndbox> needs {', '.join(SIZED_BOX)} or {', '.join(CORNERS)}, got "
            f"{', '.join(cells) or 'none'}"
        )
    try:
        x, y, third, fourth = (float(cells[key]) for key in form)
    except ValueError:
        listed = ", ".join(cells[key] for key in form)
        raise AnnotationError(f"{where}: the box must be four numbers, got {listed}") from None
    return [x, y, third, fourth] if form == CORNERS else [x, y, x + third, y + fourth]


def _code(each: ET.Element, tag: str, allowed: Sequence[str], where: str) -> int | None:
    part = each.find(tag)
    if part is None or not _text(part):
        return None
    if _text(part) not in allowed:
        raise AnnotationError(
            f"{where}: <{tag}> must be one of {', '.join(allowed)}, got {_text(part)!r}"
        )
    return int(_text(part))


def _says_more(part: ET.Element) -> bool:
    return len(part) > 0 or _text(part).lower() not in NOTHING_SPECIAL


def _text(part: ET.Element) -> str:
    return (part.text or "").strip()
