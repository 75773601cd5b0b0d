"""Which detection finds which label, each class on its own."""

import numpy as np

from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, of_class
from d2pd.evaluation.assignment import Assignment, assign


def labels_to_find(labels: LabelArrays, is_ignored: np.ndarray | None = None) -> np.ndarray:
    """Return which labels a detector is asked to find.

    Args:
        labels: G labels.
        is_ignored: (G,) bool, labels that are regions to ignore beside those of the file, as
            ``subsets.ignored`` gives them; None: no others.

    Returns:
        (G,) bool.

    Raises:
        ValueError: If there is not one value for each label.
    """
    is_object = ~labels.is_ignore & (labels.classes >= 0)
    if is_ignored is None:
        return is_object
    if np.shape(is_ignored) != is_object.shape:
        raise ValueError(
            f"is_ignored has shape {np.shape(is_ignored)} for {len(is_object)} labels; it needs "
            "one value for each label"
        )
    return is_object & ~np.asarray(is_ignored, dtype=bool)


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
        iou_threshold: See ``assignment.assign``.
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
