"""Non-maximum suppression within groups."""

from torch import Tensor
from torchvision.ops import boxes as box_ops


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Drop boxes that overlap a better one of the same group.

    Args:
        boxes: (N, 4) XYXY, pixels; half precision is widened, which its range needs.
        scores: (N,).
        idxs: (N,) int, the group (class or pyramid level) of each box.
        iou_threshold: IoU over which the box with the lower score goes.

    Returns:
        int64 indices of the boxes that stay, best score first.

    Raises:
        ValueError: If ``boxes`` does not have 4 columns.
    """
    if boxes.shape[-1] != 4:
        raise ValueError(f"Boxes have 4 columns, got shape {tuple(boxes.shape)}.")
    return box_ops.batched_nms(boxes.float(), scores.float(), idxs, iou_threshold)
