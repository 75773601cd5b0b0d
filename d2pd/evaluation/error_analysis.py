"""Find what went wrong: every miss and every false positive at one score threshold.

The matching is the miss rate's, class by class, so the counts are those of the curve at that
threshold. What the reasons mean stands in ``error_cases``.

Source: Bolya et al., TIDE, ECCV 2020, section 2.2.
"""

from typing import Any, NamedTuple

import numpy as np

from d2pd.evaluation.arrays import (
    UNKNOWN,
    DetectionArrays,
    LabelArrays,
    labels_to_find,
    scored_from,
)
from d2pd.evaluation.assignment import (
    BEYOND,
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    Assignment,
    Overlaps,
    assign_each_class,
    overlaps,
)
from d2pd.evaluation.error_cases import REASONS, ErrorCase, is_at_border

LOOSE_IOU = 0.1
"""From here on a box is about a label, if badly placed; TIDE's background threshold."""
SMALL_HEIGHT = 55.0
"""Pixels; a missed label under it is too small: the KAIST setting Reasonable starts here."""


class _Found(NamedTuple):
    """Columns of cases of one kind: (C,) reasons as positions in ``REASONS``, -1 for no index."""

    kind: str
    reason: np.ndarray
    label: np.ndarray
    detection: np.ndarray

    def for_reason(self, reason: str) -> np.ndarray:
        """Return the detections of the cases that have this reason."""
        return self.detection[self.reason == REASONS[self.kind].index(reason)]


def find_errors(
    labels: LabelArrays,
    detections: DetectionArrays,
    *,
    score_threshold: float,
    iou_threshold: float = 0.5,
    is_ignored: np.ndarray | None = None,
) -> list[ErrorCase]:
    """List every miss, every false positive and every detection that is not counted.

    Args:
        labels: Of K classes.
        detections: Down to a score near 0, as stored; those under the threshold tell which misses
            a lower one would find.
        score_threshold: Detections from this score on are shown.
        iou_threshold: In (0, 1], from which a detection finds a label.
        is_ignored: (G,) bool, the labels that a setting does not ask for; None for those that the
            file flags. Flagged labels and those without a class are always ignored.

    Returns:
        False positives, misses, then detections that are not counted; each kind in the order of
        the images, in one by descending score, or for misses in the order of the labels.

    Raises:
        ConfigError: If a threshold cannot be used.
        ValueError: If ``is_ignored`` is not of these labels.

    Source: see the module.
    """
    is_wanted = labels_to_find(labels, is_ignored)
    matched = assign_each_class(labels, detections, ~is_wanted, iou_threshold)
    is_shown = scored_from(detections, score_threshold)
    pairs = overlaps(labels, detections)
    wrong = _false_positives(labels, detections, matched, is_shown, pairs, iou_threshold)
    missed = _misses(labels, matched, is_shown, is_wanted, wrong)
    return [
        case
        for found in (wrong, missed, _not_counted(matched, is_shown))
        for case in _cases(labels, detections, found, pairs)
    ]


def _false_positives(
    labels: LabelArrays,
    detections: DetectionArrays,
    matched: Assignment,
    is_shown: np.ndarray,
    pairs: Overlaps,
    iou_threshold: float,
) -> _Found:
    is_wrong = (matched.outcome == FALSE_POSITIVE) & is_shown
    is_candidate = is_wrong[pairs.detection] & labels_to_find(labels)[pairs.label]
    is_same = detections.classes[pairs.detection] == labels.classes[pairs.label]
    own, own_iou = _nearest(pairs, is_candidate & is_same, is_wrong)
    other, other_iou = _nearest(pairs, is_candidate & ~is_same, is_wrong)
    is_reason = [own_iou >= iou_threshold, other_iou >= iou_threshold, own_iou >= LOOSE_IOU]
    return _Found(
        kind="false positive",
        reason=np.select(is_reason, [0, 1, 2], 3),
        label=np.select(is_reason, [own, other, own], -1),
        detection=np.flatnonzero(is_wrong),
    )


def _misses(
    labels: LabelArrays,
    matched: Assignment,
    is_shown: np.ndarray,
    is_wanted: np.ndarray,
    wrong: _Found,
) -> _Found:
    is_true = matched.outcome == TRUE_POSITIVE
    found = _first_on(labels, matched.label, np.flatnonzero(is_true & is_shown))
    missed = np.flatnonzero(is_wanted & (found < 0))
    explaining = np.full(len(is_shown), -1)
    explaining[wrong.detection] = wrong.label
    on_label = [
        _first_on(labels, explaining, wrong.for_reason("confused class"))[missed],
        _first_on(labels, explaining, wrong.for_reason("localisation"))[missed],
        _first_on(labels, matched.label, np.flatnonzero(is_true & ~is_shown))[missed],
    ]
    boxes = labels.boxes_xywh[missed]
    is_reason = [
        *(detection >= 0 for detection in on_label),
        boxes[:, 3] < SMALL_HEIGHT,
        labels.occlusion[missed] > 0,
        is_at_border(boxes, labels.image_sizes[labels.image_index[missed]]),
    ]
    return _Found(
        kind="miss",
        reason=np.select(is_reason, range(6), 6),
        label=missed,
        detection=np.select(is_reason[:3], on_label, -1),
    )


def _not_counted(matched: Assignment, is_shown: np.ndarray) -> _Found:
    is_left_out = (matched.outcome == IGNORED) | (matched.outcome == BEYOND)
    left_out = np.flatnonzero(is_left_out & is_shown)
    return _Found(
        kind="not counted",
        reason=(matched.outcome[left_out] == BEYOND).astype(np.int64),
        label=matched.label[left_out],
        detection=left_out,
    )


def _nearest(
    pairs: Overlaps, is_candidate: np.ndarray, is_wrong: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each wrong detection's label of largest IoU, or -1, and that IoU: (F,) each.

    Args:
        pairs: Q of them.
        is_candidate: (Q,) bool, pairs that are looked at.
        is_wrong: (D,) bool, true for F detections.
    """
    chosen = np.flatnonzero(is_candidate)
    # Ascending, so that the largest is written last; a tie goes to the later label, as in matching.
    chosen = chosen[np.lexsort((pairs.label[chosen], pairs.iou[chosen]))]
    nearest, best = np.full(len(is_wrong), -1), np.zeros(len(is_wrong))
    nearest[pairs.detection[chosen]] = pairs.label[chosen]
    best[pairs.detection[chosen]] = pairs.iou[chosen]
    return nearest[is_wrong], best[is_wrong]


def _first_on(labels: LabelArrays, label: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return for each label the first, so best, of the chosen detections that name it, or -1.

    Args:
        labels: G of them.
        label: (D,) the label that each detection names, or -1.
        chosen: Indices of detections, ascending.
    """
    first = np.full(len(labels.classes) + 1, -1)  # the last place takes those without a label
    first[label[chosen[::-1]]] = chosen[::-1]
    return first[:-1]


def _iou(pairs: Overlaps, detection: np.ndarray, label: np.ndarray, num_labels: int) -> np.ndarray:
    """Look up the IoU of detections with labels, both (C,) indices of pairs that touch."""
    # Pairs are ascending by detection, then label.
    keys = pairs.detection * num_labels + pairs.label
    return pairs.iou[np.searchsorted(keys, detection * num_labels + label)]


def _cases(
    labels: LabelArrays, detections: DetectionArrays, found: _Found, pairs: Overlaps
) -> list[ErrorCase]:
    """Look up what each case is about, and bring it to plain numbers."""
    has_label, has_detection = found.label >= 0, found.detection >= 0
    if found.kind == "miss":
        boxes, image = labels.boxes_xywh[found.label], labels.image_index[found.label]
    else:
        boxes = detections.boxes_xywh[found.detection]
        image = detections.image_index[found.detection]
    is_pair = has_label & has_detection
    iou = np.full(len(image), np.nan)
    iou[is_pair] = _iou(pairs, found.detection[is_pair], found.label[is_pair], len(labels.classes))
    columns = (
        [REASONS[found.kind][reason] for reason in found.reason.tolist()],
        image.tolist(),
        _or_none(found.label, has_label),
        _or_none(found.detection, has_detection),
        _or_none(iou, is_pair),
        _or_none(np.append(detections.scores, np.nan)[found.detection], has_detection),
        boxes[:, 3].tolist(),
        np.append(labels.occlusion, UNKNOWN)[found.label].tolist(),
        is_at_border(boxes, labels.image_sizes[image]).tolist(),
    )
    return [ErrorCase(found.kind, *row) for row in zip(*columns, strict=True)]


def _or_none(values: np.ndarray, is_there: np.ndarray) -> list[Any]:
    pairs = zip(values.tolist(), is_there.tolist(), strict=True)
    return [value if is_known else None for value, is_known in pairs]
