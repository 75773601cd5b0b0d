"""Tables of what was measured on one dataset: AP, operating points, miss rates."""

import math
from collections.abc import Iterator, Sequence

from d2pd.evaluation.operating_points import OperatingCurve
from d2pd.reporting.report.content import Table
from d2pd.reporting.report.measured import Evaluated, Measured, Rates, other_mode

NOT_COMPUTED = "–"
INTERVAL_WORDS = "In brackets: 95 % interval over images drawn again."
WANTED_FPPI = (0.01, 0.1, 1.0)
PRECISION_WORDS = {
    "AP": "mean over IoU .50 to .95",
    "AP50": "IoU .50",
    "AP75": "IoU .75",
    "APs": "under 32² px",
    "APm": "32² to 96² px",
    "APl": "over 96² px",
}


def metric_tables(given: Evaluated, found: Measured) -> list[Table]:
    """Lay out AP, operating points and, where there are any, miss rates."""
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
    tables.append(Table("Operating points", head, points, note, is_wide=len(names) > 1))
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
    head = ("setting", *splits, f"recall, {splits[0]}", f"labels, {splits[0]}")
    note = f"By the {given.mode} rules, IoU {given.iou_threshold:g}. {INTERVAL_WORDS}"
    title = "Log-average miss rate, % (lower is better)"
    details = [f"Why {other} differs", *why] if why else []
    return Table(title, head, rows, note, is_wide=True, details=details)


def _rate_cell(name: str, given: Evaluated, found: Measured) -> str:
    """Write a miss rate and its interval; below, what the other rules give where they differ."""
    own, other = (number(rates[name].value) for rates in (found.rates.own, found.rates.other))
    words = [own]
    if interval(found.rates, name):
        words.append(f"[{interval(found.rates, name)}]")
    line = " ".join(words)
    return line if own == other else f"{line}\n{other_mode(given.mode)} {other}"


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


def interval(rates: Rates, name: str) -> str:
    """Write the interval of a subset; nothing where there is none."""
    low, high = rates.intervals.get(name, (math.nan, math.nan))
    return "" if math.isnan(low) else f"{low:.2f} to {high:.2f}"


def number(value: float, digits: int = 2) -> str:
    """Write a number, or a dash for NaN."""
    return NOT_COMPUTED if math.isnan(value) else f"{value:.{digits}f}"
