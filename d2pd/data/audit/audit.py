"""All rules over a label file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    conditions: Mapping[str, Any] | None = None,
) -> Audit:
    """Look the labels through by every rule.

    Args:
        table: The labels, see ``with_picture_sizes``.
        min_box_size: Least side of a box in pixels.
        of_pictures: What was found in the pictures, see ``pictures.look_at_pictures``.
        conditions: What ``Audit.conditions`` shall say besides ``min_box_size``.

    Returns:
        The findings in the order of ``RULES``.
    """
    order = {rule: place for place, rule in enumerate(RULES)}
    findings = [*_of_labels(table, min_box_size), *of_pictures]
    findings.sort(key=lambda finding: order[finding.rule])  # stable: within a rule as they came
    return Audit(table, findings, {"min_box_size": min_box_size, **(conditions or {})})


def with_picture_sizes(table: LabelTable, sizes: np.ndarray) -> LabelTable:
    """Return the labels with the sizes of the pictures where the file states none.

    Args:
        table: The labels.
        sizes: (I, 2) height and width of each picture, 0 where unknown.
    """
    is_stated = (table.heights > 0) & (table.widths > 0)
    heights, widths = sizes.astype(np.float64).T
    return replace(
        table,
        heights=np.where(is_stated, table.heights, heights),
        widths=np.where(is_stated, table.widths, widths),
    )


def _of_labels(table: LabelTable, min_box_size: float) -> Iterator[Finding]:
    yield from find_malformed_rows(table)
    yield from find_box_faults(table, min_box_size)
    yield from find_duplicate_images(table)
    yield from find_images_without_objects(table)
    yield from find_outliers(table)
