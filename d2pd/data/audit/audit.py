"""All rules over a label file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from d2pd.data.audit.box_rules import find_box_faults
from d2pd.data.audit.findings import Audit, Finding
from d2pd.data.audit.image_rules import (
    find_duplicate_images,
    find_images_without_objects,
    find_malformed_rows,
)
from d2pd.data.audit.outliers import find_outliers
from d2pd.data.audit.rules import RULES
from d2pd.data.label_table.table import LabelTable


def audit_table(
    table: LabelTable,
    *,
    min_box_size: float = 1.0,
    of_pictures: Sequence[Finding] = (),
    picture_sizes: np.ndarray | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Audit:
    """Look the labels through by every rule.

    Args:
        table: The labels.
        min_box_size: Least side of a box in pixels.
        of_pictures: What was found in the pictures, see ``pictures.look_at_pictures``.
        picture_sizes: (I, 2) height and width of each picture, 0 where unknown; they stand in
            where the file states no size.
        conditions: What ``Audit.conditions`` shall say besides ``min_box_size``.

    Returns:
        The findings in the order of ``RULES``.
    """
    heights, widths = known_sizes(table, picture_sizes)
    order = {rule: place for place, rule in enumerate(RULES)}
    findings = [*_of_labels(table, heights, widths, min_box_size), *of_pictures]
    findings.sort(key=lambda finding: order[finding.rule])  # stable: within a rule as they came
    return Audit(table, findings, {"min_box_size": min_box_size, **(conditions or {})})


def known_sizes(
    table: LabelTable, picture_sizes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (I,) heights and widths of the images: as stated, else of the picture, else 0."""
    if picture_sizes is None:
        return table.heights, table.widths
    is_stated = (table.heights > 0) & (table.widths > 0)
    heights = np.where(is_stated, table.heights, picture_sizes[:, 0])
    return heights, np.where(is_stated, table.widths, picture_sizes[:, 1])


def _of_labels(
    table: LabelTable, heights: np.ndarray, widths: np.ndarray, min_box_size: float
) -> Iterator[Finding]:
    yield from find_malformed_rows(table)
    yield from find_box_faults(table, heights, widths, min_box_size)
    yield from find_duplicate_images(table)
    yield from find_images_without_objects(table)
    yield from find_outliers(table)
