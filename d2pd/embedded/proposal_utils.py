"""From predictions on anchors to proposals, and from proposals to training examples."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from d2pd.embedded.box_regression import Box2BoxTransform
from d2pd.embedded.boxes import Boxes
from d2pd.embedded.instances import Instances
from d2pd.embedded.nms import batched_nms

# The objectness of a labelled object: the logit of a probability just under 1.
GT_LOGIT = math.log((1.0 - 1e-10) / (1 - (1.0 - 1e-10)))


def select_and_decode(
    anchors: Sequence[Boxes],
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    box2box_transform: Box2BoxTransform,
    pre_nms_topk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the anchors of highest objectness on each level, and decode those alone.

    Args:
        anchors: H * W * A boxes of each level.
        logits: (N, H * W * A) objectness of each level.
        deltas: (N, H * W * A, 4) box deltas of each level.
        box2box_transform: Meaning of the deltas.
        pre_nms_topk: Most anchors to take from one level.

    Returns:
        (N, T, 4) boxes, (N, T) logits and (T,) levels; on each level in falling order.
    """
    boxes, scores, levels = [], [], []
    for level, (anchor, logit, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
        top_scores, top = logit.topk(min(logit.shape[1], pre_nms_topk), dim=1)
        top_deltas = delta.gather(1, top[..., None].expand(-1, -1, 4))
        decoded = box2box_transform.apply_deltas(
            top_deltas.reshape(-1, 4), anchor.tensor[top.flatten()]
        )
        boxes.append(decoded.view(*top.shape, 4))
        scores.append(top_scores)
        levels.append(top.new_full(top.shape[1:], level))
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)


def find_top_proposals(
    boxes: Tensor,
    logits: Tensor,
    levels: Tensor,
    image_size: tuple[int, int],
    nms_thresh: float,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> Instances:
    """Reduce the decoded boxes of one image to proposals.

    Args:
        boxes: (T, 4) XYXY, pixels of the network input.
        logits: (T,) objectness.
        levels: (T,) pyramid level; boxes of different levels do not suppress each other.
        image_size: Height and width of the image, to which boxes are clipped.
        nms_thresh: IoU for non-maximum suppression.
        post_nms_topk: Most proposals to return, over all levels.
        min_box_size: Boxes with a side not longer than this are dropped, pixels.
        training: Whether numbers that are not finite are an error; otherwise they are dropped.

    Returns:
        ``proposal_boxes`` and ``objectness_logits``, best first.

    Raises:
        FloatingPointError: If a box or logit is infinite or NaN in training.
    """
    is_finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(logits)
    if not is_finite.all():
        if training:
            raise FloatingPointError(
                f"{int((~is_finite).sum())} of {len(boxes)} boxes or scores predicted by the RPN "
                "are infinite or NaN: training has diverged."
            )
        boxes, logits, levels = boxes[is_finite], logits[is_finite], levels[is_finite]
    clipped = Boxes(boxes)
    clipped.clip(image_size)
    keep = clipped.nonempty(threshold=min_box_size)
    clipped, logits, levels = clipped[keep], logits[keep], levels[keep]
    keep = batched_nms(clipped.tensor, logits, levels, nms_thresh)[:post_nms_topk]
    return Instances(image_size, proposal_boxes=clipped[keep], objectness_logits=logits[keep])


def add_ground_truth_to_proposals(
    gt: Sequence[Instances], proposals: Sequence[Instances]
) -> list[Instances]:
    """Append the labelled boxes of each image to its proposals.

    Early in training no proposal is good enough to learn from; the labels themselves always are.

    Args:
        gt: ``gt_boxes`` of each image.
        proposals: ``proposal_boxes`` and ``objectness_logits`` of each image.

    Returns:
        The proposals, longer by the labels, with the fields that they had.
    """
    joined = []
    for labelled, proposed in zip(gt, proposals, strict=True):
        logits = proposed.objectness_logits.new_full((len(labelled.gt_boxes),), GT_LOGIT)
        fields = {
            **labelled.get_fields(),
            "proposal_boxes": labelled.gt_boxes,
            "objectness_logits": logits,
        }
        joined.append(Instances.cat([proposed, Instances(proposed.image_size, **fields)]))
    return joined
