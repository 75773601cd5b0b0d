"""Features of regions, cut from the level of the pyramid that suits their size."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from d2pd.embedded.boxes import Boxes
from d2pd.errors import ConfigError

POOLER_TYPES = ("ROIAlign", "ROIAlignV2", "ROIPool")


def assign_boxes_to_levels(
    boxes: Tensor, min_level: int, max_level: int, canonical_box_size: int, canonical_level: int
) -> Tensor:
    """Choose a pyramid level for each box.

    Args:
        boxes: (M, 4) XYXY, pixels of the network input.
        min_level: Finest level there is; its stride is ``2 ** min_level``.
        max_level: Coarsest level there is.
        canonical_box_size: Square root of the area of a box that belongs to ``canonical_level``.
        canonical_level: Its level; each doubling of the side goes one level up.

    Returns:
        (M,) int64: levels counted from ``min_level``.

    Source: Lin et al., FPN, CVPR 2017, equation 1.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    sizes = torch.sqrt(sides[:, 0] * sides[:, 1])
    levels = torch.floor(canonical_level + torch.log2(sizes / canonical_box_size + 1e-8))
    return levels.clamp(min=min_level, max=max_level).to(torch.int64) - min_level


def boxes_with_image_index(box_lists: Sequence[Boxes]) -> Tensor:
    """(M, 5) rows of image index, x1, y1, x2, y2, as the pooling operators want them."""
    boxes = torch.cat([boxes.tensor for boxes in box_lists])
    counts = torch.tensor([len(boxes) for boxes in box_lists], device=boxes.device)
    index = torch.arange(len(box_lists), dtype=boxes.dtype, device=boxes.device)
    return torch.cat([index.repeat_interleave(counts)[:, None], boxes], dim=1)


class ROIPooler(nn.Module):
    """Pools every box from one of several feature maps to a fixed size."""

    def __init__(
        self,
        output_size: int,
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ):
        """Prepare the pooling.

        Args:
            output_size: Rows and columns of the result.
            scales: One over the stride of each feature map, fine to coarse.
            sampling_ratio: Samples per side of a bin; 0 for as many as there are pixels.
            pooler_type: ``ROIAlignV2`` (samples shifted by half a pixel), ``ROIAlign`` or
                ``ROIPool``.
            canonical_box_size: See ``assign_boxes_to_levels``.
            canonical_level: See ``assign_boxes_to_levels``.

        Raises:
            ConfigError: If the type is unknown, or the scales are no powers of 2 that halve.
        """
        super().__init__()
        if pooler_type not in POOLER_TYPES:
            raise ConfigError(f"POOLER_TYPE is '{pooler_type}', allowed are {POOLER_TYPES}")
        levels = [-math.log2(scale) for scale in scales]
        if any(level % 1 for level in levels) or any(b - a != 1 for a, b in pairwise(levels)):
            strides = [1 / scale for scale in scales]
            raise ConfigError(f"pooling needs strides that are powers of 2 and double: {strides}")
        self.output_size = (output_size, output_size)
        self.scales = list(scales)
        self.sampling_ratio = sampling_ratio
        self.pooler_type = pooler_type
        self.min_level, self.max_level = int(levels[0]), int(levels[-1])
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level

    def forward(self, x: Sequence[Tensor], box_lists: Sequence[Boxes]) -> Tensor:
        """Cut out the boxes.

        Args:
            x: A feature map (N, C, H_l, W_l) for each scale.
            box_lists: Boxes of each of the N images, pixels of the network input.

        Returns:
            (M, C, output_size, output_size), M counting the boxes of all images in order.
        """
        return self.pool(x, boxes_with_image_index(box_lists))

    def pool(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Cut out boxes that are rows of one tensor; how many lie on a level makes no difference.

        Args:
            x: As for ``forward``.
            rois: (M, 5) rows of image index, x1, y1, x2, y2.

        Returns:
            As ``forward``.
        """
        if len(self.scales) == 1:
            return self._pool(x[0], rois, self.scales[0])
        levels = assign_boxes_to_levels(
            rois[:, 1:],
            *(self.min_level, self.max_level),
            *(self.canonical_box_size, self.canonical_level),
        )
        output = x[0].new_zeros(rois.shape[0], x[0].shape[1], *self.output_size)
        for level, (feature, scale) in enumerate(zip(x, self.scales, strict=True)):
            chosen = (levels == level).nonzero(as_tuple=True)[0]
            output.index_put_((chosen,), self._pool(feature, rois[chosen], scale))
        return output

    def _pool(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        # Half precision cannot tell neighbouring pixels apart, so the coordinates stay float32.
        full = feature.float()
        if self.pooler_type == "ROIPool":
            return roi_pool(full, rois, self.output_size, scale).to(feature.dtype)
        aligned = self.pooler_type == "ROIAlignV2"
        pooled = roi_align(full, rois, self.output_size, scale, self.sampling_ratio, aligned)
        return pooled.to(feature.dtype)
