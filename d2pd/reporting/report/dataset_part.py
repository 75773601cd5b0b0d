"""The part of the page about one dataset: its numbers in words, tables and charts."""

import math
from collections.abc import Iterator

import numpy as np

from d2pd.evaluation.arrays import labels_to_find
from d2pd.evaluation.error_cases import REASONS
from d2pd.reporting.report.content import DatasetPart, Figure
from d2pd.reporting.report.dataset_charts import dataset_charts
from d2pd.reporting.report.error_tables import confusion_table, error_table
from d2pd.reporting.report.measured import Evaluated, Measured
from d2pd.reporting.report.metric_tables import PRECISION_WORDS, interval, metric_tables, number

MOST_FIGURES = 4


def describe(given: Evaluated, found: Measured) -> DatasetPart:
    """Lay out what was measured; cards are added by whoever draws them."""
    labels = given.labels
    is_object = labels_to_find(labels)
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
        charts=dataset_charts(given, found),
        tables=metric_tables(given, found),
    )
    part.confusion = confusion_table(given, found)
    tables = [error_table(found, kind) for kind in REASONS]
    part.error_tables = [table for table in tables if table is not None]
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
            "Not a single detection: the model is not trained yet, or SCORE_THRESH_TEST (below "
            "MODEL.ROI_HEADS; of SSDSeg, below MODEL.SSD) is too high."
        )


def _figures(given: Evaluated, found: Measured) -> Iterator[Figure]:
    for metric in ("AP", "AP50"):
        if metric in given.precision:
            yield Figure(metric, number(given.precision[metric]), PRECISION_WORDS[metric])
    for name in found.rates.main_subsets()[:6]:
        detail = f"%, {given.mode}; lower is better"
        if interval(found.rates, name):
            detail += f"; 95 % interval {interval(found.rates, name)}"
        yield Figure(f"MR {name}", number(found.rates.own[name].value), detail)
    for index, curve in list(found.curves.items())[:MOST_FIGURES]:
        best = curve.best_f1()
        if best is not None:
            name = given.labels.class_names[index]
            yield Figure(f"Best F1, {name}", f"{best.f1:.3f}", f"at score {best.score:.3g}")
