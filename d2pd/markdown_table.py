"""Tables that read well as Markdown and in a terminal."""

from collections.abc import Iterator, Sequence

from d2pd.printable import printable


def cell(text: str) -> str:
    """Return text of a file as a cell may hold it: one line without bars, odd signs as codes."""
    return printable(" ".join(text.replace("|", "/").split()))


def markdown_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table whose columns stand below each other.

    Args:
        rows: Of equal length, the heads first; cells hold neither bars nor line breaks.
    """
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"
