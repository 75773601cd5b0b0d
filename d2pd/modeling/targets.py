"""What the anchors of an image learn."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from d2pd.modeling.box_coding import encode
from d2pd.modeling.matching import match_anchors


@dataclass(frozen=True)
class Labels:
    """The labels of an image.

    Attributes:
        boxes: (G, 4) XYXY, px of the network input.
        classes: (G,) int64, 0 to K - 1.
        ignore_boxes: (M, 4), regions that are neither reward nor penalty.
    """

    boxes: Tensor
    classes: Tensor
    ignore_boxes: Tensor


def anchor_targets(
    anchors: Tensor, labels: Labels, iou_threshold: float, weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Say what each anchor learns.

    Args:
        anchors: (A, 4) XYXY, px of the network input.
        labels: In the same frame.
        iou_threshold: See ``match_anchors``.
        weights: See ``encode``.

    Returns:
        (A,) int64 class, ``BACKGROUND`` or ``IGNORE``; and (P, 4) deltas of those that learn a
        class, in the order of the anchors.
    """
    boxes = torch.cat([labels.boxes, labels.ignore_boxes])
    is_ignore = torch.arange(len(boxes), device=boxes.device) >= len(labels.boxes)
    matches = match_anchors(anchors, boxes, is_ignore, iou_threshold)
    is_positive = matches >= 0
    learnt = matches[is_positive]
    matches[is_positive] = labels.classes[learnt]
    return matches, encode(labels.boxes[learnt], anchors[is_positive], weights)
