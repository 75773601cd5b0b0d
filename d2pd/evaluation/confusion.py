"""Which class is taken for which: labels against detections, with the background as a class.

1. Each class is matched on its own, by the rules of the miss rate: by descending score, a
   detection takes the free label of its class with the largest IoU, at the threshold at
   least. These are the diagonal: a label goes to a detection of its own class even if one of
   another class has a higher score.
2. Detections left over that lie in a region to ignore, with at least that part of their area,
   are not counted at all. A region with a class excuses that class; one without, every class.
3. The detections that are left take labels that are left, of any class, by the same rules: one
   class taken for another.
4. What is still left is a detection of background, or a label that was not found.
"""

import numpy as np

from d2pd.evaluation.arrays import (
    DetectionArrays,
    LabelArrays,
    detections_where,
    labels_to_find,
    labels_where,
    scored_from,
)
from d2pd.evaluation.assignment import FALSE_POSITIVE, TRUE_POSITIVE, assign, assign_each_class

BACKGROUND = "background"
"""Name of the last row, detections on nothing, and of the last column, labels not found."""


def confusion_matrix(
    labels: LabelArrays,
    detections: DetectionArrays,
    *,
    score_threshold: float,
    iou_threshold: float = 0.5,
    is_ignored: np.ndarray | None = None,
) -> np.ndarray:
    """Count which class labels have and which class they are detected as; see the module.

    A row sums up to the labels of its class that are to be found, a column to the detections of
    its class that count, and precision and recall from them are those of
    ``operating_points.curve`` at that threshold.

    Args:
        labels: Of K classes.
        detections: On the same images.
        score_threshold: Detections from this score on are shown.
        iou_threshold: In (0, 1], for labels and regions.
        is_ignored: (G,) bool, labels that are regions to ignore beside those of the file; see
            ``arrays.labels_to_find``.

    Returns:
        (K+1, K+1) int64. Rows: class of the label, background last; columns: class of the
        detection, background last. The last row's last cell is 0: nothing found where nothing is.

    Raises:
        ConfigError: If a threshold cannot be used.
        ValueError: If ``is_ignored`` does not fit the labels.
    """
    background = len(labels.class_names)
    is_wanted = labels_to_find(labels, is_ignored)
    shown = detections_where(detections, scored_from(detections, score_threshold))
    own = assign_each_class(labels, shown, ~is_wanted, iou_threshold)
    is_found = own.outcome == TRUE_POSITIVE
    is_missed = is_wanted.copy()
    is_missed[own.label[is_found]] = False
    left_labels = labels_where(labels, is_missed)
    left = detections_where(shown, own.outcome == FALSE_POSITIVE)
    other = assign(left_labels, left, np.zeros(len(left_labels.classes), dtype=bool), iou_threshold)
    is_confused = other.outcome == TRUE_POSITIVE
    taken = other.label[is_confused]
    matrix = np.zeros((background + 1, background + 1), dtype=np.int64)
    np.add.at(matrix, (shown.classes[is_found], shown.classes[is_found]), 1)
    np.add.at(matrix, (left_labels.classes[taken], left.classes[is_confused]), 1)
    on_nothing, not_found = left.classes[~is_confused], np.delete(left_labels.classes, taken)
    matrix[background, :-1] = np.bincount(on_nothing, minlength=background)
    matrix[:-1, background] = np.bincount(not_found, minlength=background)
    return matrix
