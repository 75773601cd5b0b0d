"""Labels to convert: of which format they are, all that they say, and what no target has."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2pd.data.annotations import read_coco_json, read_csv, read_kaist_json
from d2pd.data.annotations.bbgt import read_bbgt
from d2pd.data.annotations.csv_columns import read_table
from d2pd.data.annotations.file_kind import check_kind, check_no_columns, kind_of
from d2pd.data.annotations.json_tables import JsonTables, read_tables
from d2pd.data.annotations.kaist import PUBLISHED_CATEGORIES
from d2pd.data.annotations.kaist_xml import read_kaist_xml
from d2pd.data.annotations.label_tree import IGNORE_WORDS, list_files
from d2pd.data.annotations.labels import IGNORE_REGION, Labels, read_label_file
from d2pd.errors import AnnotationError

OTHER_CLASS = "classes that were not chosen: their boxes are regions to ignore"
LEFT_OUT = "boxes of classes that were not chosen, left out"
BOX_IDS = "ids of boxes: they are counted from 0"

_BOX_KEYS = {
    *("id", "image_id", "category_id", "bbox", "height", "area"),
    *("ignore", "iscrowd", "is_crowd", "occlusion"),
}
_IMAGE_KEYS = {"id", "im_name", "file_name", "height", "width"}
_SUFFIXES = {".txt": "bbgt", ".xml": "xml"}
_FORMATS = {"bbGt text": "bbgt", "XML": "xml", "CSV": "csv"}


@dataclass(frozen=True)
class Source:
    """Labels as read, with all their classes.

    Attributes:
        labels: Without pictures.
        format: ``kaist``, ``coco``, ``csv``, ``bbgt`` or ``xml``.
        class_ids: Id of each class in the file, for JSON.
        lost: How often the file says something that no target can say, by what that is. What a
            JSON says of itself, such as ``info``, is not counted.
    """

    labels: Labels
    format: str
    class_ids: Mapping[str, int | str] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)


def read_source(
    path: Path,
    format: str,
    classes: Sequence[str] | None,
    box_format: str = "xyxy",
    columns: Sequence[str] | None = None,
) -> Source:
    """Read labels with all their classes, or those chosen.

    Args:
        path: Label file; for ``bbgt`` and ``xml`` the folder of such files, or one of them.
        format: One of ``Source.format``, or ``auto`` to tell it from the content.
        classes: Names of class 0, 1, ...; None for all of the file.
        box_format: ``xyxy`` or ``xywh``, of a CSV.
        columns: Names of the columns of a CSV in order, in place of its header.

    Raises:
        ConfigError: If ``columns`` are given for another format.
        MissingFileError: If a file is not there, or may not be read.
        AnnotationError: If the content cannot be used; the message names the place.
    """
    format = tell_format(path) if format == "auto" else format
    if format != "csv":
        check_no_columns(columns, path)
    if format in ("bbgt", "xml"):
        labels = (read_bbgt if format == "bbgt" else read_kaist_xml)(path, class_names=classes)
        return Source(labels, format, lost=_extras(labels))
    if path.is_dir():
        raise AnnotationError(f"{path}: this is a folder; name the label file of format {format}")
    check_kind(read_label_file(path), path, format)
    if format == "csv":
        labels = read_csv(path, None, class_names=classes, box_format=box_format, columns=columns)
        return Source(labels, format, lost=_other_columns(path, box_format, columns))
    return _read_json(path, format, classes)


def tell_format(path: Path) -> str:
    """Tell the format of a label file, or of the files in a folder, by its content.

    Raises:
        MissingFileError: If it is not there.
        AnnotationError: If a folder holds no labels, or those of two formats.
    """
    if path.is_dir():
        return _tell_format_of_folder(path)
    kind = kind_of(read_label_file(path))
    return read_tables(path).format if kind == "JSON" else _FORMATS[kind]


def _tell_format_of_folder(folder: Path) -> str:
    suffixes = {file.suffix.lower() for file in list_files(folder)} & _SUFFIXES.keys()
    if len(suffixes) != 1:
        found = "both .txt and .xml files; choose --format bbgt or xml"
        raise AnnotationError(
            f"{folder}: the folder holds "
            + (found if suffixes else "neither .txt (bbGt) nor .xml labels; name another")
        )
    return _SUFFIXES[suffixes.pop()]


def _read_json(path: Path, format: str, classes: Sequence[str] | None) -> Source:
    tables = read_tables(path)
    names = dict(tables.categories or (PUBLISHED_CATEGORIES if format == "kaist" else {}))
    lost = _other_keys(tables)
    if format == "kaist":
        names.pop(IGNORE_REGION, None)  # whatever it is called
        names = {key: name for key, name in names.items() if name not in IGNORE_WORDS}
        labels = read_kaist_json(path, None, class_names=classes or [*names.values()])
        others = {key for key, name in names.items() if name not in labels.class_names}
        lost[OTHER_CLASS] = sum(row["category_id"] in others for row in tables.annotations)
    else:
        labels = read_coco_json(path, None, class_names=classes)
        num_boxes = sum(len(record["annotations"]) for record in labels.records)
        lost[LEFT_OUT] = len(tables.annotations) - num_boxes
    rows = [each["row"] for record in labels.records for each in record["annotations"]]
    lost[BOX_IDS] = sum(
        tables.annotations[row].get("id", position) != position for position, row in enumerate(rows)
    )
    ids = {name: key for key, name in names.items() if name in labels.class_names}
    return Source(labels, format, ids, +lost)


def _extras(labels: Labels) -> Counter[str]:
    """Count what single boxes say besides."""
    found: Counter[str] = Counter()
    for record in labels.records:
        for annotation in record["annotations"]:
            for name in annotation.get("extras", {}):
                found[OTHER_CLASS if name == "class" else f"of boxes: {name}"] += 1
    return found


def _other_keys(tables: JsonTables) -> Counter[str]:
    """Count the values of rows that are no labels, but for empty ones."""
    found: Counter[str] = Counter()
    for rows, known, what in (
        (tables.images, _IMAGE_KEYS, "images"),
        (tables.annotations, _BOX_KEYS, "boxes"),
    ):
        for row in rows:
            found.update(f"of {what}: {key}" for key in row.keys() - known if row[key])
    found["of boxes: area that is not width x height"] = sum(map(_has_own_area, tables.annotations))
    return found


def _has_own_area(row: Mapping[str, Any]) -> bool:
    area, box = row.get("area"), row.get("bbox")
    if not isinstance(area, int | float) or not isinstance(box, list) or len(box) != 4:
        return False
    try:
        size = float(box[2]) * float(box[3])
    except (TypeError, ValueError, OverflowError):  # the reader says what is wrong
        return False
    return abs(size - area) > 1e-6 * max(1.0, abs(size))


def _other_columns(path: Path, box_format: str, columns: Sequence[str] | None) -> Counter[str]:
    table = read_table(path, box_format, columns, needs_class=False)
    return +Counter(
        {"columns that hold no labels": table.cells.shape[1] - len(set(table.columns.values()))}
    )
