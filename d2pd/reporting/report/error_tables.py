"""Tables of the errors on one dataset: confusion, and reasons by bands."""

import numpy as np

from d2pd.evaluation.confusion import BACKGROUND
from d2pd.evaluation.error_cases import REASONS
from d2pd.evaluation.error_counts import ANY_REASON
from d2pd.reporting.report.content import Table
from d2pd.reporting.report.measured import Evaluated, Measured
from d2pd.reporting.report.metric_tables import NOT_COMPUTED

MOST_NARROW = 3  # columns of a confusion matrix beside another table
ALL_IMAGES = ("split", "all")
NOT_STATED = ("occlusion", "not stated")
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


def confusion_table(given: Evaluated, found: Measured) -> Table:
    """Lay out the confusion matrix, each cell shaded."""
    names = (*given.labels.class_names, BACKGROUND)
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
        is_wide=len(names) > MOST_NARROW,
    )


def shades_of_rows(counts: np.ndarray) -> list[list[int]]:
    """Return for each count a shade 0..4: its share of its row, in the last row of the largest."""
    sums = counts.sum(axis=1, keepdims=True)
    sums[-1] = counts.max()
    return np.ceil(4 * counts / np.maximum(sums, 1)).astype(int).tolist()


def error_table(found: Measured, kind: str) -> Table | None:
    """Lay out the counts of a kind: reasons by bands, those without any case left out.

    Returns:
        The table; None where there is no case.
    """
    of_kind = [row for row in found.counts if row.kind == kind]
    count = {(row.reason, row.by, row.band): row.num_cases for row in of_kind}
    bands = {
        (row.by, row.band): row.num_labels if kind == "miss" else row.num_cases
        for row in of_kind
        if row.reason == ANY_REASON and row.band != INSIDE
    }
    if bands.get(NOT_STATED) == bands[ALL_IMAGES]:  # tells nothing
        del bands[NOT_STATED]
    columns = sorted((band for band, total in bands.items() if total), key=_is_not_total)
    reasons = [name for name in (ANY_REASON, *REASONS[kind]) if count[(name, *ALL_IMAGES)]]
    rows = [(name, *(f"{count[(name, *column)]:,}" for column in columns)) for name in reasons]
    if kind == "miss":
        rows.insert(0, ("labels to find", *(f"{bands[column]:,}" for column in columns)))
    head = ("reason", *(_head(*column) for column in columns))
    return Table(f"{KIND_WORDS[kind]} by reason", head, rows, is_wide=True) if reasons else None


def _is_not_total(column: tuple[str, str]) -> bool:
    return column != ALL_IMAGES


def _head(by: str, band: str) -> str:
    if (by, band) == ALL_IMAGES:
        return "total"
    return OCCLUSION_WORDS[band] if by == "occlusion" else band
