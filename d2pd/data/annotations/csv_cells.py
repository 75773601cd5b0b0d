"""The text of a CSV label file, cut into cells."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from d2pd.data.annotations.file_kind import UTF16_MARKS
from d2pd.errors import AnnotationError

LINE_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class RaggedLine:
    """A line with more cells than the first line has.

    Attributes:
        line: Its number, from 1.
        cells: Its cells, stripped.
        width: Number of cells of the first line.
    """

    line: int
    cells: list[str]
    width: int

    @property
    def message(self) -> str:
        """What is wrong, and the way out; the place is not named."""
        return (
            f"there are {len(self.cells)} cells where the first line has {self.width}; quote a "
            "cell that holds the separator, or mend the line"
        )


def decode_csv(content: bytes, path: Path) -> str:
    """Decode a CSV: UTF-8, or UTF-16 with its mark; the mark goes.

    Raises:
        AnnotationError: If it is of another encoding, or of two.
    """
    is_utf16 = content.startswith(UTF16_MARKS)
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        kind = "UTF-16" if is_utf16 else "UTF-8"
        raise AnnotationError(
            f"{path}, line {line}: byte {error.start} is not {kind} text; save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise AnnotationError(
            f"{path}, line {line}: holds a NUL byte; the file is damaged or no text, or UTF-16 "
            "without its mark: save it as UTF-8"
        )
    if not text.strip():
        raise AnnotationError(f"{path}: the file is empty; download or export it again")
    return text


def separator_of(text: str) -> str:
    """Tell what stands between the cells: what the first line that is not empty has most of."""
    first_line = LINE_BREAK.split(text.lstrip("\r\n"), maxsplit=1)[0]
    return max(",;\t", key=first_line.count)


def split_csv(
    text: str, separator: str, path: Path
) -> tuple[pd.DataFrame, np.ndarray, list[RaggedLine]]:
    """Give the stripped cells of each record, the line on which it begins, and the ragged lines.

    Args:
        text: Of the file; empty lines before the first other one are passed over.
        separator: Between the cells.
        path: For messages.

    Raises:
        AnnotationError: If a quote is not closed.
    """
    body = text.lstrip("\r\n")
    first = 1 + len(LINE_BREAK.findall(text[: len(text) - len(body)]))
    try:
        cells = pd.read_csv(
            io.StringIO(body),
            header=None,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
            sep=separator,
        )
    except pd.errors.ParserError as error:
        if "EOF inside string" not in str(error):
            return _split_ragged(body, separator, path, first)
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise AnnotationError(
            f"{path}: cannot be split into columns ({reason}); close the quote of that row"
        ) from error
    if '"' in body:  # a quoted cell may hold line breaks
        lines = np.array([line for line, _ in _records(body, separator, path, first)])
    else:
        lines = np.arange(first, first + len(cells))
    return cells.apply(lambda column: column.str.strip()), lines, []


def _split_ragged(
    text: str, separator: str, path: Path, first: int
) -> tuple[pd.DataFrame, np.ndarray, list[RaggedLine]]:
    width = len(next(_records(text, separator, path, first))[1])
    rows: list[list[str]] = []
    lines: list[int] = []
    ragged: list[RaggedLine] = []
    for line, record in _records(text, separator, path, first):
        cells = [cell.strip() for cell in record]
        if len(cells) > width:
            ragged.append(RaggedLine(line, cells, width))
        else:
            rows.append(cells + [""] * (width - len(cells)))
            lines.append(line)
    return pd.DataFrame(rows, dtype=str), np.array(lines), ragged


def _records(text: str, separator: str, path: Path, first: int) -> Iterator[tuple[int, list[str]]]:
    """Give the cells of each record with the line, from 1, on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    line = first
    try:
        for record in reader:
            yield line, record
            line = first + reader.line_num
    except csv.Error as error:
        raise AnnotationError(
            f"{path}, line {line}: cannot be split into columns ({error}); close the quote of "
            "that row"
        ) from error
