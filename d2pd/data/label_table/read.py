"""Read any label file into a table, whatever faults its rows have."""

from collections.abc import Sequence
from pathlib import Path

from d2pd.data.annotations.labels import PathLike, read_label_file
from d2pd.data.label_table.json_rows import read_json_rows
from d2pd.data.label_table.table import LabelTable
from d2pd.errors import ConfigError

FORMATS = ("auto", "kaist", "coco", "csv")


def read_label_table(
    path: PathLike,
    format: str = "auto",
    *,
    classes: Sequence[str] | None = None,
    box_format: str = "xyxy",
) -> LabelTable:
    """Read a label file; rows that cannot be read are listed, not fatal.

    Args:
        path: KAIST JSON, COCO JSON or CSV.
        format: ``kaist``, ``coco``, ``csv``, or ``auto`` to tell it from the content.
        classes: Names of class 0, 1, ...; None takes those that training takes by default.
        box_format: ``xyxy`` or ``xywh``, of a CSV; JSON boxes are x, y, width, height.

    Raises:
        MissingFileError: If there is no such file, or it may not be read.
        ConfigError: If ``format`` or ``box_format`` is another word.
        AnnotationError: If the content is not of that format, or no image of it can be read.
    """
    if format not in FORMATS:
        raise ConfigError(f"the format must be one of {', '.join(FORMATS)}, got {format!r}")
    path = Path(path)
    content = read_label_file(path)
    return read_json_rows(content, path, format, classes)
