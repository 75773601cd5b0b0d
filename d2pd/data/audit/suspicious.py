"""``suspicious.csv``: labels for a person to look through, the most suspicious first."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2pd.data.audit.findings import Box
from d2pd.data.audit.outliers import MEASURES, QUARTILES_APART, measure_outliers
from d2pd.data.label_table.table import LabelTable
from d2pd.output_files import write_file
from d2pd.printable import inert_cell

HEADER = ("image", "row", "x1", "y1", "x2", "y2", "category", "reason", "how_far")

HIGH_LOSS = "high_loss"

MOST_IMAGES = 50
"""Images of high loss that are listed."""


@dataclass(frozen=True)
class Suspect:
    """A box or an image that is far from the others.

    Attributes:
        image: Its name in the label file.
        row: Of the box, or of the image.
        box: x1, y1, x2, y2 in pixels, None for an image.
        category: Name of the class, None for an image.
        reason: What is far, and from what; begins with the name of the rule.
        how_far: Robust standard deviations between its logarithm and that of the median.
    """

    image: str
    row: int
    box: Box | None
    category: str | None
    reason: str
    how_far: float


def find_suspects(
    table: LabelTable, losses: Mapping[int | str, float] | None = None
) -> list[Suspect]:
    """Return the outliers, and the images of the highest losses, the farthest first.

    Args:
        table: The labels.
        losses: Of images that a model was run on, by their ids in the file, NaN or infinite where
            it gave no number; None without a model.
    """
    suspects = [*_outliers(table), *_high_losses(table, losses or {})]
    return sorted(suspects, key=lambda suspect: -suspect.how_far)


def write_suspects(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write suspects as CSV, UTF-8 with a header; without any, the header alone.

    Args:
        path: What lies there is replaced; folders are made.
        suspects: In the order of the lines.

    Raises:
        UserError: If it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for one in suspects:
        box = ["", "", "", ""] if one.box is None else [f"{side:.12g}" for side in one.box]
        category, far = inert_cell(one.category or ""), f"{one.how_far:.2f}"
        writer.writerow([inert_cell(one.image), one.row, *box, category, one.reason, far])
    write_file(path, text.getvalue())


def _outliers(table: LabelTable) -> list[Suspect]:
    suspects = []
    for outlier in measure_outliers(table):
        x1, y1, x2, y2 = table.boxes_xyxy[outlier.index].tolist()
        name = MEASURES[outlier.rule].name
        suspects.append(
            Suspect(
                table.image_names[table.box_images[outlier.index]],
                int(table.box_rows[outlier.index]),
                (x1, y1, x2, y2),
                table.class_names[table.categories[outlier.index]],
                f"{outlier.rule}: {name} {outlier.value:.4g}, median {outlier.median:.4g}",
                outlier.deviations,
            )
        )
    return suspects


def _high_losses(table: LabelTable, losses: Mapping[int | str, float]) -> list[Suspect]:
    """Return the images of the highest losses above the median, those without a number first."""
    finite = np.array([loss for loss in losses.values() if math.isfinite(loss)])
    lower, median, upper = np.quantile(finite, (0.25, 0.5, 0.75)) if len(finite) else (0.0,) * 3
    suspects = []
    for name, image_id, row in zip(
        table.image_names, table.image_ids, table.image_rows.tolist(), strict=True
    ):
        loss = losses.get(image_id, 0.0)
        if not loss <= median:  # NaN too
            far = _deviations(loss, float(lower), float(median), float(upper))
            reason = f"{HIGH_LOSS}: {loss:.4g}, median {median:.4g}"
            suspects.append(Suspect(name, row, None, None, reason, far))
    return sorted(suspects, key=lambda suspect: -suspect.how_far)[:MOST_IMAGES]


def _deviations(loss: float, lower: float, median: float, upper: float) -> float:
    """Return how far a loss above the median is from it, in robust deviations of the logarithm."""
    if not math.isfinite(loss) or min(lower, median) <= 0 or upper <= lower:
        return math.inf
    return math.log(loss / median) / (math.log(upper / lower) / QUARTILES_APART)
