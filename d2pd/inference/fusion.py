"""Weighted boxes fusion: what several sources detect in one image becomes one list.

Where suppression keeps the best of the boxes on an object, fusion takes their mean.

Source: Solovyev, Wang, Gabruseva, Weighted boxes fusion, Image and Vision Computing 2021
(arXiv 1910.13302). The choices are those of its reference implementation, ``ensemble-boxes``.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

IOU_THRESHOLD = 0.55
"""Of the paper."""

Source: TypeAlias = tuple[ArrayLike, ArrayLike, ArrayLike]
"""What a model says of an image: boxes (n, 4) XYXY, scores (n,) in [0, 1], classes (n,)."""

Fused: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes (D, 4) float64 XYXY, scores (D,) float64, classes (D,) int64."""


def fuse(sources: Sequence[Source], *, iou_threshold: float = IOU_THRESHOLD) -> Fused:
    """Fuse the detections of N sources on one image, class by class.

    The best comes first: it joins the cluster whose box it overlaps most, if by more than the
    threshold, else it starts one. The box of a cluster is the mean of its T boxes, weighted by
    their scores; its score is their mean times min(T, N) / N. So what a single source sees keeps
    1/N of its score. A box without area overlaps nothing.

    Args:
        sources: In the pixels of the image, or any other unit. One may have no detection; in
            whatever order they come, the result is the same.
        iou_threshold: Overlap, in (0, 1), from which boxes are of one object.

    Returns:
        Best first; of equal scores the lower class, then x1, y1, x2, y2.

    Raises:
        ValueError: If there is no source, the parts of one differ in length, a number is not
            finite, a box has a negative size, a score is not in [0, 1], or the threshold is out of
            its range.
    """
    if not len(sources):
        raise ValueError("nothing to fuse: give at least one source")
    if not 0 < iou_threshold < 1:
        raise ValueError(f"iou_threshold must be in (0, 1), got {iou_threshold}")
    parts = [_arrays(source, number) for number, source in enumerate(sources)]
    boxes, scores, classes = (np.concatenate(each) for each in zip(*parts, strict=True))
    fused = [np.zeros((0, 6))]
    for number in np.unique(classes):
        rows = classes == number
        found, means, counts = _cluster(boxes[rows], scores[rows], iou_threshold)
        shares = np.minimum(counts, len(parts)) / len(parts)
        fused.append(np.column_stack([found, means * shares, np.full(len(found), number)]))
    table = np.concatenate(fused)
    table = table[np.lexsort((*table.T[3::-1], table[:, 5], -table[:, 4]))]
    return table[:, :4], table[:, 4], table[:, 5].astype(np.int64)


def _cluster(
    boxes: np.ndarray, scores: np.ndarray, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put boxes together that overlap.

    Args:
        boxes: (n, 4), of one class.
        scores: (n,) in [0, 1].
        iou_threshold: See ``fuse``.

    Returns:
        Of each of C clusters: the weighted mean box (C, 4), the mean score (C,), how many (C,).
    """
    fused, totals = np.empty_like(boxes), np.zeros(len(boxes))
    counts = np.zeros(len(boxes), dtype=np.int64)
    num = 0
    for index in np.lexsort((*boxes.T[::-1], -scores)):
        overlaps = _ious(fused[:num], boxes[index])
        place = int(overlaps.argmax()) if num else num
        if place == num or overlaps[place] <= iou_threshold:
            place, num = num, num + 1
            fused[place] = boxes[index]
        totals[place] += scores[index]
        counts[place] += 1
        if scores[index] > 0:  # without a score a box has no say
            fused[place] += (boxes[index] - fused[place]) * (scores[index] / totals[place])
    return fused[:num], totals[:num] / counts[:num], counts[:num]


def _ious(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the overlap of (n, 4) boxes with one, (n,) in [0, 1]."""
    x1, y1, x2, y2 = boxes.T
    left, top, right, bottom = box
    width = np.minimum(x2, right) - np.maximum(x1, left)
    height = np.minimum(y2, bottom) - np.maximum(y1, top)
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _arrays(source: Source, number: int) -> Fused:
    """Check one source, and give it as arrays."""
    boxes = np.asarray(source[0], dtype=np.float64)
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    scores = np.asarray(source[1], dtype=np.float64)
    classes = np.asarray(source[2])
    if boxes.shape != (scores.size, 4) or scores.ndim != 1 or classes.shape != scores.shape:
        raise ValueError(
            f"source {number}: boxes (n, 4), scores (n,) and classes (n,) belong together; got "
            f"{boxes.shape}, {scores.shape} and {classes.shape}"
        )
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] >= boxes[:, :2]).all()):
        raise ValueError(f"source {number}: boxes must be finite, with x1 <= x2 and y1 <= y2")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(f"source {number}: scores must be in [0, 1]")
    if classes.size and not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"source {number}: classes must be whole numbers, got {classes.dtype}")
    return boxes, scores, classes.astype(np.int64)
