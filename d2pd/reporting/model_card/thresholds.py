"""The section on the score threshold: where F1 is best, and what it gives on other images."""

from collections.abc import Iterator, Sequence

from d2pd.d2 import CfgNode
from d2pd.evaluation.operating_points import OperatingPoint
from d2pd.modeling.build import score_floor_of
from d2pd.reporting.model_card.markdown import code, rounded_down, table
from d2pd.reporting.model_card.tested_set import TEST, TestedSet
from d2pd.reporting.report.measured import MOST_CLASSES, Evaluated, Measured
from d2pd.reporting.report.metric_tables import NOT_COMPUTED, number

WANTED_FPPI = 0.1
HEAD = ("class", "threshold for", "score", "on", "precision", "recall", "F1", "FPPI")


def deciding_set(tests: Sequence[TestedSet]) -> TestedSet | None:
    """Return the set that thresholds are chosen on: one of ``DATASETS.TEST`` where there is any.

    A set that is to be looked at once, at the end, is the last to choose anything by.
    """
    measured = [one for one in tests if one.found is not None and _has_point(one.found)]
    return next((one for one in measured if one.role == TEST), next(iter(measured), None))


def common_score(one: TestedSet) -> float | None:
    """Return the score to work at, where a threshold can be chosen on a set."""
    return one.found.score_threshold if one.found is not None else None


def threshold_lines(cfg: CfgNode, tests: Sequence[TestedSet]) -> Iterator[str]:
    """Yield the section's lines, without its heading.

    Args:
        cfg: Of the training.
        tests: All sets that it was tested on.
    """
    chosen = deciding_set(tests)
    if chosen is None or chosen.found is None or chosen.given is None:
        yield "Not measured: that takes labels, and detections that find some of them."
    else:
        others = [one for one in tests if one is not chosen]
        yield from table([HEAD, *_rows(chosen.given, chosen.found, others)])
        yield (
            f"Detections from the score on count; IoU {chosen.given.iou_threshold:g} with a label "
            "makes one right. FPPI: false positives per image. A score chosen on a set looks a "
            "little better there than elsewhere."
        )
        if len(chosen.given.labels.class_names) > MOST_CLASSES:
            yield f"The {MOST_CLASSES} classes with the most labels are shown."
        if len(chosen.found.curves) > 1:
            yield (
                "The one score for all classes, where the mean of their F1 is best: "
                f"{rounded_down(chosen.found.score_threshold)}."
            )
    key, floor = score_floor_of(cfg)
    yield from (
        "",
        f"Under a score of {floor:g} ({code(key)}) nothing comes out, and at most "
        f"{cfg.TEST.DETECTIONS_PER_IMAGE} detections of an image do.",
        "",
    )


def _has_point(found: Measured) -> bool:
    return any(curve.best_f1() is not None for curve in found.curves.values())


def _rows(
    given: Evaluated, found: Measured, others: Sequence[TestedSet]
) -> Iterator[Sequence[str]]:
    for index, curve in found.curves.items():
        name, best = given.labels.class_names[index], curve.best_f1()
        yield _row(name, "best F1", given.name, best)
        for other in others:
            if best is not None and other.given is not None and other.found is not None:
                yield from _again(name, best, other.given, other.found)
        yield _row(name, f"FPPI {WANTED_FPPI:g}", given.name, curve.at_fppi(WANTED_FPPI))


def _again(
    name: str, best: OperatingPoint, given: Evaluated, found: Measured
) -> Iterator[Sequence[str]]:
    """Yield what a score gives on another set, where that has the class."""
    names = given.labels.class_names
    curve = found.curves.get(names.index(name)) if name in names else None
    if curve is not None:
        point = curve.at_score(best.score)
        yield _row(name, "the same", given.name, point, rounded_down(best.score))


def _row(
    name: str, purpose: str, where: str, point: OperatingPoint | None, score: str = ""
) -> Sequence[str]:
    if point is None:
        return (code(name), purpose, score or NOT_COMPUTED, code(where), *[NOT_COMPUTED] * 4)
    values = (point.precision, point.recall, point.f1, point.fppi)
    numbers = (number(value, 3) for value in values)
    return (code(name), purpose, score or rounded_down(point.score), code(where), *numbers)
