"""The ``.txt`` form of detections: ``image_id,x,y,w,h,score`` a line, without a header."""

import csv
import io
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from d2pd.errors import ResultFileError
from d2pd.evaluation.result_files.raw_detections import RawDetections

COLUMNS = ("image_id", "x", "y", "w", "h", "score")
EXPECTED = f"{','.join(COLUMNS)} is expected"

_LINE_END = re.compile(r"[\r\n]")
_LONG = 10_000  # characters of a line

ID_OFFSET = 1
"""The published files count images from 1, where the label file counts from 0."""

BOOLEANS = ("true", "false")
"""A column of these, in any case, would be 1 and 0 to pandas, whatever type it is told."""


def parse_lines(content: bytes, path: Path) -> RawDetections:
    """Read the lines of a ``.txt`` file; blank lines and Windows line ends do no harm.

    Args:
        content: Of the file, not blank.
        path: Its name, for messages.

    Raises:
        ResultFileError: If a line is not six numbers with commas between them, or the content is
            no UTF-8 text.
    """
    text = _decode(content, path)
    numbers = _parse_fast(text)
    if numbers is None:
        numbers = _parse_line_by_line(text, path)
    return RawDetections(
        path=path,
        image_ids=numbers[:, 0],
        id_offset=ID_OFFSET,
        numbers=numbers[:, 1:],
        categories=None,
        class_names=None,
        where=partial(_where, text, path),
    )


def _decode(content: bytes, path: Path) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ResultFileError(f"{path}: the file is UTF-16 text; save it as UTF-8")
    if b"\0" in content:
        raise ResultFileError(
            f"{path}: the file holds zero bytes, so it is no text; {EXPECTED} on each line"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ResultFileError(
            f"{path}, line {line}: byte {error.start} is not UTF-8 text; {EXPECTED} on each line"
        ) from error


def _parse_fast(text: str) -> np.ndarray | None:
    """Read lines that are all as they should be; None leaves the verdict to the slow reading."""
    lowered = text.lower()
    if any(word in lowered for word in BOOLEANS):
        return None
    if _has_long_line(text):  # pandas would take gigabytes for its columns
        return None
    try:
        cells = pd.read_csv(
            io.StringIO(text),
            header=None,
            dtype=np.float64,
            na_filter=False,
            quoting=csv.QUOTE_NONE,
            float_precision="round_trip",
        )
    except (ValueError, OverflowError):  # pandas' own errors are ValueErrors
        return None
    return cells.to_numpy() if cells.shape[1] == len(COLUMNS) else None


def _has_long_line(text: str) -> bool:
    """Find lines of twice ``_LONG`` for certain, shorter ones by chance, none under ``_LONG``."""
    starts = range(0, len(text) - _LONG, _LONG)
    return any(not _LINE_END.search(text, start, start + _LONG) for start in starts)


def _parse_line_by_line(text: str, path: Path) -> np.ndarray:
    rows = [
        _parse_line(line, f"{path}, line {number}")
        for number, line in enumerate(_split(text), start=1)
        if line.strip()
    ]
    return np.array(rows, dtype=np.float64)


def _parse_line(line: str, where: str) -> list[float]:
    num_columns = line.count(",") + 1
    if num_columns != len(COLUMNS):
        start = line[:1000]
        separator = next((word for sign, word in _SEPARATORS if len(start.split(sign)) >= 5), None)
        hint = f"; put commas in place of the {separator}" if separator and num_columns < 3 else ""
        raise ResultFileError(
            f"{where}: {num_columns} columns, where {EXPECTED}{hint}: {_short(line)}"
        )
    fields = line.split(",")
    values = [_number(field) for field in fields]
    if None not in values:
        return [value for value in values if value is not None]
    if values == [None] * len(COLUMNS):
        raise ResultFileError(
            f"{where}: no number in {_short(line)}; if this is a header, remove it: {EXPECTED}"
        )
    bad = values.index(None)
    hint = "; write it without quotes" if '"' in fields[bad] or "'" in fields[bad] else ""
    raise ResultFileError(
        f"{where}: {COLUMNS[bad]} must be a number, got {_short(fields[bad])}{hint}; {EXPECTED}"
    )


_SEPARATORS = ((";", "semicolons"), ("\t", "tabs"), (None, "spaces"))


def _number(field: str) -> float | None:
    if "_" in field or not field.isascii():  # Python reads 1_000 as a number
        return None
    try:
        return float(field)
    except ValueError:
        return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _where(text: str, path: Path, row: int) -> str:
    lines = (number for number, line in enumerate(_split(text), start=1) if line.strip())
    return f"{path}, line {next(number for n, number in enumerate(lines) if n == row)}"


def _split(text: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", text)
