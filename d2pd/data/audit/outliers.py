"""Boxes whose area or aspect ratio is far from that of their class."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from d2pd.data.audit.box_rules import box_finding, sound_boxes
from d2pd.data.audit.findings import Finding
from d2pd.data.label_table.table import LabelTable

FEWEST_BOXES = 30
"""Boxes of a class from which its spread is taken for known."""

QUARTILES_APART = 1.349
"""Standard deviations between the quartiles of a normal distribution."""


@dataclass(frozen=True)
class Measure:
    """One number of each box, and how far from its class's median it may lie.

    Attributes:
        name: As messages call it.
        most_deviations: Robust standard deviations of its logarithm from the median.
        least_factor: How many times the median, or what fraction of it, it must be besides:
            where all boxes of a class are alike, small differences are many deviations.
    """

    name: str
    most_deviations: float
    least_factor: float


MEASURES = {
    "outlier_area": Measure("area", 5.0, 4.0),
    "outlier_aspect": Measure("width / height", 8.0, 2.5),
}
"""By rule. People lie, sit and are cut off, so the aspect ratio may vary more than the area."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """One number of one box, far from its class.

    Attributes:
        rule: ``outlier_area`` or ``outlier_aspect``.
        index: Of the box in the table.
        value: Area in square pixels, or width / height.
        median: Of the class.
        deviations: Robust standard deviations between the logarithms of the two; infinite where
            half the boxes of the class or more have one value.
    """

    rule: str
    index: int
    value: float
    median: float
    deviations: float


def find_outliers(table: LabelTable) -> Iterator[Finding]:
    """Find boxes of an area or aspect ratio far from those of their class."""
    for outlier in measure_outliers(table):
        measure = MEASURES[outlier.rule]
        message = (
            f"{measure.name} {outlier.value:.4g}, the median of its class is {outlier.median:.4g}: "
            f"{outlier.deviations:.1f} robust standard deviations apart"
        )
        yield box_finding(table, outlier.rule, outlier.index, message)


def measure_outliers(table: LabelTable) -> list[Outlier]:
    """Return the outliers of both rules, in the order of the boxes within each rule.

    Regions, boxes of unknown class and boxes that are not finite or have no area are left out.

    Args:
        table: The labels.

    Source: the quartiles in place of mean and deviation, which outliers themselves move: Tukey,
        Exploratory Data Analysis, 1977.
    """
    boxes = table.boxes_xyxy
    is_object = sound_boxes(boxes) & ~table.is_region & (table.categories >= 0)
    log_width, log_height = (np.full(len(boxes), np.nan) for _ in range(2))
    log_width[is_object] = np.log(boxes[is_object, 2] - boxes[is_object, 0])
    log_height[is_object] = np.log(boxes[is_object, 3] - boxes[is_object, 1])
    members = _by_class(table.categories, np.flatnonzero(is_object))
    numbers = {"outlier_area": log_width + log_height, "outlier_aspect": log_width - log_height}
    found: list[Outlier] = []
    for rule, logs in numbers.items():
        of_rule = [outlier for of_class in members for outlier in _outliers(rule, logs, of_class)]
        found += sorted(of_rule, key=lambda outlier: outlier.index)
    return found


def _by_class(categories: np.ndarray, indices: np.ndarray) -> list[np.ndarray]:
    """Divide (M,) indices of boxes by their class, each part ascending."""
    ordered = indices[np.argsort(categories[indices], kind="stable")]
    return np.split(ordered, np.flatnonzero(np.diff(categories[ordered])) + 1)


def _outliers(rule: str, logs: np.ndarray, members: np.ndarray) -> Iterator[Outlier]:
    """Give the outliers among the boxes of one class, by their (M,) indices."""
    if len(members) < FEWEST_BOXES:
        return
    measure = MEASURES[rule]
    lower, median, upper = np.quantile(logs[members], (0.25, 0.5, 0.75))
    distance = np.abs(logs[members] - median)
    spread = (upper - lower) / QUARTILES_APART
    is_far = distance > measure.most_deviations * spread
    is_far &= distance >= np.log(measure.least_factor)
    for index, far in zip(members[is_far].tolist(), distance[is_far].tolist(), strict=True):
        deviations = far / float(spread) if spread > 0 else float("inf")
        yield Outlier(rule, index, float(np.exp(logs[index])), float(np.exp(median)), deviations)
