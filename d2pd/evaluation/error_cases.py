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
from typing import NamedTuple

import numpy as np

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
