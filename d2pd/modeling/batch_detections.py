"""Detections of a batch as tensors of fixed shape, and the suppression that leads there.

Nothing here branches on what the tensors hold, so that it can be exported: what is no detection is
masked and not left out.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms


class BatchDetections(NamedTuple):
    """Detections of N images, each with room for D; the best first, behind them zeros.

    Attributes:
        boxes: (N, D, 4) XYXY, px of the image given, clipped to it.
        scores: (N, D) in [0, 1]; 0 in rows that hold no detection.
        classes: (N, D) int64, 0..K-1; -1 in rows that hold no detection.
        counts: (N,) int64, rows of each image that hold a detection.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    counts: Tensor

    def of_image(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (D, 4), scores (D,) and classes (D,) of one image, without empty rows."""
        rows = (index, slice(int(self.counts[index])))
        return self.boxes[rows], self.scores[rows], self.classes[rows]


Suppress: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""Takes boxes (N, T, 4) XYXY, scores (N, T), groups (N, T) int64 from 0, candidates (N, T) bool
and an IoU threshold; gives (N, T) bool: the candidates that overlap no better one of their group by
more than the threshold."""


def suppress_by_image(
    boxes: Tensor, scores: Tensor, groups: Tensor, is_candidate: Tensor, iou_threshold: float
) -> Tensor:
    """Suppress image by image, as Detectron2 does and to its bit; see ``Suppress``."""
    is_kept = torch.zeros_like(is_candidate)
    for index, candidates in enumerate(is_candidate):
        rows = candidates.nonzero().squeeze(1)
        keep = batched_nms(
            boxes[index, rows], scores[index, rows], groups[index, rows], iou_threshold
        )
        is_kept[index, rows[keep]] = True
    return is_kept


def suppress_jointly(
    boxes: Tensor, scores: Tensor, groups: Tensor, is_candidate: Tensor, iou_threshold: float
) -> Tensor:
    """Suppress all images at once, whatever their number; see ``Suppress``. For export.

    Boxes of other images and groups are moved out of reach, in float64: in float32 that would
    round away parts of a pixel.
    """
    chosen = is_candidate.flatten().nonzero().squeeze(1)
    members = groups.reshape(-1)[chosen]
    places = chosen // scores.shape[1] * (groups.amax() + 1) + members
    flat = boxes.reshape(-1, 4)[chosen].double()
    # Over a row of zeros: there may be no candidate at all.
    farthest = torch.cat((flat.abs().flatten(), flat.new_zeros(1))).amax()
    shifted = flat + (places.double() * (2 * farthest + 1))[:, None]
    keep = nms(shifted, scores.reshape(-1)[chosen].double(), iou_threshold)
    is_kept = torch.zeros_like(is_candidate).reshape(-1)
    return is_kept.index_put((chosen[keep],), is_kept.new_ones(())).reshape(is_candidate.shape)


def best_kept(
    boxes: Tensor, scores: Tensor, classes: Tensor, is_kept: Tensor, limit: int
) -> BatchDetections:
    """Put the best of those kept in front; of equal scores the first stays first.

    Args:
        boxes: (N, T, 4).
        scores: (N, T), above 0.
        classes: (N, T).
        is_kept: (N, T) bool.
        limit: Most detections of an image.
    """
    ranked, order = scores.where(is_kept, -math.inf).sort(dim=1, descending=True, stable=True)
    room = min(limit, scores.shape[1])
    ranked, order = ranked[:, :room], order[:, :room]
    is_there = ranked > -math.inf
    return BatchDetections(
        boxes.gather(1, order[..., None].expand(-1, -1, 4)).where(is_there[..., None], 0.0),
        ranked.where(is_there, 0.0),
        classes.gather(1, order).where(is_there, -1),
        is_there.sum(dim=1),
    )


def first_best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the best scores in order; of equal ones the first, which ``topk`` does not promise.

    Args:
        scores: (N, M), finite; M may be less than ``count``.
        count: How many.

    Returns:
        Scores (N, count), minus infinity where there are no more, and their positions (N, count)
        in 0..M-1.
    """
    # A stable sort of all says the same, at many times the cost.
    padded = torch.nn.functional.pad(scores, (0, count), value=-math.inf)
    last = padded.topk(count, dim=1).values[:, -1:]
    is_above, is_equal = padded > last, padded == last
    room = count - is_above.sum(dim=1, keepdim=True)
    is_chosen = is_above | (is_equal & (is_equal.cumsum(dim=1) <= room))
    positions = torch.arange(padded.shape[1], 0, -1, device=scores.device)
    chosen = padded.shape[1] - (positions * is_chosen).topk(count, dim=1).values
    best, order = padded.gather(1, chosen).sort(dim=1, descending=True, stable=True)
    return best, chosen.gather(1, order).clamp(max=scores.shape[1] - 1)


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clip (..., 4) XYXY boxes to an image; infinite numbers become finite, NaN stays."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    clipped = (
        *(x1.clamp(0, width), y1.clamp(0, height)),
        *(x2.clamp(0, width), y2.clamp(0, height)),
    )
    return torch.stack(clipped, dim=-1)
