"""The part of the page about one dataset: its numbers in words, tables and charts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from d2pd.evaluation.error_cases import REASONS
from d2pd.evaluation.error_counts import ANY_REASON
from d2pd.evaluation.operating_points import OperatingCurve
from d2pd.reporting.report.chart import Chart, Line, Point
from d2pd.reporting.report.content import DatasetPart, Figure, Table
from d2pd.reporting.report.measured import Evaluated, Measured, other_mode

NOT_COMPUTED = "–"
MOST_LINES = 9
INTERVAL_WORDS = "In round brackets: 95 % interval over images drawn again."
MOST_FIGURES = 4
MOST_POINTS = 400
UNIT = (0.0, 1.0)
NO_LABELS = "No label to find, so there is nothing to measure against."
ALL_IMAGES = ("split", "all")
INSIDE = "inside"
"""The band of what is not at the border: the total tells it."""
KIND_WORDS = {
    "miss": "Misses",
    "false positive": "False positives",
    "not counted": "Detections that do not count",
}
OCCLUSION_WORDS = {
    "none": "not occluded",
    "partial": "partly occluded",
    "heavy": "heavily occluded",
    "not stated": "occlusion not stated",
}
MISS_ENDS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
WANTED_FPPI = (0.01, 0.1, 1.0)
FPPI_ENDS = (0.003, 10.0)
PRECISION_WORDS = {
    "AP": "mean over IoU .50 to .95",
    "AP50": "IoU .50",
    "AP75": "IoU .75",
    "APs": "under 32² px",
    "APm": "32² to 96² px",
    "APl": "over 96² px",
}


def describe(given: Evaluated, found: Measured) -> DatasetPart:
    """Lay out what was measured; cards are added by whoever draws them."""
    labels = given.labels
    is_object = ~labels.is_ignore & (labels.classes >= 0)
    counts = np.bincount(labels.classes[is_object], minlength=len(labels.class_names))
    objects = ", ".join(f"{n:,} {name}" for name, n in zip(labels.class_names, counts, strict=True))
    regions = int(np.count_nonzero(~is_object))
    part = DatasetPart(
        name=given.name,
        summary=(
            f"{len(labels.image_ids):,} images; labels to find: {objects}; {regions:,} regions to "
            f"ignore; {len(given.detections.scores):,} detections of the last evaluation."
        ),
        absent=list(_absent(given, found)),
        figures=list(_figures(given, found)),
        charts=_charts(given, found),
        tables=_tables(given, found),
    )
    part.confusion = _confusion(given, found)
    part.error_tables = [_error_table(found, kind) for kind in REASONS]
    part.errors_note = (
        f"Counted at score {found.score_threshold:.3g}, where "
        f"{'F1' if len(labels.class_names) == 1 else 'the mean F1 of the classes'} is best, and "
        f"IoU {given.iou_threshold:g}. Every label counts that its file does not flag as to be "
        "ignored, small and occluded ones too."
    )
    return part


def _absent(given: Evaluated, found: Measured) -> Iterator[str]:
    yield from given.warnings
    for metric, reason in given.reasons.items():
        yield f"{metric} cannot be computed: {reason}."
    if given.protocol is None:
        yield (
            "No log-average miss rate: it needs subsets, which KAIST data have by themselves; for "
            "other data define them in the configuration (MISS_RATE.SETTINGS)."
        )
    empty = [name for name, rate in found.rates.own.items() if math.isnan(rate.value)]
    if empty:
        yield f"No miss rate for {', '.join(empty)}: no label to find there."
    if not given.detections.scores.size:
        yield (
            "Not a single detection: the model is not trained yet, or "
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST is too high."
        )


def _figures(given: Evaluated, found: Measured) -> Iterator[Figure]:
    for metric in ("AP", "AP50"):
        if metric in given.precision:
            yield Figure(metric, number(given.precision[metric]), PRECISION_WORDS[metric])
    for name in main_subsets(found)[:6]:
        detail = f"%, {given.mode}; lower is better"
        if interval(found, name):
            detail += f"; 95 % interval {interval(found, name)}"
        yield Figure(f"MR {name}", number(found.rates.own[name].value), detail)
    for index, curve in list(found.curves.items())[:MOST_FIGURES]:
        best = curve.best_f1()
        if best is not None:
            name = given.labels.class_names[index]
            yield Figure(f"Best F1, {name}", f"{best.f1:.3f}", f"at score {best.score:.3g}")


def main_subsets(found: Measured) -> list[str]:
    """Return the subsets of the first setting, which in KAIST is ``reasonable``."""
    main = next((name.split("/")[-2] for name in found.rates.own), "")
    return [name for name in found.rates.own if name.split("/")[-2] == main]


def interval(found: Measured, name: str) -> str:
    """Write the interval of a subset; nothing where there is none."""
    low, high = found.rates.intervals.get(name, (math.nan, math.nan))
    return "" if math.isnan(low) else f"{low:.2f} to {high:.2f}"


def number(value: float, digits: int = 2) -> str:
    """Write a number, or a dash for NaN."""
    return NOT_COMPUTED if math.isnan(value) else f"{value:.{digits}f}"


def _charts(given: Evaluated, found: Measured) -> list[Chart]:
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
        for style, name in enumerate(main_subsets(found)[:MOST_LINES])
    ]


def _from(line: Line, start: float) -> Line:
    """Begin a stepped line at the left end of the axis, with the value that holds there."""
    before = [y for x, y in line.points if x <= start]
    points = [(x, y) for x, y in line.points if x > start]
    first = [(start, before[-1] if before else 1.0)] if line.points else []
    return Line(
        line.name, [*first, *points], line.style, line.dash, is_stepped=True, note=line.note
    )


def _tables(given: Evaluated, found: Measured) -> list[Table]:
    tables = []
    if given.precision:
        rows = [
            (name, number(value), given.reasons.get(name) or _precision_words(name))
            for name, value in given.precision.items()
        ]
        tables.append(Table("Average precision (COCO), of 100", ("metric", "value", ""), rows))
    names = given.labels.class_names
    points = [
        row
        for index, curve in found.curves.items()
        for row in _operating_rows(f"{names[index]}: " if len(names) > 1 else "", curve)
    ]
    head = ("point", "score", "precision", "recall", "F1", "FPPI")
    note = "FPPI: false positives per image; the lowest threshold with so many at most."
    tables.append(Table("Operating points", head, points, note))
    if found.rates.own:
        tables.append(_rate_table(given, found))
    return tables


def _precision_words(metric: str) -> str:
    return PRECISION_WORDS.get(metric) or f"class {metric.removeprefix('AP-')}"


def _rate_table(given: Evaluated, found: Measured) -> Table:
    """Lay out settings by splits, as papers do."""
    rates = found.rates.own
    splits = list(dict.fromkeys(name.rpartition("/")[2] for name in rates))
    settings = list(dict.fromkeys(name.rpartition("/")[0] for name in rates))
    rows = []
    for setting in settings:
        first = rates[f"{setting}/{splits[0]}"]
        cells = [_rate_cell(f"{setting}/{split}", given, found) for split in splits]
        rows.append((setting, *cells, number(first.recall), f"{first.num_labels:,}"))
    why = [f"{name}: {words}." for name, words in found.rates.differences.items()]
    other = other_mode(given.mode)
    head = ("labels", *splits, f"recall, {splits[0]}", f"number, {splits[0]}")
    note = f"By the {given.mode} rules, IoU {given.iou_threshold:g}. {INTERVAL_WORDS}"
    title = "Log-average miss rate, % (lower is better)"
    details = [f"Why the {other} rules, in square brackets, differ", *why] if why else []
    return Table(title, head, rows, note, is_wide=True, details=details)


def _rate_cell(name: str, given: Evaluated, found: Measured) -> str:
    """Write a miss rate, its interval, and what the other rules give where that differs."""
    own, other = (number(rates[name].value) for rates in (found.rates.own, found.rates.other))
    words = [own]
    if interval(found, name):
        words.append(f"({interval(found, name)})")
    if own != other:
        words.append(f"[{other_mode(given.mode)} {other}]")
    return " ".join(words)


def _operating_rows(name: str, curve: OperatingCurve) -> Iterator[Sequence[str]]:
    """Yield the rows of a class: best F1, and the lowest threshold within each wanted FPPI."""
    points = {"best F1": curve.best_f1()}
    points |= {f"FPPI {fppi:g}": curve.at_fppi(fppi) for fppi in WANTED_FPPI}
    for words, point in points.items():
        if point is None:
            yield (name + words, *[NOT_COMPUTED] * 5)
        else:
            values = (point.precision, point.recall, point.f1, point.fppi)
            yield (name + words, f"{point.score:.3g}", *(number(value, 3) for value in values))


def _confusion(given: Evaluated, found: Measured) -> Table:
    names = (*given.labels.class_names, "background")
    rows = [
        (name, *(f"{count:,}" for count in row))
        for name, row in zip(names, found.confusion.tolist(), strict=True)
    ]
    rows[-1] = (*rows[-1][:-1], NOT_COMPUTED)
    return Table(
        "Confusion matrix",
        ("label ↓  detected as →", *names),
        rows,
        "Right column: labels that nothing found. Bottom row: detections where there is no label. "
        "Detections in regions to ignore are left out.",
        shades_of_rows(found.confusion),
    )


def shades_of_rows(counts: np.ndarray) -> list[list[int]]:
    """Return for each count a shade 0..4: its share of its row, in the last row of the largest."""
    sums = counts.sum(axis=1, keepdims=True)
    sums[-1] = counts.max()
    return np.ceil(4 * counts / np.maximum(sums, 1)).astype(int).tolist()


def _error_table(found: Measured, kind: str) -> Table:
    """Lay out the counts of a kind: reasons by bands, those without any case left out."""
    of_kind = [row for row in found.counts if row.kind == kind]
    count = {(row.reason, row.by, row.band): row.num_cases for row in of_kind}
    bands = {
        (row.by, row.band): row.num_labels if kind == "miss" else row.num_cases
        for row in of_kind
        if row.reason == ANY_REASON and row.band != INSIDE
    }
    columns = sorted((band for band, total in bands.items() if total), key=_is_not_total)
    reasons = [name for name in (ANY_REASON, *REASONS[kind]) if count[(name, *ALL_IMAGES)]]
    rows = [(name, *(f"{count[(name, *column)]:,}" for column in columns)) for name in reasons]
    if kind == "miss":
        rows.insert(0, ("labels to find", *(f"{bands[column]:,}" for column in columns)))
    head = ("reason", *(_head(*column) for column in columns))
    note = "" if reasons else "None."
    return Table(f"{KIND_WORDS[kind]} by reason", head, rows, note, is_wide=True)


def _is_not_total(column: tuple[str, str]) -> bool:
    return column != ALL_IMAGES


def _head(by: str, band: str) -> str:
    if (by, band) == ALL_IMAGES:
        return "total"
    return OCCLUSION_WORDS[band] if by == "occlusion" else band
