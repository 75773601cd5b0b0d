"""How words of a command line are read."""

import argparse
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
else:
    Commands = object


def numbers(word: str) -> list[float]:
    """Read numbers with commas between them."""
    try:
        return [float(part) for part in word.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{word!r} is not a list of numbers, such as 1,1.5"
        ) from None


def count(word: str) -> int:
    """Read a number of things, 0 or more."""
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of 0 or more")
    return int(word)
