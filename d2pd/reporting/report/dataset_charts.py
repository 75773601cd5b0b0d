"""Charts of what was detected on one dataset: miss rate, precision, recall and F1."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from d2pd.evaluation.operating_points import OperatingCurve
from d2pd.reporting.report.chart import Chart, Line, Point
from d2pd.reporting.report.measured import Evaluated, Measured
from d2pd.reporting.report.metric_tables import number

MOST_LINES = 9
MOST_POINTS = 400
UNIT = (0.0, 1.0)
NO_LABELS = "No label to find, so there is nothing to measure against."
MISS_ENDS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
FPPI_ENDS = (0.003, 10.0)


def dataset_charts(given: Evaluated, found: Measured) -> list[Chart]:
    """Make the charts; none where nothing was detected."""
    if not given.detections.scores.size:
        return []
    names = given.labels.class_names
    curves = {names[index]: one.thinned(MOST_POINTS) for index, one in found.curves.items()}
    lines = [
        _starred(name, style, one, ("recall", "precision"))
        for style, (name, one) in enumerate(curves.items())
    ]
    recall = Chart("Precision over recall", "recall", lines, NO_LABELS, x_range=UNIT, y_range=UNIT)
    return [_miss_rate_chart(given, found), recall, _score_chart(curves, found.score_threshold)]


def _score_chart(curves: Mapping[str, OperatingCurve], score_threshold: float) -> Chart:
    """Draw F1 over the score; of a single class precision and recall too."""
    lines = [
        _starred(name, style, one, ("score", "f1"))
        for style, (name, one) in enumerate(curves.items())
    ]
    title = "F1 over the score threshold"
    if len(curves) == 1:
        one = next(iter(curves.values()))
        lines = [
            replace(lines[0], name="F1"),
            Line("precision", _points(one.scores, one.precision), 1),
            Line("recall", _points(one.scores, one.recall), 2),
        ]
        title = "Precision, recall and F1 over the score threshold"
    marks = [(score_threshold, f"errors are counted at {score_threshold:.3g}")]
    return Chart(
        title, "score threshold", lines, NO_LABELS, x_range=UNIT, y_range=UNIT, marks=marks
    )


def _starred(name: str, style: int, curve: OperatingCurve, axes: tuple[str, str]) -> Line:
    """Draw one value of a curve over another, with a star at the best F1."""
    x, y = (curve.scores if axis == "score" else getattr(curve, axis) for axis in axes)
    best = curve.best_f1()
    if best is None:
        return Line(name, _points(x, y), style)
    star = (getattr(best, axes[0]), getattr(best, axes[1]))
    note = f"best F1 {best.f1:.3f} at score {best.score:.3g}"
    return Line(name, _points(x, y), style, note=note, star=star)


def _points(x: np.ndarray, y: np.ndarray) -> list[Point]:
    """Return points with x ascending."""
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    return points if points[:1] <= points[-1:] else points[::-1]


def _miss_rate_chart(given: Evaluated, found: Measured) -> Chart:
    lines = _miss_rate_lines(given, found)
    misses = [y for line in lines for x, y in line.points if y > 0 and FPPI_ENDS[0] <= x]
    lowest = min(misses, default=1.0)
    return Chart(
        "Miss rate over false positives per image (log-log)",
        "false positives per image",
        [_from(line, FPPI_ENDS[0]) for line in lines],
        absent=NO_LABELS,
        is_x_log=True,
        is_y_log=True,
        x_range=FPPI_ENDS,
        y_range=(next((end for end in MISS_ENDS if end < lowest), MISS_ENDS[-1]), 1.0),
        marks=((0.01, ""), (1.0, "")),
        note=(
            "The log-average miss rate is read at nine points between the dotted lines."
            if found.rates.own
            else "All labels of all images: these data have no subsets of the miss rate."
        ),
    )


def _miss_rate_lines(given: Evaluated, found: Measured) -> list[Line]:
    if not found.rates.own:
        names = given.labels.class_names
        return [
            Line(names[index], _points(one.fppi, 1 - one.recall), style, is_stepped=True)
            for style, (index, one) in enumerate(found.curves.items())
        ]
    return [
        Line(
            name,
            _points(found.rates.own[name].fppi, found.rates.own[name].miss),
            style,
            is_stepped=True,
            note=f"MR {number(found.rates.own[name].value)} %",
        )
        for style, name in enumerate(found.rates.main_subsets()[:MOST_LINES])
    ]


def _from(line: Line, start: float) -> Line:
    """Begin a stepped line at the left end of the axis, with the value that holds there."""
    before = [y for x, y in line.points if x <= start]
    points = [(x, y) for x, y in line.points if x > start]
    first = [(start, before[-1] if before else 1.0)] if line.points else []
    return Line(
        line.name, [*first, *points], line.style, line.dash, is_stepped=True, note=line.note
    )
