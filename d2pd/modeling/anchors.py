"""Anchors of a single-shot detector: their shapes for each map, and where they lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

KEYS = (
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
    "MODEL.SSD.EXTRA_SQUARE_SIZES",
)

_LONGEST = 1e6


@dataclass(frozen=True)
class AnchorShapes:
    """Widths and heights of the anchors of a position of each map, px of the network input.

    Attributes:
        sizes: A list for each map: square roots of the anchors' areas.
        aspect_ratios: A list for each map: height / width; each is taken at every size.
        extra_square_sizes: A list for each map: sides of further anchors of ratio 1.
            Empty: none on any map.

    Raises:
        ValueError: If the lists do not have one entry for each map, if a map has no anchor, or if
            a number is not positive and at most 1e6.

    Source: Liu et al., SSD, ECCV 2016, section 2.2.
    """

    sizes: Sequence[Sequence[float]]
    aspect_ratios: Sequence[Sequence[float]]
    extra_square_sizes: Sequence[Sequence[float]] = ()

    def __post_init__(self) -> None:
        """Check the lists once, at the door."""
        lists = (self.sizes, self.aspect_ratios, self._squares)
        if len({len(of_maps) for of_maps in lists}) != 1:
            raise ValueError(
                "anchors need one list for each map of features, got "
                + ", ".join(
                    f"{len(of_maps)} in {key}" for of_maps, key in zip(lists, KEYS, strict=True)
                )
            )
        for of_maps, key in zip(lists, KEYS, strict=True):
            if not all(_is_length(number) for of_map in of_maps for number in of_map):
                raise ValueError(
                    f"{key} must be positive numbers of at most {_LONGEST:.0f}, got {of_maps}"
                )
        if 0 in self.num_per_position:
            raise ValueError(
                f"map {self.num_per_position.index(0)} has no anchor: {KEYS[0]} and {KEYS[1]}, "
                f"or {KEYS[2]}, must name one for each map"
            )

    @property
    def _squares(self) -> Sequence[Sequence[float]]:
        return self.extra_square_sizes or [()] * len(self.sizes)

    @property
    def num_per_position(self) -> list[int]:
        """Number of anchors at a position, for each map."""
        return [
            len(sizes) * len(ratios) + len(squares)
            for sizes, ratios, squares in zip(
                self.sizes, self.aspect_ratios, self._squares, strict=True
            )
        ]

    @cached_property
    def of_maps(self) -> list[Tensor]:
        """(a, 2) float64 widths and heights for each map: size by size, ratio by ratio, squares."""
        return [
            torch.tensor(
                [(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios]
                + [(side, side) for side in squares],
                dtype=torch.float64,
            )
            for sizes, ratios, squares in zip(
                self.sizes, self.aspect_ratios, self._squares, strict=True
            )
        ]

    def check_num_maps(self, num_maps: int) -> None:
        """See that there is a list for each map of a network.

        Raises:
            ValueError: If there is not; the message names the key.
        """
        if num_maps != len(self.sizes):
            raise ValueError(
                f"the network has {num_maps} maps of features, but {KEYS[0]} has "
                f"{len(self.sizes)} lists: give one for each map"
            )


def _is_length(number: Any) -> bool:
    """Tell whether it is a number, and in range: further out float32 makes anchors infinite."""
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and 0 < number <= _LONGEST


def centres(map_side: int, image_side: int) -> Tensor:
    """Return where the anchors of a map lie along one direction.

    Args:
        map_side: Positions of the map along it.
        image_side: Length of the network input along it, px.

    Returns:
        (map_side,) float64, px of the network input.
    """
    return (torch.arange(map_side, dtype=torch.float64) + 0.5) * (image_side / map_side)


def make_anchors(
    shapes: AnchorShapes,
    map_sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Lay the anchors over every position of every map; they may reach beyond the image.

    Args:
        shapes: Widths and heights for each map.
        map_sizes: (rows, columns) of each map.
        image_size: (height, width) of the network input, px.
        device: Where the result shall lie.

    Returns:
        (A, 4) float32 XYXY, px of the network input: map by map, row by row, column by column,
            then anchor by anchor of the position.

    Raises:
        ValueError: If there are not as many maps as lists of sizes.
    """
    shapes.check_num_maps(len(map_sizes))
    anchors = []
    for sides, (rows, columns) in zip(shapes.of_maps, map_sizes, strict=True):
        y = centres(rows, image_size[0])[:, None, None]
        x = centres(columns, image_size[1])[None, :, None]
        half_width, half_height = (sides / 2).unbind(1)
        corners = (x - half_width, y - half_height, x + half_width, y + half_height)
        anchors.append(torch.stack(torch.broadcast_tensors(*corners), dim=-1).reshape(-1, 4))
    return torch.cat(anchors).to(torch.float32).to(device)
