"""Reader of CSV label files: one box a line, with or without a header."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from d2pd.data.annotations.csv_columns import CsvTable, read_table
from d2pd.data.annotations.csv_rows import (
    IGNORE_CLASSES,
    NO_CODE,
    CsvRows,
    class_of,
    names_in_file,
    parse_rows,
    why_no_class,
)
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
    rows = parse_rows(table, box_format)
    for fault in rows.faults[:1]:
        message = fault.message(fault.rows[0], len(fault.rows))
        raise AnnotationError(f"{table.where(fault.rows[0])}: {message}")
    categories, chosen = _categories(table, rows.has_box, class_names)
    records = _records(table, rows, categories)
    if select is not None:
        records = [records[at] for at in select([record["file_name"] for record in records])]
    if images is not None:
        _add_paths_and_sizes(records, table, images)
    return Labels(records, chosen)


def _categories(
    table: CsvTable, has_box: np.ndarray, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Give the category of each row, (rows,) int, and the names of the categories."""
    if "class" not in table.columns:
        return np.where(has_box, 0, NO_OBJECT), tuple(class_names or ())
    codes, words = pd.factorize(table.text("class").where(has_box, IGNORE_CLASSES[0]))
    chosen = tuple(class_names) if class_names else names_in_file(list(words))
    targets = [class_of(word, chosen) for word in words]
    if None in targets:
        unknown = targets.index(None)
        row = int(np.argmax(codes == unknown))
        raise AnnotationError(f"{table.where(row)}: {why_no_class(words[unknown], chosen)}")
    return np.where(has_box, np.array(targets, dtype=int)[codes], NO_OBJECT), chosen


def _records(table: CsvTable, rows: CsvRows, categories: np.ndarray) -> list[Record]:
    """Group the rows by image; ``file_name`` is still the name as written."""
    image_of_row, names = pd.factorize(table.text("filename"))
    records: list[Record] = [
        {"file_name": name, "image_id": index, "annotations": []}
        for index, name in enumerate(names)
    ]
    for row in np.flatnonzero(rows.sizes[:, 0]):
        height, width = rows.sizes[row].astype(int).tolist()
        records[image_of_row[row]] |= {"height": height, "width": width}
    columns = zip(
        image_of_row.tolist(),
        rows.boxes_xyxy.tolist(),
        categories.tolist(),
        table.lines.tolist(),
        (rows.ignore == 1).tolist(),
        rows.occlusion.tolist(),
        strict=True,
    )
    for image, box, category, line, is_flagged, occlusion in columns:
        if category != NO_OBJECT:
            records[image]["annotations"].append(
                make_annotation(
                    box,
                    category,
                    is_flagged or category == IGNORE_REGION,
                    line,
                    None if occlusion == NO_CODE else occlusion,
                )
            )
    return records


def _add_paths_and_sizes(records: list[Record], table: CsvTable, images: PathLike) -> None:
    paths = find_images([record["file_name"] for record in records], images, table.path)
    for path, record in zip(paths, records, strict=True):
        record["file_name"] = path
        if "height" not in record:
            record["height"], record["width"] = image_size(Path(path))
