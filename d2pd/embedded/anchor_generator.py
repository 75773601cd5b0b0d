"""Anchors: the boxes that the region proposal network starts from."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from d2pd.embedded.boxes import Boxes
from d2pd.embedded.configurable import configurable
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError


def cell_anchors(sizes: Iterable[float], aspect_ratios: Sequence[float]) -> Tensor:
    """Anchors of one location, centred on the origin.

    Args:
        sizes: Square roots of the areas, pixels of the network input.
        aspect_ratios: Height over width.

    Returns:
        (len(sizes) * len(aspect_ratios), 4) XYXY, not rounded, sizes in the outer loop.
    """
    anchors = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = math.sqrt(size**2.0 / ratio)
            height = ratio * width
            anchors.append([-width / 2.0, -height / 2.0, width / 2.0, height / 2.0])
    return torch.tensor(anchors)


class DefaultAnchorGenerator(nn.Module):
    """Lays the same anchors over every location of every feature map."""

    @configurable
    def __init__(
        self,
        *,
        sizes: Sequence[Any],
        aspect_ratios: Sequence[Any],
        strides: Sequence[int],
        offset: float = 0.5,
    ):
        """Prepare the anchors of one location of each map.

        Args:
            sizes: A list per feature map, or a list for all; see ``cell_anchors``.
            aspect_ratios: A list per feature map, or a list for all.
            strides: Stride of each feature map, pixels.
            offset: Where the first location lies, in strides from the image's corner, [0, 1).

        Raises:
            ConfigError: If the numbers of lists and of maps differ, or ``offset`` is out of range.
        """
        super().__init__()
        if not 0.0 <= offset < 1.0:
            raise ConfigError(f"MODEL.ANCHOR_GENERATOR.OFFSET is {offset}, allowed is [0, 1)")
        self.strides = list(strides)
        self.offset = offset
        per_map = zip(
            _one_per_map(sizes, len(strides), "SIZES"),
            _one_per_map(aspect_ratios, len(strides), "ASPECT_RATIOS"),
            strict=True,
        )
        self.num_anchors: list[int] = []
        for index, (map_sizes, map_ratios) in enumerate(per_map):
            cell = cell_anchors(map_sizes, map_ratios)
            self.num_anchors.append(len(cell))
            self.register_buffer(f"cell_{index}", cell, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.ANCHOR_GENERATOR``."""
        return {
            "sizes": cfg.MODEL.ANCHOR_GENERATOR.SIZES,
            "aspect_ratios": cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS,
            "strides": [shape.stride for shape in input_shape],
            "offset": cfg.MODEL.ANCHOR_GENERATOR.OFFSET,
        }

    def forward(self, features: Sequence[Tensor]) -> list[Boxes]:
        """Anchors of each feature map (N, C, H, W): H * W * A boxes, row by row."""
        return [
            Boxes(self._anchors_of_map(index, *feature.shape[-2:]))
            for index, feature in enumerate(features)
        ]

    def _anchors_of_map(self, index: int, height: int, width: int) -> Tensor:
        cell: Tensor = getattr(self, f"cell_{index}")
        stride = self.strides[index]
        start = self.offset * stride
        x = torch.arange(start, width * stride, stride, dtype=torch.float32, device=cell.device)
        y = torch.arange(start, height * stride, stride, dtype=torch.float32, device=cell.device)
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack((columns, rows, columns, rows), dim=-1).view(-1, 1, 4)
        return (shifts + cell).view(-1, 4)


def _one_per_map(values: Sequence[Any], num_maps: int, key: str) -> list[Sequence[float]]:
    if values and not isinstance(values[0], Sequence):
        return [values] * num_maps
    if len(values) == 1:
        return [values[0]] * num_maps
    if len(values) != num_maps:
        raise ConfigError(
            f"MODEL.ANCHOR_GENERATOR.{key} has {len(values)} lists for {num_maps} feature maps: "
            f"give one list, or {num_maps}"
        )
    return list(values)


def build_anchor_generator(cfg: CfgNode, input_shape: list[ShapeSpec]) -> DefaultAnchorGenerator:
    """Build the anchor generator for feature maps of these shapes.

    Raises:
        ConfigError: If ``MODEL.ANCHOR_GENERATOR.NAME`` is another than the one there is.
    """
    name = cfg.MODEL.ANCHOR_GENERATOR.NAME
    if name != DefaultAnchorGenerator.__name__:
        raise ConfigError(
            f"MODEL.ANCHOR_GENERATOR.NAME is '{name}', "
            "the embedded engine has 'DefaultAnchorGenerator'"
        )
    return DefaultAnchorGenerator(cfg, input_shape)
