"""From what the network predicts for the anchors of an image to its detections."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import box_iou

from d2pd.errors import ConfigError
from d2pd.modeling.batch_detections import (
    BatchDetections,
    Suppress,
    best_kept,
    clip_boxes,
    first_best,
    suppress_by_image,
)
from d2pd.modeling.box_coding import decode


@dataclass(frozen=True)
class DetectionOptions:
    """How detections are chosen.

    Attributes:
        bbox_reg_weights: Factors that the box deltas were encoded with.
        score_threshold: A detection needs a score above it, also after a decay of soft-NMS.
        topk_candidates: Best boxes of an image, over all classes, that go into the NMS.
        nms_type: ``hard`` drops a box that overlaps a better one of its class; ``soft_linear``
            multiplies its score by 1 - IoU; ``soft_gaussian`` by exp(-IoU² / sigma), at any IoU.
        nms_threshold: IoU above which ``hard`` and ``soft_linear`` do so.
        soft_nms_sigma: Of ``soft_gaussian``.
        detections_per_image: Most that an image gets.

    Raises:
        ConfigError: If ``soft_nms_sigma`` is not above 0.
    """

    bbox_reg_weights: tuple[float, float, float, float]
    score_threshold: float
    topk_candidates: int
    nms_type: Literal["hard", "soft_linear", "soft_gaussian"]
    nms_threshold: float
    soft_nms_sigma: float
    detections_per_image: int

    def __post_init__(self) -> None:
        if not self.soft_nms_sigma > 0:
            raise ConfigError(
                f"MODEL.SSD.SOFT_NMS_SIGMA is {self.soft_nms_sigma}, and must be above 0"
            )


@torch.no_grad()
def detect(
    cls_logits: Tensor,
    box_deltas: Tensor,
    anchors: Tensor,
    image_size: tuple[int, int],
    options: DetectionOptions,
    suppress: Suppress = suppress_by_image,
) -> BatchDetections:
    """Find the detections of images of one size.

    Of equal scores the first anchor comes first, then the first class. What is not finite gives
    no detection.

    Args:
        cls_logits: (N, A, K + 1) float32, background last.
        box_deltas: (N, A, 4) float32.
        anchors: (A, 4) XYXY, px of the network input.
        image_size: (height, width) px of the images without padding.
        options: How detections are chosen.
        suppress: How ``hard`` suppresses boxes.

    Returns:
        Boxes in px of the network input, clipped to the image; best first.
    """
    num_classes = cls_logits.shape[2] - 1
    probabilities = cls_logits.softmax(dim=2)[..., :-1].flatten(1)
    # Not left out: a fixed number of candidates goes on.
    is_enough = probabilities > options.score_threshold
    scores, indices = first_best(probabilities.where(is_enough, -1.0), options.topk_candidates)
    rows, classes = indices // num_classes, indices % num_classes
    deltas = box_deltas.gather(1, rows[..., None].expand(-1, -1, 4))
    boxes = clip_boxes(decode(deltas, anchors[rows], options.bbox_reg_weights), *image_size)
    is_candidate = (scores > options.score_threshold) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
    if options.nms_type != "hard":
        return _softened(boxes, scores, classes, is_candidate, options)
    is_kept = suppress(boxes, scores, classes, is_candidate, options.nms_threshold)
    return best_kept(boxes, scores, classes, is_kept, options.detections_per_image)


def _softened(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    is_candidate: Tensor,
    options: DetectionOptions,
) -> BatchDetections:
    """Lower the scores of the candidates of each image by ``soft_nms``."""
    is_kept, lowered = torch.zeros_like(is_candidate), scores.clone()
    for index, candidates in enumerate(is_candidate):
        rows = candidates.nonzero().squeeze(1)
        keep, final = soft_nms(
            boxes[index, rows], scores[index, rows], classes[index, rows], options
        )
        is_kept[index, rows[keep]] = True
        lowered[index, rows[keep]] = final
    return best_kept(boxes, lowered, classes, is_kept, options.detections_per_image)


def soft_nms(
    boxes: Tensor, scores: Tensor, classes: Tensor, options: DetectionOptions
) -> tuple[Tensor, Tensor]:
    """Let a box lower the scores of those of its class that overlap it, the best box first.

    Args:
        boxes: (D, 4) XYXY, best first.
        scores: (D,).
        classes: (D,) int64.
        options: How; ``nms_type`` is one of the soft ones.

    Returns:
        Indices of the boxes that stay, the best lowered score first, and those scores. The first
        box wins where scores tie.

    Source: Bodla et al., Soft-NMS, ICCV 2017. An overlap of exactly the threshold lowers nothing,
    as it drops nothing in hard suppression.
    """
    factors = _decay_factors(boxes, classes, options)
    remaining = scores.clone()
    kept, kept_scores = [], []
    # A score only falls, so that the boxes come out in the order of their final scores.
    for _ in range(min(len(scores), options.detections_per_image)):
        score, index = remaining.max(dim=0)
        kept.append(index)
        kept_scores.append(score)
        remaining = remaining * factors[index]
        remaining[index] = -1
    if not kept:
        return classes.new_zeros(0), scores
    final_scores = torch.stack(kept_scores)
    is_kept = final_scores > options.score_threshold
    return torch.stack(kept)[is_kept], final_scores[is_kept]


def _decay_factors(boxes: Tensor, classes: Tensor, options: DetectionOptions) -> Tensor:
    """Return (D, D): what the row's box multiplies the score of the column's box by."""
    iou = box_iou(boxes, boxes)
    if options.nms_type == "soft_gaussian":
        factors = (-iou.square() / options.soft_nms_sigma).exp()
    else:
        factors = (1 - iou).where(iou > options.nms_threshold, 1.0)
    return factors.where(classes[:, None] == classes, 1.0)
