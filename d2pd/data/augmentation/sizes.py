"""Which size an image is resized to: a rule is asked with the size it has, and draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

ImageSize = tuple[int, int]
"""(height, width) in pixels."""

LONGEST_SIDE = 20_000
"""Of what a network gets, px: far beyond any memory, so a slip."""

LARGEST_FACTOR = 1000
"""Between the sizes, areas or shapes of pictures; beyond it nothing is left to see."""


class Sizes(Protocol):
    """What says how large an image becomes."""

    def draw(self, image_size: ImageSize) -> ImageSize:
        """Return the new size of an image of ``image_size``."""


def resized_shape(image_size: ImageSize, shortest_edge: int, max_size: int) -> ImageSize:
    """Return the size of an image whose shorter side becomes ``shortest_edge``.

    Args:
        image_size: (height, width) in pixels.
        shortest_edge: Wanted length of the shorter side, in pixels.
        max_size: The longer side stays within this, at the cost of the shorter one.

    Returns:
        (height, width), each rounded half up, at least 1.

    Source: Detectron2, ResizeShortestEdge.
    """
    height, width = image_size
    scale = shortest_edge / min(height, width)
    # The shorter side is exact and not scaled: 0.1 + 0.2 must not turn 800 into 799.
    wanted = (
        (float(shortest_edge), scale * width)
        if height < width
        else (scale * height, float(shortest_edge))
    )
    shrink = min(1.0, max_size / max(wanted))
    return max(1, int(wanted[0] * shrink + 0.5)), max(1, int(wanted[1] * shrink + 0.5))


@dataclass(frozen=True)
class ShortestEdge:
    """The shorter side gets a drawn length, and the longer one fits in a maximum.

    Attributes:
        lengths: Lengths of the shorter side in pixels, or (lowest, highest) for ``range``; a
            drawn 0 leaves the image as it is.
        max_size: Longest side in pixels.
        sampling: ``choice`` or ``range``.

    Raises:
        ValueError: If the lengths do not suit the way of sampling.
    """

    lengths: Sequence[int]
    max_size: int
    sampling: str = "choice"

    def __post_init__(self) -> None:
        lengths, max_size = tuple(self.lengths), self.max_size
        if self.sampling not in ("choice", "range"):
            raise ValueError(f"sampling must be choice or range, got {self.sampling!r}")
        if not lengths or min(lengths) < 0 or max_size < 1:
            raise ValueError(
                f"lengths must be one or more sizes in pixels, got {lengths} with a maximum of "
                f"{max_size}"
            )
        if self.sampling == "range" and (len(lengths) != 2 or lengths[0] > lengths[1]):
            raise ValueError(f"range takes two lengths, low and high, got {lengths}")

    def draw(self, image_size: ImageSize) -> ImageSize:
        """Draw a length, also where there is only one."""
        if self.sampling == "range":
            length = draw_integer(self.lengths[0], self.lengths[1])
        else:
            length = self.lengths[draw_integer(0, len(self.lengths) - 1)]
        return resized_shape(image_size, length, self.max_size) if length else image_size


@dataclass(frozen=True)
class FixedSize:
    """One size for every image, whatever its shape.

    Raises:
        ValueError: If a side is not a whole number of pixels from 1 to ``LONGEST_SIDE``.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        sides = (self.height, self.width)
        if any(type(side) is not int or not 1 <= side <= LONGEST_SIDE for side in sides):
            raise ValueError(
                f"a size is (height, width) in whole pixels, 1 to {LONGEST_SIDE}, got {sides}"
            )

    def draw(self, _: ImageSize) -> ImageSize:
        """Return the size."""
        return self.height, self.width


@dataclass(frozen=True)
class Jittered:
    """Another rule's size times a drawn factor.

    Attributes:
        sizes: The other rule.
        low: Least factor.
        high: Largest factor.

    Raises:
        ValueError: If the factors are not 0 < low <= high.
    """

    sizes: Sizes
    low: float
    high: float

    def __post_init__(self) -> None:
        check_range(self.low, self.high)

    def draw(self, image_size: ImageSize) -> ImageSize:
        """Draw the other rule's size, then the factor; a side is at least 1."""
        height, width = self.sizes.draw(image_size)
        factor = draw_number(self.low, self.high)
        return max(1, round(height * factor)), max(1, round(width * factor))


def check_range(low: float, high: float) -> None:
    """Check two factors.

    Raises:
        ValueError: If they are not 0 < low <= high, or are out of all proportion.
    """
    if not 1 / LARGEST_FACTOR <= low <= high <= LARGEST_FACTOR:
        raise ValueError(
            f"a range is (low, high) with 0 < low <= high, 1/{LARGEST_FACTOR} to "
            f"{LARGEST_FACTOR}, got ({low}, {high})"
        )


def draw_integer(low: int, high: int) -> int:
    """Return an integer of [low, high], both included."""
    return int(torch.randint(low, high + 1, ()))


def draw_number(low: float, high: float) -> float:
    """Return a number between two others, each as likely."""
    return low + float(torch.rand(())) * (high - low)
