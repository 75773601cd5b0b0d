"""How well anchors fit labels: the largest overlap that any of them has with each label."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from d2pd.modeling.anchors import AnchorShapes

BAND_EDGES = (0.0, 45.0, 55.0, 115.0, math.inf)
"""px of height in the picture. Source: KAIST's subsets Far, Medium, Near and Reasonable."""

BAND_NAMES = ("under 45 px", "45 to 55 px", "55 to 115 px", "115 px and more")

ImageSize = tuple[int, int]


@dataclass(frozen=True)
class Band:
    """The labels of some heights.

    Attributes:
        name: Their heights.
        num_labels: Their number.
        median_iou: Median of their best IoU, NaN without labels.
        missed: Share in [0, 1] of those that no anchor reaches, NaN without labels.
    """

    name: str
    num_labels: int
    median_iou: float
    missed: float


@dataclass(frozen=True)
class AnchorFit:
    """The best overlap of each label with an anchor, at its place in its image.

    Attributes:
        heights: (G,) px in the picture as it is on disk.
        best_iou: (G,) largest IoU with any anchor, at the size of the network input.
        iou_threshold: IoU from which an anchor learns a label.
        num_anchors: For each size (height, width) px of the network input, how many there are.
    """

    heights: Tensor
    best_iou: Tensor
    iou_threshold: float
    num_anchors: Mapping[ImageSize, int]

    def bands(self) -> list[Band]:
        """Return the labels by height, an edge belonging to the higher band, then all of them."""
        named = zip(BAND_NAMES, pairwise(BAND_EDGES), strict=True)
        bands = [
            self._band(name, (self.heights >= low) & (self.heights < high))
            for name, (low, high) in named
        ]
        return [*bands, self._band("all", torch.ones_like(self.heights, dtype=torch.bool))]

    def _band(self, name: str, is_in: Tensor) -> Band:
        ious = self.best_iou[is_in]
        if not len(ious):
            return Band(name, 0, math.nan, math.nan)
        missed = (ious < self.iou_threshold).double().mean()
        return Band(name, len(ious), float(ious.quantile(0.5)), float(missed))

    def table(self) -> str:
        """Return the bands as lines for a terminal."""
        lines = [
            f"{'height in the picture':<22} {'labels':>8}  {'median of best IoU':>18}  "
            f"{f'under {self.iou_threshold:g}':>10}"
        ]
        for band in self.bands():
            numbers = f"{'-':>18}  {'-':>10}"
            if band.num_labels:
                numbers = f"{band.median_iou:>18.2f}  {100 * band.missed:>8.1f} %"
            lines.append(f"{band.name:<22} {band.num_labels:>8,}  {numbers}")
        return "\n".join(lines)


def measure_anchor_fit(
    labels: Mapping[ImageSize, Tensor],
    shapes: AnchorShapes,
    *,
    input_size: Callable[[ImageSize], ImageSize],
    map_sizes: Callable[[ImageSize], Sequence[tuple[int, int]]],
    iou_threshold: float,
) -> AnchorFit:
    """Find the best overlap of every label with an anchor, as a training without crops meets them.

    Args:
        labels: For each size (height, width) of a picture, (G, 4) XYXY px, clipped, with area.
        shapes: The anchors.
        input_size: Size of a picture -> (height, width) px of the network input.
        map_sizes: Size of the network input -> (rows, columns) of each map.
        iou_threshold: IoU from which an anchor learns a label.

    Raises:
        ValueError: If there are not as many maps as lists of sizes.
    """
    heights, ious = [torch.zeros(0)], [torch.zeros(0)]
    num_anchors: dict[ImageSize, int] = {}
    for (height, width), boxes in labels.items():
        size = input_size((height, width))
        maps = map_sizes(size)
        scale = torch.tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float64)
        ious.append(best_iou(boxes * scale, shapes, maps, size))
        heights.append((boxes[:, 3] - boxes[:, 1]).float())
        num_anchors[size] = sum(
            rows * columns * number
            for (rows, columns), number in zip(maps, shapes.num_per_position, strict=True)
        )
    return AnchorFit(torch.cat(heights), torch.cat(ious), iou_threshold, num_anchors)


def best_iou(
    boxes: Tensor,
    shapes: AnchorShapes,
    map_sizes: Sequence[tuple[int, int]],
    image_size: ImageSize,
) -> Tensor:
    """Return the largest IoU of each box with any anchor.

    The anchors of one shape lie on a grid, and the part of a box that one of them covers, in either
    direction, only shrinks as their centres move apart: of each shape, the anchor at the nearest
    position overlaps most, so that one alone is looked at.

    Args:
        boxes: (G, 4) XYXY px of the network input, with area; G may be 0.
        shapes: The anchors.
        map_sizes: (rows, columns) of each map.
        image_size: (height, width) px of the network input.

    Returns:
        (G,) float32, computed in float64: an overlap of exactly a half is one.

    Raises:
        ValueError: If there are not as many maps as lists of sizes.
    """
    shapes.check_num_maps(len(map_sizes))
    boxes = boxes.double()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1, keepdim=True)
    best = torch.zeros(len(boxes), dtype=torch.float64)
    for sides, (rows, columns) in zip(shapes.of_maps, map_sizes, strict=True):
        width = _overlap(boxes[:, 0], boxes[:, 2], sides[:, 0], columns, image_size[1])
        height = _overlap(boxes[:, 1], boxes[:, 3], sides[:, 1], rows, image_size[0])
        inter = width * height
        iou = inter / (areas + sides.prod(1) - inter)
        best = torch.maximum(best, iou.amax(1))
    return best.float()


def _overlap(low: Tensor, high: Tensor, sides: Tensor, positions: int, image_side: int) -> Tensor:
    """Return, along one direction, how much of boxes the anchors at the nearest position cover.

    Args:
        low: (G,) where the boxes begin, px.
        high: (G,) where they end.
        sides: (a,) lengths of the anchors.
        positions: Positions of the map along this direction.
        image_side: Length of the network input along it, px.

    Returns:
        (G, a) px.
    """
    step = image_side / positions
    index = ((low + high) / 2 / step).floor().clamp(0, positions - 1)
    centre = ((index + 0.5) * step)[:, None]
    ends = torch.minimum(high[:, None], centre + sides / 2)
    return (ends - torch.maximum(low[:, None], centre - sides / 2)).clamp(min=0)
