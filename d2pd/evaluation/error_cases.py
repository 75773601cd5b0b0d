"""Errors of a detector, one by one: what kind each is, and why.

``REASONS`` names the reasons of each kind; where several fit, the first of the list is taken.

*False positive*: a counted detection without a label.

- duplicate: IoU at or above the threshold with a label of its class that a better one has taken.
- confused class: the same with a label of another class.
- localisation: IoU of ``LOOSE_IOU`` up to the threshold with a label of its class.
- background: none of these.

*Miss*: a label to find without a detection. First what the detector did with it, then what makes
it hard.

- confused class, localisation: a false positive of that reason names this label.
- below the score threshold: a detection under the threshold takes it; a lower one would find it.
- too small, occluded, at the border: of the label; nothing above applies.
- not found: nothing tells why.

*Not counted*: no error, the metric leaves it out; listed so that it can be looked at.

- in an ignore region: a detection that an ignored label has absorbed.
- past the limit of detections: the image has too many better ones of the class.

Labels that are ignored and not found are no misses and are not listed.

Source: Bolya et al., TIDE, ECCV 2020, section 2.2, for the reasons of false positives, and for what
a false positive explains is no plain miss. Differences: TIDE tests localisation before class and
duplicate last; here the better overlap decides first. TIDE's "both" (a loose box on another class)
is background here. A label that only the chosen setting ignores still explains a loose box or a
wrong class on it; a region that the file flags never does.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from d2pd.evaluation.arrays import DetectionArrays, LabelArrays

REASONS = {
    "false positive": ("duplicate", "confused class", "localisation", "background"),
    "miss": (
        "confused class",
        "localisation",
        "below the score threshold",
        "too small",
        "occluded",
        "at the border",
        "not found",
    ),
    "not counted": ("in an ignore region", "past the limit of detections"),
}
"""kind -> its reasons, the first that fits is taken."""
BORDER = 5.0
"""Pixels; a box nearer to the image's edge is at the border, as in the KAIST protocol."""


class ErrorCase(NamedTuple):
    """One miss, false positive or detection that is not counted.

    Attributes:
        kind: A key of ``REASONS``.
        reason: One of that kind's reasons.
        image: Index of the image.
        label: Index of the missed label; of the label that explains a detection, the ignored one
            that absorbed it included; or None.
        detection: Index of the detection; of the one that explains a miss; or None.
        iou: Of the two, or None where one is missing. In an ignore region it may be small: there
            the protocol goes by the detection's own area.
        score: Of the detection, or None.
        height: In pixels, of the missed label or of the detection.
        occlusion: Of ``label``; ``UNKNOWN`` without one.
        at_border: Whether the missed label, or the detection, is at the border.
    """

    kind: str
    reason: str
    image: int
    label: int | None
    detection: int | None
    iou: float | None
    score: float | None
    height: float
    occlusion: int
    at_border: bool


def worst(cases: Sequence[ErrorCase], count: int) -> list[ErrorCase]:
    """Return the cases to look at first: at most ``count`` of each kind, in the order of kinds.

    Detections come by descending score; misses that nothing occludes first, then by height.
    """
    chosen = []
    for kind in REASONS:
        of_kind = [case for case in cases if case.kind == kind]
        of_kind.sort(key=_rank_of_miss if kind == "miss" else _rank_of_detection)
        chosen += of_kind[:count]
    return chosen


def to_rows(
    cases: Sequence[ErrorCase], labels: LabelArrays, detections: DetectionArrays
) -> list[dict[str, Any]]:
    """Return the cases as plain data for JSON.

    Returns:
        For each case ``kind``, ``reason``, ``image`` (name), ``image_index``, ``label_xyxy``,
        ``label_class``, ``row`` (of the label in its file), ``detection_xyxy``,
        ``detection_class``, ``score``, ``iou``, ``height``, ``occlusion`` and ``at_border``; None
        where there is no label or no detection, and for a row or a class that is not known.
    """
    return [
        {
            "kind": case.kind,
            "reason": case.reason,
            "image": labels.image_names[case.image],
            "image_index": case.image,
            "label_xyxy": _corners(labels.boxes_xywh, case.label),
            "label_class": _class_name(labels, labels.classes, case.label),
            "row": _known(labels.rows, case.label),
            "detection_xyxy": _corners(detections.boxes_xywh, case.detection),
            "detection_class": _class_name(labels, detections.classes, case.detection),
            "score": case.score,
            "iou": case.iou,
            "height": case.height,
            "occlusion": case.occlusion,
            "at_border": case.at_border,
        }
        for case in cases
    ]


def is_at_border(boxes_xywh: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    """Return which boxes reach beyond the frame ``BORDER`` px inside of their image.

    Args:
        boxes_xywh: (B, 4) in pixels.
        image_sizes: (B, 2), height and width of each box's image.
    """
    x, y, width, height = boxes_xywh.T
    image_height, image_width = image_sizes.T
    is_over = (x + width > image_width - BORDER) | (y + height > image_height - BORDER)
    return (x < BORDER) | (y < BORDER) | is_over


def _rank_of_detection(case: ErrorCase) -> float:
    return -(case.score or 0.0)


def _rank_of_miss(case: ErrorCase) -> tuple[bool, float]:
    return case.occlusion > 0, -case.height


def _corners(boxes_xywh: np.ndarray, index: int | None) -> list[float] | None:
    if index is None:
        return None
    x, y, width, height = boxes_xywh[index].tolist()
    return [x, y, x + width, y + height]


def _class_name(labels: LabelArrays, classes: np.ndarray, index: int | None) -> str | None:
    number = _known(classes, index)
    return None if number is None else labels.class_names[number]


def _known(values: np.ndarray, index: int | None) -> int | None:
    """Return a number, or None where there is no index or the number is the -1 for unknown."""
    return None if index is None or values[index] < 0 else int(values[index])
