"""SSD's loss of classes and boxes, with hard negatives."""

import torch
import torch.nn.functional as F
from fvcore.nn import smooth_l1_loss
from torch import Tensor

from d2pd.modeling.matching import BACKGROUND


def hard_negatives(cls_loss: Tensor, matches: Tensor, negative_ratio: float) -> Tensor:
    """Choose the background anchors that the model gets most wrong.

    Args:
        cls_loss: (N, A) loss of each anchor if it is background.
        matches: (N, A) int64 of a label (0 or above), ``BACKGROUND`` or ``IGNORE``.
        negative_ratio: Anchors to choose for each positive one, in each image; a part of an
            anchor does not count. An image without positives gets none.

    Returns:
        (N, A) bool, True for the chosen ones. Of equal losses the first anchors are chosen.

    Source: Liu et al., SSD, ECCV 2016, section 2.2.
    """
    is_background = matches == BACKGROUND
    num_negatives = ((matches >= 0).sum(dim=1, keepdim=True) * negative_ratio).floor()
    ordered = cls_loss.masked_fill(~is_background, -torch.inf).sort(
        dim=1, descending=True, stable=True
    )
    ranks = torch.arange(matches.shape[1], device=matches.device)
    is_chosen = torch.zeros_like(is_background)
    is_chosen.scatter_(1, ordered.indices, ranks < num_negatives)
    return is_chosen & is_background


def multibox_loss(
    cls_logits: Tensor,
    box_deltas: Tensor,
    matched_classes: Tensor,
    target_deltas: Tensor,
    *,
    num_positives: float | Tensor,
    negative_ratio: float,
    smooth_l1_beta: float,
) -> tuple[Tensor, Tensor]:
    """Compute what the positive anchors and the hard negatives of a batch cost.

    Anchors to ignore, and background that is not chosen, get no gradient, whatever their logits.
    Without positives both losses are exactly 0 and still part of the graph.

    Args:
        cls_logits: (N, A, K + 1) float32, background last.
        box_deltas: (N, A, 4) float32.
        matched_classes: (N, A) int64: the class (0 to K - 1) that the anchor learns,
            ``BACKGROUND`` or ``IGNORE``.
        target_deltas: (P, 4), one for each positive anchor of the batch, image by image in the
            order of the anchors.
        num_positives: What both sums are divided by, at least 1: the positives of a batch,
            averaged over the ranks.
        negative_ratio: See ``hard_negatives``.
        smooth_l1_beta: Where the box loss goes from quadratic to linear; 0: L1.

    Returns:
        The losses of classes and of boxes, scalars. Infinite targets give an infinite box loss.

    Raises:
        ValueError: If there is not one row of ``target_deltas`` for each positive anchor.

    Source: Liu et al., SSD, ECCV 2016, equations 1 to 3; N there is the number of positives.
    """
    is_positive = matched_classes >= 0
    positive_deltas = box_deltas[is_positive]
    if positive_deltas.shape != target_deltas.shape:
        raise ValueError(
            f"{len(positive_deltas)} anchors are positive, but target_deltas has shape "
            f"{tuple(target_deltas.shape)}: give one row of 4 for each positive anchor."
        )
    loss_box_reg = smooth_l1_loss(positive_deltas, target_deltas, smooth_l1_beta, "sum")
    is_negative = hard_negatives(_background_loss(cls_logits), matched_classes, negative_ratio)
    is_used = is_positive | is_negative
    targets = matched_classes.where(is_positive, cls_logits.shape[-1] - 1)
    loss_cls = F.cross_entropy(cls_logits[is_used], targets[is_used], reduction="sum")
    return loss_cls / num_positives, loss_box_reg / num_positives


@torch.no_grad()
def _background_loss(cls_logits: Tensor) -> Tensor:
    """Return the (N, A) cross-entropy of each anchor if it is background."""
    return -cls_logits.log_softmax(dim=-1)[..., -1]
