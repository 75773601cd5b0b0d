"""Precision, recall and F1 of a class over all score thresholds, and the thresholds to work at."""

import math
from dataclasses import dataclass

import numpy as np

from d2pd.errors import ConfigError
from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, labels_to_find, of_class
from d2pd.evaluation.assignment import FALSE_POSITIVE, TRUE_POSITIVE, assign


@dataclass(frozen=True)
class OperatingPoint:
    """What a detector does where only detections of a score of at least ``score`` count.

    Attributes:
        score: The threshold.
        precision: Share of the counted detections that are right, 0..1.
        recall: Share of the labels that are found, 0..1; NaN without labels.
        f1: Harmonic mean of the two; NaN without labels.
        fppi: False positives an image.
    """

    score: float
    precision: float
    recall: float
    f1: float
    fppi: float


@dataclass(frozen=True)
class OperatingCurve:
    """A class over all thresholds that change something: P points, the highest threshold first.

    Attributes:
        scores: (P,) the thresholds, each once, descending.
        precision: (P,) as in ``OperatingPoint``, and so are the others.
        recall: (P,) ascending.
        f1: (P,).
        fppi: (P,) ascending.
        num_labels: Labels to find.
        num_images: Images, with and without labels.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    fppi: np.ndarray
    num_labels: int
    num_images: int

    def best_f1(self) -> OperatingPoint | None:
        """Return the point of the largest F1; of several, that of the highest threshold.

        Returns:
            The point, or None if there is no label or none is found at any threshold.
        """
        if not self.num_labels or not self.f1.any():
            return None
        return self._point(int(np.argmax(self.f1)))

    def at_fppi(self, fppi: float) -> OperatingPoint | None:
        """Return the point of the lowest threshold with at most so many false positives an image.

        Returns:
            The point, or None if even the highest threshold has more, or nothing is detected.

        Raises:
            ConfigError: If ``fppi`` is negative or NaN.
        """
        if not fppi >= 0:
            raise ConfigError(f"false positives an image must be 0 or more, got {fppi}")
        num_within = int(np.searchsorted(self.fppi, fppi, side="right"))
        return self._point(num_within - 1) if num_within else None

    def at_score(self, score: float) -> OperatingPoint | None:
        """Return the point where detections of at least that score count.

        Returns:
            The point, its ``score`` the least that counts there; None if none has that much.
        """
        num_within = int(np.searchsorted(-self.scores, -score, side="right"))
        return self._point(num_within - 1) if num_within else None

    def thinned(self, max_points: int) -> "OperatingCurve":
        """Keep so many points at most, for a drawing: dense where the curves change.

        The first, the last and the best point by F1 stay.

        Raises:
            ValueError: If ``max_points`` is under 3.
        """
        if max_points < 3:
            raise ValueError(f"max_points must be 3 or more, got {max_points}")
        count = len(self.scores)
        if count <= max_points:
            return self
        curves = np.nan_to_num(np.stack([self.precision, self.recall, self.f1]))
        length = np.abs(np.diff(curves, axis=1)).sum(axis=0) + 1 / count
        along = np.concatenate([[0.0], np.cumsum(length)])
        even = np.searchsorted(along, np.linspace(0, along[-1], max_points - 1))
        kept = np.union1d(np.minimum(even, count - 1), [0, np.argmax(curves[2])])
        return OperatingCurve(
            self.scores[kept],
            self.precision[kept],
            self.recall[kept],
            self.f1[kept],
            self.fppi[kept],
            self.num_labels,
            self.num_images,
        )

    def _point(self, index: int) -> OperatingPoint:
        return OperatingPoint(
            score=float(self.scores[index]),
            precision=float(self.precision[index]),
            recall=float(self.recall[index]),
            f1=float(self.f1[index]),
            fppi=float(self.fppi[index]),
        )


def curve(
    labels: LabelArrays,
    detections: DetectionArrays,
    class_index: int,
    iou_threshold: float = 0.5,
    is_ignored: np.ndarray | None = None,
) -> OperatingCurve:
    """Compute precision, recall, F1 and false positives an image of a class over all thresholds.

    Detections are matched as for the miss rate, see ``assignment.assign``. Those that a region to
    ignore absorbs, and those past the first 1,000 of an image, are not counted.

    Args:
        labels: Of K classes.
        detections: On the same images.
        class_index: 0..K-1.
        iou_threshold: In (0, 1].
        is_ignored: (G,) bool, labels that are regions to ignore beside those of the file, such as
            ``subsets.ignored`` of a setting.

    Raises:
        ConfigError: If the IoU threshold is out of range.
        ValueError: If there is no such class, or ``is_ignored`` does not fit the labels.
    """
    is_wanted = labels_to_find(labels, is_ignored)
    is_own = (labels.classes == class_index) | (labels.classes < 0)
    own_labels, own = of_class(labels, detections, class_index)
    outcome = assign(own_labels, own, ~is_wanted[is_own], iou_threshold).outcome
    is_counted = (outcome == TRUE_POSITIVE) | (outcome == FALSE_POSITIVE)
    order = np.argsort(-own.scores[is_counted], kind="stable")
    scores = own.scores[is_counted][order]
    is_right = outcome[is_counted][order] == TRUE_POSITIVE
    # A threshold lets in every detection of its score: only the last of a tie is a point.
    ends = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if scores.size else order
    num_right, num_counted = np.cumsum(is_right)[ends], ends + 1
    num_labels, num_images = int(is_wanted[is_own].sum()), len(labels.image_ids)
    per_label = num_labels if num_labels else math.nan
    return OperatingCurve(
        scores=scores[ends],
        precision=num_right / num_counted,
        recall=num_right / per_label,
        f1=2 * num_right / (num_counted + per_label),
        fppi=(num_counted - num_right) / max(num_images, 1),
        num_labels=num_labels,
        num_images=num_images,
    )
