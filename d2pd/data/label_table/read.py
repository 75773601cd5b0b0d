"""Read any label file into a table, whatever faults its rows have."""

from collections.abc import Sequence
from pathlib import Path

from d2pd.data.annotations.file_kind import check_kind, check_no_columns, kind_of
from d2pd.data.annotations.labels import PathLike, read_label_file
from d2pd.data.label_table.csv_rows import read_csv_rows
from d2pd.data.label_table.json_rows import read_json_rows
from d2pd.data.label_table.table import LabelTable
from d2pd.errors import AnnotationError, ConfigError

FORMATS = ("auto", "kaist", "coco", "csv")

MOST_SHOWN = 10
"""Malformed rows in the message on a file without any sound one."""


def read_label_table(
    path: PathLike,
    format: str = "auto",
    *,
    classes: Sequence[str] | None = None,
    box_format: str = "xyxy",
    columns: Sequence[str] | None = None,
) -> LabelTable:
    """Read a label file; rows that cannot be read are listed, not fatal.

    Args:
        path: KAIST JSON, COCO JSON or CSV.
        format: ``kaist``, ``coco``, ``csv``, or ``auto`` to tell it from the content.
        classes: Names of class 0, 1, ...; None takes those that training takes by default.
        box_format: ``xyxy`` or ``xywh``, of a CSV; JSON boxes are x, y, width, height.
        columns: Names of the columns of a CSV in order, in place of its header.

    Raises:
        MissingFileError: If there is no such file, or it may not be read.
        ConfigError: If ``format`` or ``box_format`` is another word, or ``columns`` are given for
            JSON.
        AnnotationError: If the content is not of that format, or no image of it can be read.
    """
    if format not in FORMATS:
        raise ConfigError(f"the format must be one of {', '.join(FORMATS)}, got {format!r}")
    path = Path(path)
    content = read_label_file(path)
    _check_format(content, path, format)
    if kind_of(content) == "JSON":
        check_no_columns(columns, path)
        table = read_json_rows(content, path, format, classes)
    else:
        table = read_csv_rows(content, path, classes, box_format, columns)
    _check_some_image(table)
    return table


def _check_format(content: bytes, path: Path, format: str) -> None:
    kind = kind_of(content)
    if kind in ("XML", "bbGt text"):
        raise AnnotationError(
            f"{path}: this looks like {kind}, one file of an image; turn its folder into one label "
            "file with: d2pd convert"
        )
    if format != "auto":
        check_kind(content, path, format)


def _check_some_image(table: LabelTable) -> None:
    if table.num_images:
        return
    if not table.malformed:
        raise AnnotationError(f"{table.path}: the file names no image; there is nothing to look at")
    count = len(table.malformed)
    listed = "; ".join(row.message for row in table.malformed[:MOST_SHOWN])
    more = f"; and {count - MOST_SHOWN} more" if count > MOST_SHOWN else ""
    raise AnnotationError(
        f"{table.path}: none of the {count} rows can be read as {table.format}: {listed}{more}"
    )
