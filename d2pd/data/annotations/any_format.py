"""Reader of a label file whatever its format: labels alone, to measure detections against."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from d2pd.data.annotations.coco import read_coco_json
from d2pd.data.annotations.csv_file import read_csv
from d2pd.data.annotations.json_tables import JsonTables, read_tables
from d2pd.data.annotations.kaist import PUBLISHED_CATEGORIES, read_kaist_json
from d2pd.data.annotations.labels import (
    FARTHEST,
    IGNORE_REGION,
    Labels,
    PathLike,
    why_no_file,
)
from d2pd.errors import AnnotationError, MissingFileError


@dataclass(frozen=True)
class NamedLabels:
    """The labels of a file, and the ids by which others name its classes.

    Attributes:
        labels: As the file has them, faults without consequence included; ``height`` and
            ``width`` of a record are 0 where the file does not state them.
        category_ids: Class 0..K-1 of each category id of the file, or ``IGNORE_REGION``. A CSV
            has no ids: there, the number and the name of a class both stand for it.
    """

    labels: Labels
    category_ids: Mapping[int | str, int]


def read_any_labels(path: PathLike) -> NamedLabels:
    """Read KAIST JSON (its images have ``im_name``), COCO JSON or CSV; no picture is needed.

    Args:
        path: The file; a name that ends in ``.csv`` is read as CSV with corners (xyxy).

    Raises:
        MissingFileError: If there is no such file.
        AnnotationError: If the content cannot be used, a box has a negative size or is not
            finite, or there is no image; the message names the row.
    """
    path = Path(path)
    if not path.is_file():
        what = why_no_file(path) or "no such label file"
        raise MissingFileError(f"{path}: {what} (looked from {Path.cwd()})")
    if path.suffix.lower() == ".csv":
        read = _read_csv(path)
    else:
        tables = read_tables(path)
        read_json = read_kaist_json if tables.format == "kaist" else read_coco_json
        labels = read_json(path, None)
        read = _named(labels, tables)
    if not read.labels.records:
        raise AnnotationError(f"{path}: the file names no image; nothing can be measured on it")
    _check_boxes(read.labels, path)
    for record in read.labels.records:
        record.setdefault("height", 0)
        record.setdefault("width", 0)
    return read


def _read_csv(path: Path) -> NamedLabels:
    labels = read_csv(path, None)
    numbers: dict[int | str, int] = {name: n for n, name in enumerate(labels.class_names)}
    numbers |= {n: n for n in range(len(labels.class_names))}
    return NamedLabels(labels, numbers)


def _named(labels: Labels, tables: JsonTables) -> NamedLabels:
    names = dict(tables.categories or PUBLISHED_CATEGORIES)
    names.pop(IGNORE_REGION, None)
    chosen = labels.class_names
    numbers = {
        key: chosen.index(name) if name in chosen else IGNORE_REGION for key, name in names.items()
    }
    return NamedLabels(labels, numbers)


def _check_boxes(labels: Labels, path: Path) -> None:
    for record in labels.records:
        for annotation in record["annotations"]:
            x1, y1, x2, y2 = annotation["bbox"]
            is_far = not all(abs(value) <= FARTHEST for value in (x1, y1, x2, y2))  # or NaN
            if is_far or x2 < x1 or y2 < y1:
                place = "line" if path.suffix.lower() == ".csv" else "annotation"
                raise AnnotationError(
                    f"{path}, {place} {annotation['row']}: the box x1, y1, x2, y2 = "
                    f"{x1:g}, {y1:g}, {x2:g}, {y2:g} has no size that could be measured; mend it"
                )
