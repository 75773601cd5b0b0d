"""Markdown with text of files in it: whatever a name holds, it stays text."""

import re
from collections.abc import Iterator, Sequence
from decimal import ROUND_FLOOR, Context

from d2pd.markdown_table import cell, markdown_table

LONGEST = 120
"""Letters of a name or a value; the rest of a longer one is left out."""

MOST_NAMES = 20
_LONGEST_SENTENCE = 600
_MARKUP = re.compile(
    r"[\\`*\[\]<>&~#$!]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside of a word it is no markup
    r"|(?<=:)/(?=/)|(?<=www)\.|@",  # of what GitHub would make links
    re.IGNORECASE,
)


def code(text: object) -> str:
    """Return text as a span of code on one line, in which nothing is markup."""
    line = _cut(cell(str(text)).replace("`", "'"), LONGEST)
    return f"`{line}`" if line else "–"


def sentence(text: str) -> str:
    """Return a sentence that may hold names as text on one line, its markup escaped."""
    return _MARKUP.sub(lambda sign: f"\\{sign[0]}", _cut(cell(text), _LONGEST_SENTENCE))


def names(texts: Sequence[object]) -> str:
    """Return names in a row, as code; of a great many the first."""
    return listed([code(text) for text in texts])


def listed(words: Sequence[str]) -> str:
    """Return words of this module's functions in a row; of a great many the first."""
    more = len(words) - MOST_NAMES
    return ", ".join([*words[:MOST_NAMES], *([f"{more:,} more"] if more > 0 else [])])


def counted(number: int, what: str) -> str:
    """Return a number of things: ``1 image``, ``2 images``."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def rounded_down(score: float) -> str:
    """Return a threshold in three digits that still lets in what has this very score."""
    digits = Context(prec=3, rounding=ROUND_FLOOR).create_decimal(repr(float(score)))
    return f"{float(digits):g}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table and an empty one; the first row holds the heads.

    Args:
        rows: Of equal length. Cells hold text of this module's functions, or none of a file.
    """
    yield from markdown_table(rows)
    yield ""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
