"""How a box is described relative to another one, and what a wrong description costs."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from d2pd.errors import ConfigError

# Lets a box of 16 pixels grow to 1000, which no sensible prediction exceeds.
SCALE_CLAMP = math.log(1000.0 / 16)

_IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


class Box2BoxTransform:
    """R-CNN's box deltas: shifts of the centre in box sizes, logarithms of the growth.

    Source: Girshick et al., R-CNN, CVPR 2014, appendix C.
    """

    def __init__(self, weights: Sequence[float], scale_clamp: float = SCALE_CLAMP):
        """Fix the units of the deltas.

        Args:
            weights: Factors on (dx, dy, dw, dh), chosen so that deltas have unit variance.
            scale_clamp: Upper limit of dw and dh when deltas are applied.
        """
        self.weights = tuple(weights)
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Describe targets relative to sources.

        Args:
            src_boxes: (N, 4) XYXY, anchors or proposals.
            target_boxes: (N, 4) XYXY.

        Returns:
            (N, 4) deltas; infinite where a target has no area.

        Raises:
            FloatingPointError: If a source box has no width, or is NaN.
        """
        src_center, src_size = _center_and_size(src_boxes)
        target_center, target_size = _center_and_size(target_boxes)
        if not (src_size[:, 0] > 0).all():
            bad = int((~(src_size[:, 0] > 0)).sum())
            raise FloatingPointError(
                f"{bad} of {len(src_boxes)} anchors or proposals have no width or are NaN: "
                "training has diverged, or the boxes were not clipped and filtered."
            )
        weights = src_boxes.new_tensor(self.weights)
        shift = weights[:2] * (target_center - src_center) / src_size
        growth = weights[2:] * torch.log(target_size / src_size)
        return torch.cat([shift, growth], dim=1)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Move and scale boxes; the inverse of ``get_deltas``.

        Args:
            deltas: (N, 4 * k): k descriptions for each box, one per class for instance.
            boxes: (N, 4) XYXY.

        Returns:
            (N, 4 * k) float32 boxes, XYXY.
        """
        deltas = deltas.float()  # half precision is too coarse for pixels
        center, size = _center_and_size(boxes.to(deltas.dtype)[:, None])
        weights = deltas.new_tensor(self.weights)
        per_class = deltas.view(-1, deltas.shape[1] // 4, 4) / weights
        new_center = per_class[..., :2] * size + center
        half = 0.5 * (torch.exp(per_class[..., 2:].clamp(max=self.scale_clamp)) * size)
        return torch.cat([new_center - half, new_center + half], dim=-1).flatten(1)


def _center_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def box_regression_loss(
    box2box_transform: Box2BoxTransform,
    src_boxes: Tensor,
    pred_deltas: Tensor,
    gt_boxes: Tensor,
    loss_type: str = "smooth_l1",
    smooth_l1_beta: float = 0.0,
) -> Tensor:
    """Cost of predicted deltas, summed over boxes.

    Args:
        box2box_transform: Meaning of the deltas.
        src_boxes: (P, 4) XYXY, the anchors or proposals that have an object.
        pred_deltas: (P, 4) predictions for them.
        gt_boxes: (P, 4) XYXY, their objects.
        loss_type: ``smooth_l1`` on the deltas, or ``giou``, ``diou``, ``ciou`` on the boxes.
        smooth_l1_beta: Where L1 turns into L2; 0 is plain L1.

    Raises:
        ConfigError: If ``loss_type`` is unknown.
    """
    if loss_type == "smooth_l1":
        gt_deltas = box2box_transform.get_deltas(src_boxes, gt_boxes)
        return F.smooth_l1_loss(pred_deltas, gt_deltas, beta=smooth_l1_beta, reduction="sum")
    if loss_type not in _IOU_LOSSES:
        allowed = ", ".join(["smooth_l1", *_IOU_LOSSES])
        raise ConfigError(f"BBOX_REG_LOSS_TYPE is '{loss_type}', allowed are {allowed}")
    pred_boxes = box2box_transform.apply_deltas(pred_deltas, src_boxes)
    return _IOU_LOSSES[loss_type](pred_boxes, gt_boxes, reduction="sum")
