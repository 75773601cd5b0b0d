"""Image ids of a result file that are all known, and all off by one."""

import numpy as np

from d2pd.evaluation.arrays import (
    DetectionArrays,
    LabelArrays,
    detection_arrays,
    detections_where,
    rank_in_image,
)
from d2pd.evaluation.assignment import overlaps

IOU = 0.5
FACTOR = 2
BEST = 20
"""Detections of an image that are looked at."""

LEAST = 10
"""Labels that must be overlapped more by shifted detections: fewer may be chance."""


def find_shift(labels: LabelArrays, detections: DetectionArrays, shift: int) -> str:
    """Say so where the detections would overlap far more labels, were each image id another one.

    Args:
        labels: With whole numbers as image ids; with others nothing is said.
        detections: On them.
        shift: What to add to each image id: 1 or -1.

    Returns:
        How many labels overlap either way, or "".
    """
    if not all(isinstance(image_id, int) for image_id in labels.image_ids):
        return ""
    positions = {image_id: number for number, image_id in enumerate(labels.image_ids)}
    moved = np.array([positions.get(image_id + shift, -1) for image_id in labels.image_ids])
    detections = detections_where(detections, rank_in_image(detections) < BEST)
    index = moved[detections.image_index]
    is_kept = index >= 0
    boxes, scores = detections.boxes_xywh[is_kept], detections.scores[is_kept]
    shifted = detection_arrays(index[is_kept], boxes, scores, detections.classes[is_kept])
    as_read, as_shifted = _count_overlapped(labels, detections), _count_overlapped(labels, shifted)
    if as_shifted < max(FACTOR * as_read, as_read + LEAST):
        return ""
    return (
        f"they overlap {as_read:,} of {labels.classes.size:,} labels, and would overlap "
        f"{as_shifted:,} if every image_id were {abs(shift)} {'more' if shift > 0 else 'less'}"
    )


def _count_overlapped(labels: LabelArrays, detections: DetectionArrays) -> int:
    found = overlaps(labels, detections)
    return np.unique(found.label[found.iou >= IOU]).size
