"""Text of files as a terminal or a spreadsheet may show it."""

from typing import Any

STARTS_OF_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """Write what would break a line, colour a terminal or fit no encoding as its code."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def inert_cell(value: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would run as a formula."""
    is_formula = isinstance(value, str) and value.startswith(STARTS_OF_FORMULAS)
    return f"'{value}" if is_formula else value
