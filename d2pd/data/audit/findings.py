"""What an audit has found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from d2pd.data.audit.rules import RULES
from d2pd.data.label_table.table import LabelTable

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that one rule has found.

    Attributes:
        rule: A key of ``RULES``.
        image: The name as the label file spells it, None where a row names none.
        row: Position in the JSON list (``annotations`` for a box, ``images`` for an image), from
            0; for a CSV the 1-based line.
        box: x1, y1, x2, y2 in pixels as read, not clipped; None for an image.
        category: Name of the class; None for an image, an unknown class or a region without one.
        message: What is wrong, one line, without image, row and box; that of a malformed row
            begins with its place, ``annotation 5``, ``image 5`` or ``line 5``.
        is_region: Whether the box is a region to ignore.
    """

    rule: str
    image: str | None
    row: int | None
    box: Box | None
    category: str | None
    message: str
    is_region: bool = False

    def __str__(self) -> str:
        is_told = self.row is None or self.rule == "malformed_row"
        places = (self.image, None if is_told else f"row {self.row}")
        place = ", ".join(part for part in places if part is not None)
        box = "" if self.box is None else f"[{', '.join(f'{side:g}' for side in self.box)}] "
        remark = " (a region to ignore)" if self.is_region else ""
        return ": ".join(filter(None, [place, f"{box}{self.message}{remark}"]))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "rule": self.rule,
            "image": self.image,
            "row": self.row,
            "box": self.box,
            "category": self.category,
            "is_region": self.is_region,
            "message": self.message,
        }


@dataclass(frozen=True)
class Audit:
    """A label file, and what was found in it.

    Attributes:
        table: The labels.
        findings: In the order of ``RULES``, within a rule in that of the file.
        conditions: How the audit was run: ``min_box_size``, ``images`` (folder or None), ...
    """

    table: LabelTable
    findings: Sequence[Finding]
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of findings of every rule, zeros too, in the order of ``RULES``."""
        found = Counter(finding.rule for finding in self.findings)
        return {rule: found[rule] for rule in RULES}

    @cached_property
    def regions(self) -> dict[str, int]:
        """How many of them are regions to ignore; only rules that have any."""
        found = Counter(finding.rule for finding in self.findings if finding.is_region)
        return {rule: found[rule] for rule in RULES if found[rule]}

    @property
    def rows_are(self) -> str:
        """Say what the rows of findings count."""
        if self.table.format == "csv":
            return "a row is a line of the file, from 1"
        return "a row counts the file's annotations for a box, its images for an image, from 0"

    def of_rule(self, rule: str) -> list[Finding]:
        """Return the findings of one rule, in order."""
        return [finding for finding in self.findings if finding.rule == rule]

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain data, for ``audit.json``."""
        return {
            "annotations": str(self.table.path),
            "format": self.table.format,
            "conditions": dict(self.conditions),
            "images": self.table.num_images,
            "boxes": self.table.num_boxes,
            "rows": self.rows_are,
            "counts": self.counts,
            "regions": self.regions,
            "rules": {
                name: {
                    "severity": rule.severity,
                    "what": rule.what,
                    "faster_rcnn": rule.faster_rcnn,
                    "ssd": rule.ssd,
                    "is_cleaned": rule.is_cleaned,
                }
                for name, rule in RULES.items()
            },
            "findings": [finding.as_json() for finding in self.findings],
        }
