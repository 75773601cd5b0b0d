"""Which label each anchor learns."""

import heapq
from collections.abc import Callable

import torch
from torch import Tensor

BACKGROUND = -1
IGNORE = -2

PAIRS_AT_ONCE = 300_000
"""Pairs of an anchor and a box that are compared in one go: few enough to stay in the cache."""


def match_anchors(
    anchors: Tensor, gt_boxes: Tensor, is_ignore: Tensor, iou_threshold: float
) -> Tensor:
    """Assign each anchor the ground-truth box it should learn.

    An anchor learns the label it overlaps most, the first of equals, from ``iou_threshold`` on.
    Besides, every label keeps its best anchor, however little they overlap: where two have the same
    one, the better pair first, and the other takes the best that is free.

    Args:
        anchors: (A, 4) XYXY, px of the network input.
        gt_boxes: (G, 4) in the same frame; G may be 0. A box without area, or that is not finite,
            overlaps nothing, but gets an anchor: the loss then shows it.
        is_ignore: (G,) bool, True for a region that is neither reward nor penalty.
        iou_threshold: IoU in (0, 1] from which an anchor is positive, and share of an anchor's area
            from which a region that covers it takes it out, if it is not positive.

    Returns:
        (A,) int64: index into ``gt_boxes``, or ``BACKGROUND``, or ``IGNORE``.

    Raises:
        ValueError: If ``iou_threshold`` is outside (0, 1].

    Source: Liu et al., SSD, ECCV 2016, section 2.2; regions: MSDS-RCNN, BMVC 2018.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
    finite_boxes = torch.where(gt_boxes.isfinite().all(1, keepdim=True), gt_boxes, 0.0)
    columns = anchors.t().contiguous()  # several times as fast as strided columns
    matches = torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    matches[_coverage(columns, finite_boxes[is_ignore]) >= iou_threshold] = IGNORE

    labels = torch.nonzero(~is_ignore).flatten()
    if len(labels) and len(anchors):
        label_boxes = finite_boxes[labels]
        iou, label_of_anchor, best = _best_pairs(columns, label_boxes)
        matches = torch.where(iou >= iou_threshold, labels[label_of_anchor], matches)
        chosen, kept = _own_anchors(best, lambda i: _iou(columns, label_boxes[i : i + 1])[0])
        matches[torch.tensor(kept, device=matches.device)] = labels[chosen]
    return matches


def _best_pairs(
    columns: Tensor, boxes: Tensor
) -> tuple[Tensor, Tensor, list[tuple[float, int, int]]]:
    """Compare every anchor with every box.

    Returns:
        (A,) largest IoU of each anchor, (A,) index of the box it has it with, and for each box
            (minus its largest IoU, its index, index of the anchor it has it with).
    """
    num_anchors = columns.shape[1]
    best_iou = columns.new_full((num_anchors,), -1.0)
    best_box = torch.zeros_like(best_iou, dtype=torch.int64)
    of_boxes = []
    step = max(1, PAIRS_AT_ONCE // num_anchors)
    for start in range(0, len(boxes), step):
        iou = _iou(columns, boxes[start : start + step])
        of_boxes.append(iou.max(dim=1))
        highest, box = iou.max(dim=0)
        best_box = torch.where(highest > best_iou, box + start, best_box)
        best_iou = torch.maximum(highest, best_iou)
    ious = torch.cat([best.values for best in of_boxes]).tolist()
    indices = torch.cat([best.indices for best in of_boxes]).tolist()
    return best_iou, best_box, [(-ious[i], i, indices[i]) for i in range(len(boxes))]


def _own_anchors(
    pairs: list[tuple[float, int, int]], iou_of: Callable[[int], Tensor]
) -> tuple[list[int], list[int]]:
    """Give each label an anchor of its own, the best pair first.

    Args:
        pairs: For each label (minus its largest IoU, its index, the anchor's index).
        iou_of: Returns the (A,) IoU of all anchors with a label; asked only for those whose best
            anchor is taken.

    Returns:
        Indices of labels and of their anchors. Labels are left out where anchors have run out.
    """
    heapq.heapify(pairs)
    taken: dict[int, int] = {}
    others: dict[int, tuple[list[float], list[int]]] = {}
    num_labels = len(pairs)
    while pairs:
        _, label, anchor = heapq.heappop(pairs)
        if anchor not in taken:
            taken[anchor] = label
            continue
        if label not in others:
            # So many that one must be free, if any is: the others take one each.
            ordered = iou_of(label).sort(descending=True, stable=True)
            others[label] = (
                ordered.values[:num_labels].tolist(),
                ordered.indices[:num_labels].tolist(),
            )
        for iou, candidate in zip(*others[label], strict=True):
            if candidate not in taken:
                heapq.heappush(pairs, (-iou, label, candidate))
                break
    return list(taken.values()), list(taken)


def _iou(columns: Tensor, boxes: Tensor) -> Tensor:
    """Return the (G, A) intersection over union of (G, 4) boxes and (4, A) anchors."""
    inter = _intersection(columns, boxes)
    union = (_area(columns) + _area(boxes.t())[:, None]).sub_(inter)
    return inter.div_(union)


def _coverage(columns: Tensor, regions: Tensor) -> Tensor:
    """Return the (A,) largest share of each anchor's area that a single region covers."""
    covered = torch.zeros_like(columns[0])
    step = max(1, PAIRS_AT_ONCE // max(1, len(covered)))
    for start in range(0, len(regions), step):
        inter = _intersection(columns, regions[start : start + step])
        covered = torch.maximum(covered, inter.amax(dim=0))
    return covered / _area(columns)


def _intersection(columns: Tensor, boxes: Tensor) -> Tensor:
    """Return the (G, A) areas that (G, 4) boxes and (4, A) anchors share."""
    ax1, ay1, ax2, ay2 = columns
    bx1, by1, bx2, by2 = boxes[:, :, None].unbind(1)
    width = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1)).clamp_(min=0)
    return width.mul_(torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1)).clamp_(min=0))


def _area(columns: Tensor) -> Tensor:
    """Return the (N,) areas of (4, N) boxes; 0 where a side is not positive."""
    x1, y1, x2, y2 = columns
    return (x2 - x1).clamp_(min=0).mul_((y2 - y1).clamp_(min=0))
