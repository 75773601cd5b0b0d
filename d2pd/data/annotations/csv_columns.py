"""Which column of a CSV label file holds what."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from d2pd.data.annotations.csv_cells import RaggedLine, decode_csv, separator_of, split_csv
from d2pd.data.annotations.labels import PathLike, read_label_file
from d2pd.errors import AnnotationError, ConfigError

BOX_FIELDS = {"xyxy": ("x1", "y1", "x2", "y2"), "xywh": ("x1", "y1", "w", "h")}

ALIASES: dict[str, tuple[str, ...]] = {
    "filename": (
        *("filename", "file", "image", "imagepath", "imagename", "img", "imgpath", "imgname"),
        *("path", "filepath", "imname", "imageid"),
    ),
    "x1": ("x1", "xmin", "left", "x", "minx", "bboxx", "bboxx1"),
    "y1": ("y1", "ymin", "top", "y", "miny", "bboxy", "bboxy1"),
    "x2": ("x2", "xmax", "right", "maxx", "bboxx2"),
    "y2": ("y2", "ymax", "bottom", "maxy", "bboxy2"),
    "w": ("w", "boxwidth", "bboxwidth", "bboxw", "width"),
    "h": ("h", "boxheight", "bboxheight", "bboxh", "height"),
    "class": (
        *("class", "label", "classname", "category", "name", "labelname"),
        *("classid", "categoryid", "labelid"),
    ),
    "image_width": ("imagewidth", "imgwidth", "width"),
    "image_height": ("imageheight", "imgheight", "height"),
    "ignore": ("ignore", "iscrowd", "crowd", "difficult"),
    "occlusion": ("occlusion", "occluded"),
}
"""Names of each field in a header, in order of preference, lower case without ``_``, `` `` ..."""

IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp|ppm|pgm)$", re.IGNORECASE)


@dataclass(frozen=True)
class CsvTable:
    """The cells of a label file as text, without the header.

    Attributes:
        path: The file, for messages.
        cells: (rows, columns) of stripped text; rows without any text are left out.
        lines: (rows,) 1-based line of the file on which each row begins.
        columns: Position of each field that is there; fields as in ``ALIASES``.
        separator: Between the cells.
        has_header: Whether the first line names the columns.
        ragged: Lines that ``cells`` does not hold, as they do not fit; none, if ``read_table``
            gave it.
    """

    path: Path
    cells: pd.DataFrame
    lines: np.ndarray
    columns: dict[str, int]
    separator: str
    has_header: bool
    ragged: list[RaggedLine]

    def text(self, field: str) -> "pd.Series[str]":
        """Give the cells of a field."""
        return self.cells.iloc[:, self.columns[field]]

    def where(self, row: int | np.integer) -> str:
        """Name the file and the line of a row."""
        return f"{self.path}, line {self.lines[row]}"


def read_table(
    path: PathLike, box_format: str, columns: Sequence[str] | None, needs_class: bool
) -> CsvTable:
    """Read the cells of a CSV and find the header, if it has one.

    Args:
        path: The file: UTF-8, or UTF-16 with its mark; comma, semicolon or tab.
        box_format: ``xyxy`` or ``xywh``.
        columns: Names of the columns in order, in place of the header.
        needs_class: Whether a column for the class must be there.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If ``box_format`` is another word.
        AnnotationError: If the file cannot be split into cells or a column is missing.
    """
    path = Path(path)
    table = parse_table(read_label_file(path), path, box_format, columns, needs_class)
    for ragged in table.ragged[:1]:
        raise AnnotationError(f"{path}, line {ragged.line}: {ragged.message}")
    return table


def parse_table(
    content: bytes,
    path: Path,
    box_format: str,
    columns: Sequence[str] | None,
    needs_class: bool,
) -> CsvTable:
    """Split the content of a CSV into cells, as ``read_table`` does; ragged lines are set apart.

    Args:
        content: Of the file.
        path: Its name, for messages.
        box_format: ``xyxy`` or ``xywh``.
        columns: Names of the columns in order, in place of the header.
        needs_class: Whether a column for the class must be there.

    Raises:
        ConfigError: If ``box_format`` is another word.
        AnnotationError: If the file cannot be split into cells or a column is missing.
    """
    if box_format not in BOX_FIELDS:
        raise ConfigError(f"BOX_FORMAT must be one of {', '.join(BOX_FIELDS)}, got {box_format!r}")
    text = decode_csv(content, path)
    separator = separator_of(text)
    cells, lines, ragged = split_csv(text, separator, path)
    has_header = _is_header(list(cells.iloc[0]))
    names = list(columns) if columns else list(cells.iloc[0]) if has_header else None
    needed = ("filename", *BOX_FIELDS[box_format], *(["class"] if needs_class else []))
    if names is None:
        found = _columns_without_header(cells.shape[1], needed, box_format, path)
        _check_pictures_first(list(cells.iloc[0]), path)
    else:
        found = _columns_by_name(names, needed, box_format, path)
    if max(found.values()) >= cells.shape[1]:
        raise AnnotationError(
            f"{path}: COLUMNS names {len(names or ())} columns, the file has {cells.shape[1]}; "
            "name them in the order of the file"
        )
    is_row = (cells != "").any(axis=1).to_numpy(copy=True)
    is_row[0] &= not has_header
    cells = cells[is_row].reset_index(drop=True)
    return CsvTable(path, cells, lines[is_row], found, separator, has_header, ragged)


def one_line(text: str) -> str:
    """Write what a cell holds, which may have line breaks, on one line of a message."""
    return " ".join(text.splitlines())


def _simplify(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_header(first_row: Sequence[str]) -> bool:
    """Tell a header from labels: it names no picture and holds no number."""
    cells = [cell for cell in first_row if cell]
    known = {alias for aliases in ALIASES.values() for alias in aliases}
    if any(IMAGE_SUFFIX.search(cell) or _is_number(cell) for cell in cells):
        return False
    return len(cells) > 1 or any(_simplify(cell) in known for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _columns_without_header(
    count: int, needed: Sequence[str], box_format: str, path: Path
) -> dict[str, int]:
    expected = ("filename", *BOX_FIELDS[box_format], "class")
    if not len(needed) <= count <= len(expected):
        raise AnnotationError(
            f"{path}: expected the columns {','.join(expected)} or a header, got {count} columns "
            "without a header; name the columns of the file with COLUMNS"
        )
    return dict(zip(expected[:count], range(count), strict=True))


def _check_pictures_first(first_row: Sequence[str], path: Path) -> None:
    """Refuse labels without a header whose last column, not the first, names pictures."""
    if IMAGE_SUFFIX.search(first_row[-1]) and not IMAGE_SUFFIX.search(first_row[0]):
        raise AnnotationError(
            f"{path}: the last column names pictures ({one_line(first_row[-1])}), the first does "
            "not; without a header the picture comes first and the class last: add a line with the "
            "names of the columns, or name them with COLUMNS"
        )


def _columns_by_name(
    names: Sequence[str], needed: Sequence[str], box_format: str, path: Path
) -> dict[str, int]:
    simple = [_simplify(name) for name in names]
    found: dict[str, int] = {}
    unused = {"xyxy": ("w", "h"), "xywh": ("x2", "y2")}[box_format]
    for field, aliases in ALIASES.items():
        if field not in unused:
            free = (name for name in aliases if name in simple)
            position = next((simple.index(name) for name in free), None)
            if position is not None and position not in found.values():
                found[field] = position
    missing = [field for field in needed if field not in found]
    if missing:
        other = "xywh" if box_format == "xyxy" else "xyxy"
        listed = io.StringIO()
        csv.writer(listed, lineterminator="").writerow(names)
        raise AnnotationError(
            f"{path}: no column for {', '.join(missing)} in {one_line(listed.getvalue())}; name "
            f"the columns with COLUMNS, or set BOX_FORMAT {other} if the boxes are {other}"
        )
    return found
