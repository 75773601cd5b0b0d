"""Log-average miss rate of detections, by the rules of published tables or of a common script.

``STRICT`` is the MATLAB tool that published tables come from, ``COMPAT`` a Python script in wide
use. Both judge one class: see ``of_class``.

Detections of one score within an image are ordered by their box (``detection_arrays``), whatever
the order of the lines. At IoU .5 the published numbers come out all the same; at IoU .75 MSDS-RCNN
on KAIST reads 70.59 / 67.33 / 79.25 (Reasonable, all / day / night), and 70.57 / 67.36 / 79.25 if
ties keep the order of its file.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from d2pd.evaluation.arrays import DetectionArrays, LabelArrays
from d2pd.evaluation.subsets import Protocol
from d2pd.evaluation.tally import Rules, Tally, log_average, misses, tallies

STRICT = Rules()
COMPAT = Rules(
    counts_empty_images=False,
    rounds_references=True,
    takes_final_recall_where_none=True,
    clamps=False,
)
RULES = {"strict": STRICT, "compat": COMPAT}


@dataclass(frozen=True)
class MissRate:
    """The miss rate of one subset and its curve.

    The curve has P corners of a step: right of a corner the miss stays until the next one, and
    left of the first it is 1. Points between, which change nothing but the FPPI, are left out;
    the last point is always there.

    Attributes:
        value: Log-average miss rate in percent, 0..100; 100 without detections; NaN if the
            subset has no label to find.
        recall: Labels that any detection finds, in percent of those to find; NaN likewise.
        num_labels: To be found.
        num_images: Of the split.
        fppi: (P,) false positives per image, ascending.
        miss: (P,) labels not found at that FPPI, 0..1, descending; NaN like ``value``.
        scores: (P,) of the last detection that counts at that FPPI.
        at_references: (9,) miss in percent at 0.01 ... 1 false positives per image.
    """

    value: float
    recall: float
    num_labels: int
    num_images: int
    fppi: np.ndarray
    miss: np.ndarray
    scores: np.ndarray
    at_references: np.ndarray


def miss_rates(
    labels: LabelArrays,
    detections: DetectionArrays,
    protocol: Protocol,
    rules: Rules = STRICT,
    iou_threshold: float = 0.5,
) -> dict[str, MissRate]:
    """Compute the miss rate of every subset; classes are not looked at.

    Args:
        labels: G labels of one class, and regions to ignore; see ``of_class``.
        detections: D detections of that class, at most the best 1,000 of an image count.
        protocol: The subsets.
        rules: ``STRICT``, ``COMPAT`` or any mixture.
        iou_threshold: In (0, 1], from which a label is found and a region absorbs.

    Returns:
        ``setting/split``, such as ``reasonable/all`` -> miss rate, in the order of the protocol.

    Raises:
        ConfigError: If the threshold is outside (0, 1].

    Source: Dollar et al., Pedestrian Detection, PAMI 2012, section 3; Hwang et al., CVPR 2015.
    """
    found = tallies(labels, detections, protocol, iou_threshold)
    return {name: miss_rate(tally, rules) for name, tally in found}


def miss_rate(tally: Tally, rules: Rules = STRICT) -> MissRate:
    """Compute the miss rate of what a subset counts."""
    num_labels = int(tally.num_labels_by(rules).sum())
    at_references = _misses(tally, rules)
    fppi, true, scores = _corners(tally)
    # Compat may count none of the labels that are there: nothing is found, which is a number.
    to_find = max(num_labels, 1) if tally.num_labels.any() else np.nan
    return MissRate(
        value=float(log_average(at_references[None], rules)[0]),
        recall=100 * float(np.count_nonzero(tally.is_true) / to_find),
        num_labels=num_labels,
        num_images=tally.num_labels.size,
        fppi=fppi,
        miss=1 - true / to_find,
        scores=scores,
        at_references=100 * at_references,
    )


def differences(
    labels: LabelArrays,
    detections: DetectionArrays,
    protocol: Protocol,
    iou_threshold: float = 0.5,
) -> dict[str, str]:
    """Find why compat and strict differ, by switching the rules one by one.

    Returns:
        ``setting/split`` -> what each rule changes by itself, in points; for the subsets of which
        the two modes do not print the same two decimals.

    Raises:
        ConfigError: If the threshold is outside (0, 1].
    """
    found = tallies(labels, detections, protocol, iou_threshold)
    reasons = {name: explain_difference(tally) for name, tally in found}
    return {name: reason for name, reason in reasons.items() if reason}


def explain_difference(tally: Tally) -> str:
    """Say why compat and strict differ on what a subset counts, as ``differences``; "" if not."""
    strict, compat = (_value(tally, rules) for rules in (STRICT, COMPAT))
    if f"{strict:.2f}" == f"{compat:.2f}":
        return ""
    effects = {}
    for field in fields(Rules):
        switched = replace(STRICT, **{field.name: getattr(COMPAT, field.name)})
        effects[field.name] = _value(tally, switched) - strict
    visible = [name for name, effect in effects.items() if abs(effect) >= 0.005]
    named = visible or [name for name, effect in effects.items() if effect]
    reasons = [f"{WORDS[name](tally)} ({effects[name]:+.2f} by itself)" for name in named]
    words = "; ".join(reasons) or "its rules, none of which changes anything by itself"
    return f"compat {compat:.2f}, strict {strict:.2f}: compat {words}"


def _lost_labels(tally: Tally) -> str:
    lost = tally.num_labels[~tally.has_detections]
    return (
        f"does not count {lost.sum()} of {tally.num_labels.sum()} labels, those on images without "
        f"any detection (images: {np.count_nonzero(lost)})"
    )


def _missing_points(tally: Tally) -> str:
    differs = _misses(tally, STRICT) != _misses(tally, Rules(takes_final_recall_where_none=True))
    return (
        f"takes the recall of the whole curve at {np.count_nonzero(differs)} of {differs.size} "
        "references, where the curve has no point yet"
    )


def _zero_misses(tally: Tally) -> str:
    at_references = _misses(tally, STRICT)
    return (
        f"takes the miss of 0 at {np.count_nonzero(at_references == 0)} of {at_references.size} "
        "references as it is, which makes the whole 0"
    )


WORDS: dict[str, Callable[[Tally], str]] = {
    "counts_empty_images": _lost_labels,
    "rounds_references": lambda _: "rounds the references to four decimals",
    "takes_final_recall_where_none": _missing_points,
    "clamps": _zero_misses,
}
"""What compat does, for each rule in which it differs."""


def _value(tally: Tally, rules: Rules) -> float:
    return float(log_average(_misses(tally, rules)[None], rules)[0])


def _misses(tally: Tally, rules: Rules) -> np.ndarray:
    """Return (9,) the misses in 0..1 with every image counted once."""
    num_images = tally.num_labels.size
    if not num_images:
        return np.full(rules.references.size, np.nan)
    return misses(tally, np.ones((1, num_images), dtype=np.int64), rules)[0]


def _corners(tally: Tally) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return FPPI, labels found and score where a run of true positives ends, and at the end."""
    is_corner = tally.is_true & ~np.append(tally.is_true[1:], False)
    is_corner[-1:] = True
    corner = np.flatnonzero(is_corner)
    true = np.cumsum(tally.is_true)[corner]
    return (corner + 1 - true) / max(tally.num_labels.size, 1), true, tally.scores[corner]
