"""Reader of CSV label files: one box a line, with or without a header."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from d2pd.data.annotations.csv_columns import BOX_FIELDS, CsvTable, read_table
from d2pd.data.annotations.image_files import find_images, image_size
from d2pd.data.annotations.labels import (
    IGNORE_REGION,
    Labels,
    PathLike,
    Record,
    Select,
    make_annotation,
)
from d2pd.errors import AnnotationError

IGNORE_CLASSES = ("ignore", "__ignore__", "-1")
"""What a class cell holds for a region that is to be ignored for every class."""

NO_OBJECT = -2
"""Category of a line that names an image and no box."""


def read_csv(
    annotations: PathLike,
    images: PathLike | None,
    *,
    class_names: Sequence[str] | None = None,
    box_format: str = "xyxy",
    columns: Sequence[str] | None = None,
    select: Select | None = None,
) -> Labels:
    """Read boxes from a CSV; a line with a file name and no box is an image without objects.

    Args:
        annotations: The file. Without a header its columns are filename, four of the box, class.
        images: Folder that file names are relative to; None reads the labels alone.
        class_names: Names of category 0, 1, ...; the file may say the name or the number. None
            takes the names of the file in alphabetical order, or its numbers.
        box_format: ``xyxy`` for corners, ``xywh`` for corner and size, in pixels.
        columns: Names of the columns in order, in place of a header.
        select: Chooses some of the images; None takes all.

    Returns:
        Records in the order in which the file first names the images. Without ``images`` a record
        has ``height`` and ``width`` only where the file states them.

    Raises:
        MissingFileError: If the file, the folder or an image is not there.
        ConfigError: If ``box_format`` is another word.
        AnnotationError: If the content cannot be used; the message names file and line.
    """
    one_class = class_names is not None and len(class_names) == 1
    table = read_table(annotations, box_format, columns, needs_class=not one_class)
    has_box = _rows_with_box(table, box_format)
    boxes = _boxes(table, box_format, has_box)
    categories, chosen = _categories(table, has_box, class_names)
    records = _records(table, boxes, categories)
    if select is not None:
        records = [records[at] for at in select([record["file_name"] for record in records])]
    _add_paths_and_sizes(records, table, images)
    return Labels(records, chosen)


def _rows_with_box(table: CsvTable, box_format: str) -> np.ndarray:
    """Tell rows that hold a box from those that only name an image, (rows,) bool."""
    fields = BOX_FIELDS[box_format]
    filled = np.stack([(table.text(field) != "").to_numpy() for field in fields], axis=1)
    count = filled.sum(axis=1)
    for row in np.flatnonzero((count > 0) & (count < 4))[:1]:
        empty = ", ".join(np.array(fields)[~filled[row]])
        raise AnnotationError(
            f"{table.where(row)}: the box has no {empty}; fill it in, or leave all four empty for "
            "an image without objects"
        )
    for row in np.flatnonzero((table.text("filename") == "").to_numpy())[:1]:
        raise AnnotationError(f"{table.where(row)}: there is no file name; add it")
    return count == 4


def _boxes(table: CsvTable, box_format: str, has_box: np.ndarray) -> np.ndarray:
    """Give the boxes as (rows, 4) XYXY in pixels, NaN where a row has none."""
    fields = BOX_FIELDS[box_format]
    numbers = np.stack([_numbers(table, field, has_box) for field in fields], axis=1)
    if box_format == "xywh":
        numbers[:, 2:] += numbers[:, :2]
    return numbers


def _numbers(table: CsvTable, field: str, is_used: np.ndarray) -> np.ndarray:
    """Read a column as numbers; ``nan`` and ``inf`` are numbers, which cleaning drops."""
    text = table.text(field)
    numbers = np.asarray(pd.to_numeric(text, errors="coerce"), dtype=float)
    is_word = np.isnan(numbers) & is_used & (text.str.lower() != "nan").to_numpy()
    bad_rows = np.flatnonzero(is_word)
    if len(bad_rows):
        more = f" ({len(bad_rows)} lines like it)" if len(bad_rows) > 1 else ""
        raise AnnotationError(
            f"{table.where(bad_rows[0])}: {field} must be a number, got "
            f"{text.iloc[bad_rows[0]]!r}{more}; mend the line, or name the columns with COLUMNS"
        )
    return numbers


def _categories(
    table: CsvTable, has_box: np.ndarray, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Give the category of each row, (rows,) int, and the names of the categories."""
    if "class" not in table.columns:
        return np.where(has_box, 0, NO_OBJECT), tuple(class_names or ())
    codes, values = pd.factorize(table.text("class").where(has_box, IGNORE_CLASSES[0]))
    chosen = tuple(class_names) if class_names else _names_in_file(list(values))
    first_rows = np.unique(codes, return_index=True)[1]
    targets = np.array(
        [
            _category(value, chosen, table.where(row))
            for value, row in zip(values, first_rows, strict=True)
        ],
        dtype=int,
    )
    return np.where(has_box, targets[codes], NO_OBJECT), chosen


def _names_in_file(values: Sequence[str]) -> tuple[str, ...]:
    names = [value for value in values if value and value not in IGNORE_CLASSES]
    if names and all(map(_is_id, names)):
        return tuple(str(number) for number in range(max(map(int, names)) + 1))
    return tuple(sorted(names))


def _is_id(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 5


def _category(value: str, chosen: tuple[str, ...], where: str) -> int:
    if value in chosen:
        return chosen.index(value)
    if value in IGNORE_CLASSES:
        return IGNORE_REGION
    listed = ", ".join(chosen)
    if value == "":
        raise AnnotationError(f"{where}: the box has no class; name one of {listed}")
    if value.lstrip("-").isdigit():
        if _is_id(value) and int(value) < len(chosen):
            return int(value)
        raise AnnotationError(
            f"{where}: class id {value} is out of range; {len(chosen)} classes ({listed}) have "
            f"the ids 0 to {len(chosen) - 1}: mend the line or add the class to CLASSES"
        )
    raise AnnotationError(
        f"{where}: class {value!r} is not one of {listed}; mend the line or add it to CLASSES"
    )


def _records(table: CsvTable, boxes: np.ndarray, categories: np.ndarray) -> list[Record]:
    """Group the rows by image; ``file_name`` is still the name as written."""
    image_of_row, names = pd.factorize(table.text("filename"))
    records: list[Record] = [
        {"file_name": name, "image_id": index, "annotations": []}
        for index, name in enumerate(names)
    ]
    ignored = _small_numbers(table, "ignore", {"0": 0, "1": 1, "false": 0, "true": 1})
    occlusion = _small_numbers(table, "occlusion", {"0": 0, "1": 1, "2": 2})
    rows = zip(
        image_of_row.tolist(),
        boxes.tolist(),
        categories.tolist(),
        table.lines.tolist(),
        ignored,
        occlusion,
        strict=True,
    )
    for image, box, category, line, is_ignored, occluded in rows:
        if category != NO_OBJECT:
            is_region = bool(is_ignored) or category == IGNORE_REGION
            records[image]["annotations"].append(
                make_annotation(box, category, is_region, line, occluded)
            )
    return records


def _small_numbers(table: CsvTable, field: str, values: dict[str, int]) -> list[int | None]:
    """Read a column of codes; None where the column is absent or a cell empty."""
    if field not in table.columns:
        return [None] * len(table.cells)
    numbers: list[int | None] = []
    for row, text in enumerate(table.text(field)):
        if text and text.lower() not in values:
            raise AnnotationError(
                f"{table.where(row)}: {field} must be one of {', '.join(values)}, got {text!r}"
            )
        numbers.append(values[text.lower()] if text else None)
    return numbers


def _add_paths_and_sizes(records: list[Record], table: CsvTable, images: PathLike | None) -> None:
    stated = _stated_sizes(table)
    names = [record["file_name"] for record in records]
    paths = names if images is None else find_images(names, images, table.path)
    for name, path, record in zip(names, paths, records, strict=True):
        size = stated.get(name)
        if size is None and images is not None:
            size = image_size(Path(path))
        record["file_name"] = path
        if size is not None:
            record["height"], record["width"] = size


def _stated_sizes(table: CsvTable) -> dict[str, tuple[int, int]]:
    """Give (height, width) of the images whose size the file states; 0 counts as not stated."""
    if not {"image_height", "image_width"} <= table.columns.keys():
        return {}
    is_stated = (table.text("image_height") != "").to_numpy()
    sizes = np.stack(
        [_numbers(table, field, is_stated) for field in ("image_height", "image_width")], axis=1
    )
    is_size = (sizes > 0).all(axis=1) & (sizes < 1e9).all(axis=1)
    found: dict[str, tuple[int, int]] = {}
    names = table.text("filename").tolist()
    for row in np.flatnonzero(is_size):
        size = (int(sizes[row, 0]), int(sizes[row, 1]))
        if found.setdefault(names[row], size) != size:
            raise AnnotationError(
                f"{table.where(row)}: {names[row]} is {size[1]}x{size[0]} here and "
                f"{found[names[row]][1]}x{found[names[row]][0]} above; an image has one size"
            )
    return found
