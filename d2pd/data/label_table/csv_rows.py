"""The lines of a CSV as a table; a line that cannot be read is listed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from d2pd.data.annotations.csv_columns import CsvTable, parse_table
from d2pd.data.annotations.csv_rows import (
    CsvRows,
    class_of,
    names_in_file,
    parse_rows,
)
from d2pd.data.annotations.labels import IGNORE_REGION
from d2pd.data.label_table.table import UNKNOWN_CATEGORY, LabelTable, MalformedRow


def read_csv_rows(
    content: bytes,
    path: Path,
    classes: Sequence[str] | None,
    box_format: str,
    columns: Sequence[str] | None,
) -> LabelTable:
    """Read a CSV.

    Args:
        content: Of the file.
        path: Its name.
        classes: Names of class 0, 1, ..., other words are unknown; None takes all words of the
            file.
        box_format: ``xyxy`` or ``xywh``.
        columns: Names of the columns in order, in place of a header.

    Raises:
        ConfigError: If ``box_format`` is another word.
        AnnotationError: If the file cannot be split into lines, or a column is missing.
    """
    one_class = classes is not None and len(classes) == 1
    table = parse_table(content, path, box_format, columns, needs_class=not one_class)
    rows = parse_rows(table, box_format)
    malformed, is_sound = _malformed(table, rows)
    names = table.text("filename").where(is_sound)
    image_of_row, image_names = pd.factorize(names)  # -1 where the row is not sound
    first_rows = _first_rows(image_of_row, len(image_names))
    is_box = is_sound & rows.has_box
    categories, class_names, words = _categories(table, is_box, classes)
    heights, widths = _image_sizes(rows, image_of_row, is_sound, len(image_names))
    return LabelTable(
        path=path,
        format="csv",
        box_format=box_format,
        image_names=list(image_names),
        image_ids=list(range(len(image_names))),
        image_rows=table.lines[first_rows].astype(np.int64),
        heights=heights,
        widths=widths,
        box_images=image_of_row[is_box].astype(np.int64),
        boxes_xyxy=rows.boxes_xyxy[is_box],
        box_rows=table.lines[is_box].astype(np.int64),
        categories=categories,
        class_names=class_names,
        category_words=words,
        is_region=(rows.ignore[is_box] == 1) | (categories == IGNORE_REGION),
        occlusion=rows.occlusion[is_box],
        malformed=malformed,
        repeated=_repeated(table, image_of_row, first_rows, is_sound & ~rows.has_box),
        columns=tuple(columns) if columns else None,
    )


def _malformed(table: CsvTable, rows: CsvRows) -> tuple[list[MalformedRow], np.ndarray]:
    """List the lines that cannot be read, each for its first fault, and mark the sound rows."""
    is_sound = np.ones(len(table.cells), dtype=bool)
    column = table.columns["filename"]
    found = [(ragged.line, ragged.message, ragged.cells[column] or None) for ragged in table.ragged]
    names = table.text("filename").to_numpy()
    for fault in rows.faults:
        new = fault.rows[is_sound[fault.rows]]
        found += [(int(table.lines[row]), fault.message(row), names[row] or None) for row in new]
        is_sound[new] = False
    malformed = [
        MalformedRow(line, "line", f"line {line}: {message}", name)
        for line, message, name in sorted(found, key=lambda each: each[0])
    ]
    return malformed, is_sound


def _first_rows(image_of_row: np.ndarray, num_images: int) -> np.ndarray:
    """Give the first row of each image, (I,); rows of image -1 are passed over."""
    first = np.zeros(num_images, dtype=np.int64)
    backwards = np.flatnonzero(image_of_row >= 0)[::-1]
    first[image_of_row[backwards]] = backwards  # the last value that is written stays
    return first


def _categories(
    table: CsvTable, is_box: np.ndarray, classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...], dict[int, str]]:
    """Give the category of each box, the classes, and the unknown words by line."""
    if "class" not in table.columns:
        return np.zeros(int(is_box.sum()), dtype=np.int64), tuple(classes or ()), {}
    codes, words = pd.factorize(table.text("class")[is_box])
    class_names = tuple(classes) if classes else names_in_file(list(words))
    found = [class_of(word, class_names) for word in words]
    targets = np.array([UNKNOWN_CATEGORY if n is None else n for n in found], dtype=np.int64)
    categories = targets[codes]
    is_unknown = categories == UNKNOWN_CATEGORY
    lines = table.lines[is_box][is_unknown].tolist()
    unknown = {
        line: words[code] or "nothing" for line, code in zip(lines, codes[is_unknown], strict=True)
    }
    return categories, class_names, unknown


def _image_sizes(
    rows: CsvRows, image_of_row: np.ndarray, is_sound: np.ndarray, num_images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Give height and width of each image, (I,) each; 0 where no sound row states them."""
    sizes = np.zeros((num_images, 2))
    stated = np.flatnonzero(is_sound & (rows.sizes[:, 0] > 0))
    sizes[image_of_row[stated]] = rows.sizes[stated]  # all rows of an image state the same
    return sizes[:, 0], sizes[:, 1]


def _repeated(
    table: CsvTable, image_of_row: np.ndarray, first_rows: np.ndarray, is_image_only: np.ndarray
) -> dict[int, int]:
    only = np.flatnonzero(is_image_only)
    again = only[first_rows[image_of_row[only]] < only]
    return dict(zip(table.lines[again].tolist(), image_of_row[again].tolist(), strict=True))
