"""Boxes as deltas from anchors, which a network learns, and back."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST_LOG_SIZE = math.log(1000.0 / 16)
"""Bound on a decoded log size: a network that has not learned yet must not overflow ``exp``."""


def encode(gt_boxes: Tensor, anchors: Tensor, weights: Sequence[float]) -> Tensor:
    """Express boxes relative to anchors.

    Args:
        gt_boxes: (..., 4) XYXY, px. A box without area gives deltas that are not finite: the loss
            then says so.
        anchors: (..., 4) in the same frame, of a shape that broadcasts.
        weights: Factors on the deltas of x, y, width and height.

    Returns:
        (..., 4): offset of the centre in widths and heights of the anchor, logarithms of the
            quotients of the widths and heights, each times its weight.

    Source: Girshick et al., R-CNN, CVPR 2014, appendix C; the weights are 1 / SSD's variances.
    """
    centres, sizes = _centres_and_sizes(gt_boxes)
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    deltas = torch.cat(
        ((centres - anchor_centres) / anchor_sizes, torch.log(sizes / anchor_sizes)), dim=-1
    )
    return deltas * deltas.new_tensor(weights)


def decode(deltas: Tensor, anchors: Tensor, weights: Sequence[float]) -> Tensor:
    """Apply deltas to anchors: the inverse of ``encode``.

    Args:
        deltas: (..., 4), as ``encode`` returns them.
        anchors: (..., 4) XYXY, px, of a shape that broadcasts.
        weights: Factors that ``encode`` was given.

    Returns:
        (..., 4) XYXY, px, not clipped; at most 62.5 times as wide and as high as the anchor.
    """
    deltas = deltas / deltas.new_tensor(weights)
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    centres = anchor_centres + deltas[..., :2] * anchor_sizes
    half = 0.5 * anchor_sizes * torch.exp(deltas[..., 2:].clamp(max=LARGEST_LOG_SIZE))
    return torch.cat((centres - half, centres + half), dim=-1)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return (..., 2) x, y of the centres and (..., 2) widths, heights."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sizes, sizes
