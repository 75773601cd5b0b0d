"""What each line of a CSV label file says, and which lines cannot be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from d2pd.data.annotations.csv_columns import BOX_FIELDS, CsvTable, one_line
from d2pd.data.annotations.labels import IGNORE_REGION

IGNORE_CLASSES = ("ignore", "__ignore__", "-1")
"""What a class cell holds for a region that is to be ignored for every class."""

IGNORE_CODES = {"0": 0, "1": 1, "false": 0, "true": 1}
OCCLUSION_CODES = {"0": 0, "1": 1, "2": 2}

NO_CODE = -1
"""Value of a code where the column is absent or the cell empty."""


@dataclass(frozen=True)
class LineFault:
    """One fault and the rows that have it.

    Attributes:
        rows: Indices of the rows, ascending; at least one.
        what: Says for a row what is wrong.
        way_out: What to do, empty if ``what`` says it.
    """

    rows: np.ndarray
    what: Callable[[int], str]
    way_out: str

    def message(self, row: int, num_like_it: int = 1) -> str:
        """Describe the fault of a row; the place is not named."""
        more = f" ({num_like_it} lines like it)" if num_like_it > 1 else ""
        return f"{self.what(row)}{more}" + (f"; {self.way_out}" if self.way_out else "")


@dataclass(frozen=True)
class CsvRows:
    """The rows of a table, R of them, read column by column.

    Attributes:
        has_box: (R,) bool, False for a row that only names an image.
        boxes_xyxy: (R, 4) float64, pixels, NaN where there is none.
        ignore: (R,) int8, 0 or 1, or ``NO_CODE``.
        occlusion: (R,) int8, 0 to 2, or ``NO_CODE``.
        sizes: (R, 2) float64, height and width that the row states of its image, pixels; 0 where
            it states none.
        faults: What cannot be read; the arrays mean nothing in these rows.
    """

    has_box: np.ndarray
    boxes_xyxy: np.ndarray
    ignore: np.ndarray
    occlusion: np.ndarray
    sizes: np.ndarray
    faults: list[LineFault]


def parse_rows(table: CsvTable, box_format: str) -> CsvRows:
    """Read every row, and find those that cannot be read.

    Args:
        table: Its class column is left to ``class_of``.
        box_format: ``xyxy`` or ``xywh``.
    """
    faults: list[LineFault] = []
    has_box = _rows_with_box(table, box_format, faults)
    boxes = np.stack(
        [_numbers(table, field, has_box, faults) for field in BOX_FIELDS[box_format]], axis=1
    )
    if box_format == "xywh":
        boxes[:, 2:] += boxes[:, :2]
    ignore = _codes(table, "ignore", IGNORE_CODES, faults)
    occlusion = _codes(table, "occlusion", OCCLUSION_CODES, faults)
    sizes = _sizes(table, faults)
    return CsvRows(has_box, boxes, ignore, occlusion, sizes, faults)


def names_in_file(words: Sequence[str]) -> tuple[str, ...]:
    """Give the classes of a file: its words in order, or the numbers from 0 to the largest.

    Args:
        words: The different cells of the class column.
    """
    names = [word for word in words if word and word not in IGNORE_CLASSES]
    if names and all(map(_is_id, names)):
        return tuple(str(number) for number in range(max(map(int, names)) + 1))
    return tuple(sorted(names))


def class_of(word: str, class_names: Sequence[str]) -> int | None:
    """Give the class that a cell names or numbers, ``IGNORE_REGION``, or None for no such class."""
    if word in class_names:
        return list(class_names).index(word)
    if word in IGNORE_CLASSES:
        return IGNORE_REGION
    return int(word) if _is_id(word) and int(word) < len(class_names) else None


def why_no_class(word: str, class_names: Sequence[str]) -> str:
    """Say why a cell names none of the classes, and the way out."""
    listed = one_line(", ".join(class_names))
    if word == "":
        return f"the box has no class; name one of {listed}"
    if word.lstrip("-").isdigit():
        return (
            f"class id {word} is out of range; {len(class_names)} classes ({listed}) have the ids "
            f"0 to {len(class_names) - 1}: mend the line or add the class to CLASSES"
        )
    return f"class {word!r} is not one of {listed}; mend the line or add it to CLASSES"


def _rows_with_box(table: CsvTable, box_format: str, faults: list[LineFault]) -> np.ndarray:
    """Tell rows that hold a box from those that only name an image, (rows,) bool."""
    fields = BOX_FIELDS[box_format]
    filled = np.stack([(table.text(field) != "").to_numpy() for field in fields], axis=1)
    count = filled.sum(axis=1)
    _add(
        faults,
        (count > 0) & (count < 4),
        lambda row: f"the box has no {', '.join(np.array(fields)[~filled[row]])}",
        "fill it in, or leave all four empty for an image without objects",
    )
    is_nameless = (table.text("filename") == "").to_numpy()
    _add(faults, is_nameless, lambda row: "there is no file name", "add it")
    return count == 4


def _add(
    faults: list[LineFault], is_bad: np.ndarray, what: Callable[[int], str], way_out: str
) -> None:
    if is_bad.any():
        faults.append(LineFault(np.flatnonzero(is_bad), what, way_out))


def _numbers(
    table: CsvTable, field: str, is_used: np.ndarray, faults: list[LineFault]
) -> np.ndarray:
    """Read a column as numbers; ``nan`` and ``inf`` are numbers, which cleaning drops."""
    text = table.text(field)
    numbers = np.asarray(pd.to_numeric(text, errors="coerce"), dtype=float)
    is_word = np.isnan(numbers) & is_used
    is_word[is_word] = [word.lower() != "nan" for word in text[is_word]]
    _add(
        faults,
        is_word,
        lambda row: f"{field} must be a number, got {text.array[row]!r}",
        "mend the line, or name the columns with COLUMNS",
    )
    return numbers


def _codes(
    table: CsvTable, field: str, values: dict[str, int], faults: list[LineFault]
) -> np.ndarray:
    if field not in table.columns:
        return np.full(len(table.cells), NO_CODE, dtype=np.int8)
    text = table.text(field)
    number_of, words = pd.factorize(text)
    meanings = [NO_CODE if word == "" else values.get(word.lower()) for word in words]
    is_unknown = np.array([meaning is None for meaning in meanings], dtype=bool)
    _add(
        faults,
        is_unknown[number_of],
        lambda row: f"{field} must be one of {', '.join(values)}, got {text.array[row]!r}",
        "",
    )
    codes = np.array([NO_CODE if m is None else m for m in meanings], dtype=np.int8)
    return codes[number_of]


def _sizes(table: CsvTable, faults: list[LineFault]) -> np.ndarray:
    """Read the sizes of images, (rows, 2) height and width; 0 counts as not stated."""
    fields = ("image_height", "image_width")
    if not set(fields) <= table.columns.keys():
        return np.zeros((len(table.cells), 2))
    is_stated = (table.text("image_height") != "").to_numpy()
    sizes = np.stack([_numbers(table, field, is_stated, faults) for field in fields], axis=1)
    is_size = (sizes > 0).all(axis=1) & (sizes < 1e9).all(axis=1) & is_stated
    for fault in faults:
        is_size[fault.rows] = False
    sizes = np.trunc(np.where(is_size[:, None], sizes, 0))
    _add_two_sizes(table, sizes, faults)
    return sizes


def _add_two_sizes(table: CsvTable, sizes: np.ndarray, faults: list[LineFault]) -> None:
    """Find the rows that state another size of an image than its first row with a size."""
    stated = np.flatnonzero(sizes[:, 0])
    names = table.text("filename")
    image_of_row = pd.factorize(names.iloc[stated])[0]
    first_of_image = np.unique(image_of_row, return_index=True)[1]
    above = np.arange(len(sizes))
    above[stated] = stated[first_of_image[image_of_row]]

    def what(row: int) -> str:
        here, there = (f"{sizes[at, 1]:.0f}x{sizes[at, 0]:.0f}" for at in (row, above[row]))
        return f"{one_line(names.iloc[row])} is {here} here and {there} above"

    _add(faults, (sizes != sizes[above]).any(axis=1), what, "an image has one size")


def _is_id(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 5
