"""Which detection finds which label, by the rules of the log-average miss rate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from d2pd.errors import ConfigError
from d2pd.evaluation.arrays import (
    DetectionArrays,
    LabelArrays,
    detections_where,
    of_class,
    rank_in_image,
)

FALSE_POSITIVE, TRUE_POSITIVE, IGNORED, BEYOND = range(4)
"""What becomes of a detection; ``BEYOND``: past the first ``MAX_DETECTIONS`` of its image."""

MAX_DETECTIONS = 1000
"""Of an image, the best that count."""

PAIRS_AT_ONCE = 2**18
"""Detections times labels that are looked at together: it bounds the memory."""


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a detection and a label of one image that share an area: Q pairs.

    Attributes:
        detection: (Q,) int64, ascending.
        label: (Q,) int64, ascending within a detection.
        iou: (Q,) float64, intersection over union.
        coverage: (Q,) float64, intersection over the detection's area.
    """

    detection: np.ndarray
    label: np.ndarray
    iou: np.ndarray
    coverage: np.ndarray


@dataclass(frozen=True)
class Assignment:
    """What became of D detections.

    Attributes:
        outcome: (D,) int8, one of ``TRUE_POSITIVE``, ``FALSE_POSITIVE``, ``IGNORED``, ``BEYOND``.
        label: (D,) int64, the label that was found or the region that absorbed it, or -1.
    """

    outcome: np.ndarray
    label: np.ndarray


def assign(
    labels: LabelArrays,
    detections: DetectionArrays,
    is_ignored: np.ndarray,
    iou_threshold: float = 0.5,
) -> Assignment:
    """Assign detections to labels; classes are not looked at.

    In each image, by descending score, a detection takes the label not yet taken of the largest
    IoU, a tie goes to the later label. If none reaches the threshold, the region to ignore that
    holds the largest part of the detection absorbs it, if that part reaches the threshold; it may
    absorb any number.

    Args:
        labels: G labels of one class, and regions to ignore.
        detections: D detections of that class.
        is_ignored: (G,) bool, labels that are regions to ignore.
        iou_threshold: In (0, 1], for labels and for regions.

    Raises:
        ConfigError: If the threshold is outside (0, 1].

    Source: Dollar et al., Pedestrian Detection, PAMI 2012, section 3; bbGt of Piotr's toolbox.
    """
    return next(assign_each(labels, detections, [is_ignored], iou_threshold))


def assign_each(
    labels: LabelArrays,
    detections: DetectionArrays,
    are_ignored: Iterable[np.ndarray],
    iou_threshold: float = 0.5,
) -> Iterator[Assignment]:
    """Yield what ``assign`` returns, for several choices of what to ignore; overlaps once."""
    if not 0 < iou_threshold <= 1:
        raise ConfigError(f"the IoU threshold must be above 0 and at most 1, got {iou_threshold}")
    is_beyond = rank_in_image(detections) >= MAX_DETECTIONS
    found = overlaps(labels, detections_where(detections, ~is_beyond))
    found = replace(found, detection=np.flatnonzero(~is_beyond)[found.detection])
    # A detection's best label first; for regions the best one last, as the last one written stays.
    finds = np.flatnonzero(found.iou >= iou_threshold)
    keys = (-found.label[finds], -found.iou[finds], found.detection[finds])
    finds = finds[np.lexsort(keys)]
    absorbs = np.flatnonzero(found.coverage >= iou_threshold)
    keys = (found.label[absorbs], found.coverage[absorbs], found.detection[absorbs])
    absorbs = absorbs[np.lexsort(keys)]
    for is_ignored in are_ignored:
        outcome = np.where(is_beyond, BEYOND, FALSE_POSITIVE).astype(np.int8)
        free = finds[~is_ignored[found.label[finds]]]
        label = _take(found.detection[free], found.label[free], outcome.size, is_ignored.size)
        outcome[label >= 0] = TRUE_POSITIVE
        is_left = is_ignored[found.label[absorbs]] & (label[found.detection[absorbs]] < 0)
        left = absorbs[is_left]
        label[found.detection[left]] = found.label[left]
        outcome[found.detection[left]] = IGNORED
        yield Assignment(outcome, label)


def assign_each_class(
    labels: LabelArrays, detections: DetectionArrays, is_ignored: np.ndarray, iou_threshold: float
) -> Assignment:
    """Match each class on its own, with indices into all labels and all detections.

    Matching goes by descending score, so what a threshold cuts off changes nothing above it: one
    matching of all detections holds for every threshold.

    Args:
        labels: G labels of K classes.
        detections: D detections.
        is_ignored: (G,) bool, every label that is not to be found. A region with a class absorbs
            detections of that class, one without those of every class.
        iou_threshold: See ``assign``.
    """
    outcome = np.empty(len(detections.scores), dtype=np.int8)
    label = np.empty(len(detections.scores), dtype=np.int64)
    for index in range(len(labels.class_names)):
        is_own = (labels.classes == index) | (labels.classes < 0)
        matched = assign(*of_class(labels, detections, index), is_ignored[is_own], iou_threshold)
        # The -1 at the end is what the -1 of a detection without a label points to.
        numbers = np.append(np.flatnonzero(is_own), -1)
        outcome[detections.classes == index] = matched.outcome
        label[detections.classes == index] = numbers[matched.label]
    return Assignment(outcome, label)


def overlaps(labels: LabelArrays, detections: DetectionArrays) -> Overlaps:
    """Find the pairs that share an area; memory is linear in them and in the detections."""
    number = np.arange(len(labels.image_ids) + 1)
    first_of_image = np.searchsorted(labels.image_index, number)
    first = first_of_image[detections.image_index]
    count = first_of_image[detections.image_index + 1] - first
    ours, theirs = _corners(detections.boxes_xywh), _corners(labels.boxes_xywh)
    parts = [
        _touching(ours, theirs, first[start:stop], count[start:stop], start)
        for start, stop in _chunks(np.cumsum(count))
    ]
    detection = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    label = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    intersection = np.concatenate([np.empty(0), *(part[2] for part in parts)])
    area = np.prod(detections.boxes_xywh[:, 2:], axis=1)[detection]
    label_area = np.prod(labels.boxes_xywh[:, 2:], axis=1)[label]
    iou = intersection / (area + label_area - intersection)
    return Overlaps(detection, label, iou, intersection / area)


def _take(
    detection: np.ndarray, label: np.ndarray, num_detections: int, num_labels: int
) -> np.ndarray:
    """Let detections choose labels in their order, all images at once.

    Every free detection asks the best label that has not refused it; a label keeps the first
    detection in order of those that ask. As all labels prefer the same order, this ends where
    choosing one after the other does.

    Args:
        detection: (Q,) ascending; one that comes first chooses first.
        label: (Q,) what it may take, the best first.
        num_detections: D.
        num_labels: G.

    Returns:
        (D,) int64, the label taken or -1.
    """
    starts = np.flatnonzero(np.diff(detection, prepend=-1))
    ends = np.append(starts[1:], detection.size)
    nobody = starts.size
    holder = np.full(num_labels, nobody)
    asks = starts.copy()
    free = np.arange(nobody)
    while free.size:
        wanted = label[asks[free]]
        before = holder[wanted]
        np.minimum.at(holder, wanted, free)
        after = holder[wanted]
        displaced = before[(before != after) & (before != nobody)]
        refused = np.unique(np.concatenate([free[after != free], displaced]))
        asks[refused] += 1
        free = refused[asks[refused] < ends[refused]]
    taken = np.full(num_detections, -1, dtype=np.int64)
    held = np.flatnonzero(holder != nobody)
    taken[detection[starts[holder[held]]]] = held
    return taken


def _chunks(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut detections, of which the running number of pairs is given, into even lots of pairs."""
    start = 0
    while start < ends.size:
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        yield start, stop
        start = stop


def _corners(boxes_xywh: np.ndarray) -> tuple[np.ndarray, ...]:
    x, y, width, height = np.ascontiguousarray(boxes_xywh.T)
    return x, y, x + width, y + height


def _touching(
    ours: tuple[np.ndarray, ...],
    theirs: tuple[np.ndarray, ...],
    first: np.ndarray,
    count: np.ndarray,
    start: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return detection, label and intersection of the pairs of some detections that touch.

    Args:
        ours: Corners of all detections.
        theirs: Corners of all labels.
        first: (d,) first label of each of these detections' image.
        count: (d,) labels of that image.
        start: Number of the first of these detections.
    """
    before = np.cumsum(count) - count
    detection = np.repeat(np.arange(start, start + count.size), count)
    label = np.arange(detection.size) + np.repeat(first - before, count)
    sides: list[np.ndarray] = []
    for low, high in ((0, 2), (1, 3)):
        end = np.minimum(ours[high][detection], theirs[high][label])
        side = end - np.maximum(ours[low][detection], theirs[low][label])
        is_shared = side > 0
        detection, label = detection[is_shared], label[is_shared]
        sides = [*(other[is_shared] for other in sides), side[is_shared]]
    area = sides[0] * sides[1]
    is_shared = area > 0  # the product of two tiny sides may vanish
    return detection[is_shared], label[is_shared], area[is_shared]
