"""All that the page tells of the detections on one dataset, computed from labels and detections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, labels_to_find, of_class
from d2pd.evaluation.bootstrap import intervals
from d2pd.evaluation.comparison import with_images
from d2pd.evaluation.confusion import confusion_matrix
from d2pd.evaluation.error_analysis import find_errors
from d2pd.evaluation.error_cases import ErrorCase
from d2pd.evaluation.error_counts import ErrorCount, count_errors
from d2pd.evaluation.miss_rate import RULES, MissRate, differences, miss_rates
from d2pd.evaluation.operating_points import OperatingCurve, curve
from d2pd.evaluation.subsets import ALL, Protocol, Split

MOST_CLASSES = 10
"""Curves of more classes could not be told apart: those with the most labels are drawn."""


NO_THRESHOLD = 0.5
"""What errors are counted at where no score threshold is better than another."""


@dataclass(frozen=True)
class Evaluated:
    """Labels and detections of one dataset, and how they are to be judged.

    Attributes:
        name: Of the dataset.
        labels: As the file has them.
        detections: Down to a score near 0.
        precision: COCO metric -> 0..100 or NaN.
        reasons: Metric -> why it is NaN.
        protocol: Subsets of the miss rate; None where the data have none.
        mode: ``strict`` or ``compat``: the rules of the miss rate.
        iou_threshold: From which a detection finds a label.
        warnings: What is to be known of the labels.
    """

    name: str
    labels: LabelArrays
    detections: DetectionArrays
    precision: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    protocol: Protocol | None = None
    mode: str = "strict"
    iou_threshold: float = 0.5
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Rates:
    """Miss rates by subset, such as ``reasonable/all``; empty without a protocol.

    Attributes:
        own: By the rules of the mode.
        other: By those of the other mode.
        differences: Why the two differ, where they do.
        intervals: Low and high end of the first setting's, in percent.
    """

    own: dict[str, MissRate]
    other: dict[str, MissRate]
    differences: dict[str, str]
    intervals: dict[str, tuple[float, float]]

    def main_subsets(self) -> list[str]:
        """Return the subsets of the first setting, which in KAIST is ``reasonable``."""
        main = next((name.split("/")[-2] for name in self.own), "")
        return [name for name in self.own if name.split("/")[-2] == main]


@dataclass(frozen=True)
class Measured:
    """What ``measure`` found.

    Attributes:
        rates: Miss rates.
        curves: Class index -> precision, recall and F1 over scores.
        score_threshold: Where F1 is best; what errors and confusion are counted at.
        confusion: (K + 1, K + 1), rows labels, columns detections, background last.
        cases: All errors.
        counts: Of the errors.
    """

    rates: Rates
    curves: Mapping[int, OperatingCurve]
    score_threshold: float
    confusion: np.ndarray
    cases: Sequence[ErrorCase]
    counts: Sequence[ErrorCount]


def measure(given: Evaluated) -> Measured:
    """Compute all that the page tells of a dataset."""
    labels, detections, iou = given.labels, given.detections, given.iou_threshold
    curves = {
        index: curve(labels, detections, index, iou_threshold=iou) for index in _classes(labels)
    }
    threshold = common_threshold(list(curves.values()))
    cases = find_errors(labels, detections, score_threshold=threshold, iou_threshold=iou)
    return Measured(
        rates=_miss_rates(given),
        curves=curves,
        score_threshold=threshold,
        confusion=confusion_matrix(
            labels, detections, score_threshold=threshold, iou_threshold=iou
        ),
        cases=cases,
        counts=count_errors(cases, labels, splits_of(given)),
    )


def splits_of(given: Evaluated) -> tuple[Split, ...]:
    """Return the splits of a dataset; every image where it has none."""
    return given.protocol.splits if given.protocol else (Split(ALL),)


def other_mode(mode: str) -> str:
    """Return the other one of ``strict`` and ``compat``."""
    return next(name for name in RULES if name != mode)


def common_threshold(curves: Sequence[OperatingCurve]) -> float:
    """Return the score at which the mean F1 of all classes is best.

    The scores where one class has its own best F1 are compared; the highest of equals is taken.

    Returns:
        The score; ``NO_THRESHOLD`` where no class has both labels and detections on them.
    """
    found = [(one, best) for one in curves if (best := one.best_f1()) is not None]
    return max(
        (best.score for _, best in found),
        key=lambda score: (sum(_f1_at(one, score) for one, _ in found), score),
        default=NO_THRESHOLD,
    )


def _f1_at(one: OperatingCurve, score: float) -> float:
    """Return F1 where detections of at least that score count."""
    point = one.at_score(score)
    return point.f1 if point else 0.0


def _classes(labels: LabelArrays) -> list[int]:
    """Return the classes to draw, those with the most labels, in their order."""
    counts = np.bincount(labels.classes[labels_to_find(labels)], minlength=len(labels.class_names))
    return sorted(np.argsort(-counts, kind="stable")[:MOST_CLASSES].tolist())


def _miss_rates(given: Evaluated) -> Rates:
    """Measure the subsets that have images; names begin with the class where there are several."""
    found = Rates({}, {}, {}, {})
    if given.protocol is None:
        return found
    rules, other = RULES[given.mode], RULES[other_mode(given.mode)]
    protocol = with_images(given.labels, given.protocol)
    first = replace(protocol, settings=protocol.settings[:1])
    for index, class_name in enumerate(given.labels.class_names):
        prefix = f"{class_name}/" if len(given.labels.class_names) > 1 else ""
        labels, detections = of_class(given.labels, given.detections, index)
        arguments = (labels, detections, protocol)
        own = miss_rates(*arguments, rules, given.iou_threshold)
        found.own.update({prefix + name: one for name, one in own.items()})
        others = miss_rates(*arguments, other, given.iou_threshold)
        found.other.update({prefix + name: one for name, one in others.items()})
        why = differences(*arguments, given.iou_threshold)
        found.differences.update({prefix + name: words for name, words in why.items()})
        ends = intervals(labels, detections, first, rules, given.iou_threshold)
        found.intervals.update({prefix + name: pair for name, pair in ends.items()})
    return found
