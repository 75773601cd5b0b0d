"""Reader of bbGt text labels, version 3: the form in which KAIST was first published."""

import re
from collections.abc import Sequence
from pathlib import Path

from d2pd.data.annotations.label_tree import Frame, FrameObject, read_tree
from d2pd.data.annotations.labels import Labels, PathLike, read_label_file
from d2pd.errors import AnnotationError

FIELDS = ("lbl", "x", "y", "w", "h", "occ", "xv", "yv", "wv", "hv", "ign", "ang")
"""Of a line: class, box, occlusion, box of what is visible, flag to ignore, angle in degrees."""

HEADER = re.compile(r"%\s*bbGt\s+version\s*=\s*(\d+)")


def read_bbgt(path: PathLike, *, class_names: Sequence[str] | None = None) -> Labels:
    """Read text labels, one file a frame, such as ``set00/V000/I00000.txt``.

    A file without objects is an image without objects. An annotation has ``extras`` with
    ``visible box`` (x1, y1, x2, y2) and ``angle`` where they are not 0.

    Args:
        path: The folder of all, or one file.
        class_names: See ``read_tree``.

    Raises:
        MissingFileError: If the folder or a file is not there, or may not be read.
        AnnotationError: If a file cannot be used; the message names file and line.

    Source: P. Dollar, Computer Vision Matlab Toolbox, bbGt, functions bbSave and bbLoad.
    """
    return read_tree(Path(path), ".txt", _read_frame, class_names)


def _read_frame(path: Path, name: str) -> Frame:
    numbered = enumerate(_decode(path).splitlines(), 1)
    filled = [(number, line) for number, line in numbered if line.strip()]
    (first, start), *rows = filled or [(1, "")]
    header = HEADER.fullmatch(start.strip())
    if header is None:
        raise AnnotationError(
            f"{path}, line {first}: expected '% bbGt version=3', got {start[:40]!r}; if the folder "
            "holds other texts too, name the one with set00, set01, ... alone"
        )
    if header[1] != "3":
        raise AnnotationError(
            f"{path}, line {first}: bbGt version {header[1][:40]}; version 3 is what KAIST has and "
            "what can be read: save the labels as such"
        )
    objects = [_object(line.split(), path, number) for number, line in rows]
    return Frame(path, name, None, objects)


def _decode(path: Path) -> str:
    content = read_label_file(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise AnnotationError(
            f"{path}, line {line}: byte {error.start} is not UTF-8 text; save the file as UTF-8"
        ) from error


def _object(cells: Sequence[str], path: Path, line: int) -> FrameObject:
    where = f"{path}, line {line}"
    if len(cells) != len(FIELDS):
        raise AnnotationError(
            f"{where}: expected {len(FIELDS)} fields ({' '.join(FIELDS)}), got {len(cells)}; the "
            "file may be cut off: copy it again"
        )
    x, y, w, h, occlusion, *visible, is_ignored, angle = (
        _number(cell, field, where) for cell, field in zip(cells[1:], FIELDS[1:], strict=True)
    )
    if occlusion not in (0, 1, 2) or is_ignored not in (0, 1):
        raise AnnotationError(
            f"{where}: occ must be 0 (none), 1 (partial) or 2 (heavy) and ign 0 or 1, got "
            f"{cells[5]} and {cells[10]}"
        )
    extras: dict[str, object] = {}
    if any(visible):
        xv, yv, wv, hv = visible
        extras["visible box"] = (xv, yv, xv + wv, yv + hv)
    if angle:
        extras["angle"] = angle
    return FrameObject(
        cells[0], [x, y, x + w, y + h], line, bool(is_ignored), int(occlusion), extras
    )


def _number(cell: str, field: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise AnnotationError(f"{where}: {field} must be a number, got {cell!r}") from None
