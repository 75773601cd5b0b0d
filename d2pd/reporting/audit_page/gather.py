"""An audit, gathered into the content of its page."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np

from d2pd import __version__
from d2pd.data.audit.findings import Audit, Finding
from d2pd.data.audit.rules import RULES
from d2pd.data.audit.summary import PICTURE_RULES
from d2pd.reporting.audit_page.cards import FindingCards
from d2pd.reporting.audit_page.content import AuditContent, RulePart
from d2pd.reporting.audit_page.distributions import centre_grid, count_bars, size_charts
from d2pd.reporting.report.content import Card, Figure

MOST_LISTED = 200
"""Findings in the table."""


def gather(
    audit: Audit,
    paths: Sequence[Mapping[str, str]] = (),
    *,
    max_pictures: int,
    quiet: bool | None = None,
) -> AuditContent:
    """Gather all that the page of an audit shows.

    Args:
        audit: What was found.
        paths: (I,) files of each image by camera, see ``PictureFindings``; empty without pictures.
        max_pictures: Findings of a rule that are shown with their picture, at most.
        quiet: No progress bar; None for none where nobody looks.
    """
    cards = FindingCards(audit, paths)
    drawn = cards.draw(max_pictures, quiet=quiet)
    found = [rule for rule, count in audit.counts.items() if count]
    return AuditContent(
        name=audit.table.path.name,
        status=_status(audit),
        figures=list(_figures(audit)),
        facts=list(_facts(audit)),
        absent=list(_absent(audit)),
        charts=size_charts(audit.table),
        bars=list(count_bars(audit.table)),
        grid=centre_grid(audit.table),
        rules=[_rule_part(audit, rule, drawn[rule]) for rule in found],
        clean=[rule for rule in _looked_for(audit) if rule not in found],
        findings=[_cells(finding) for finding in audit.findings[:MOST_LISTED]],
        findings_note=_findings_note(audit),
        frames=cards.frames,
        footer=f"Written by d2pd {__version__} on {datetime.now():%Y-%m-%d %H:%M}.",
    )


def _status(audit: Audit) -> str:
    severities = {RULES[finding.rule].severity for finding in audit.findings}
    if "error" in severities:
        return "errors"
    return "warnings" if severities else "nothing found"


def _figures(audit: Audit) -> Iterator[Figure]:
    table = audit.table
    yield Figure("Images", f"{table.num_images:,}")
    num_regions = int(table.is_region.sum())
    detail = f"{num_regions:,} of them regions to ignore" if num_regions else ""
    yield Figure("Boxes", f"{table.num_boxes:,}", detail)
    for severity in ("error", "warning"):
        rules = [rule for rule in audit.counts if RULES[rule].severity == severity]
        total = sum(audit.counts[rule] for rule in rules)
        num_rules = sum(audit.counts[rule] > 0 for rule in rules)
        detail = f"by {num_rules} rule{'s' if num_rules > 1 else ''}" if num_rules else ""
        yield Figure(f"{severity.capitalize()}s", f"{total:,}", detail)


def _facts(audit: Audit) -> Iterator[tuple[str, str]]:
    table = audit.table
    yield "file", str(table.path)
    yield "format", table.format
    yield "classes", ", ".join(table.class_names) or "none"
    is_known = (table.heights > 0) & (table.widths > 0)
    sizes = np.stack([table.widths[is_known], table.heights[is_known]], axis=1)
    different = np.unique(sizes, axis=0)
    if len(different) == 1:
        yield "image size", f"{different[0, 0]:g} x {different[0, 1]:g} px"
    elif len(different):
        low, high = different.min(axis=0), different.max(axis=0)
        yield "image size", f"{len(different)} sizes, {low[0]:g} to {high[0]:g} px wide"
    if table.format == "csv":
        yield "box format", table.box_format
    yield "least side", f"{audit.conditions['min_box_size']:g} px"
    if audit.conditions.get("images") is not None:
        yield "images", str(audit.conditions["images"])


def _absent(audit: Audit) -> Iterator[str]:
    if audit.conditions.get("images") is None:
        yield (
            f"The pictures were not looked at: {', '.join(PICTURE_RULES)} are unknown, and no "
            "finding is shown in its picture. --images DIR does both."
        )
    table = audit.table
    num_unknown = int(((table.heights <= 0) | (table.widths <= 0)).sum())
    if num_unknown:
        yield (
            f"{num_unknown:,} of the images are of unknown size: whether their boxes reach beyond "
            "the right or the bottom is not known."
        )


def _looked_for(audit: Audit) -> list[str]:
    has_pictures = audit.conditions.get("images") is not None
    return [rule for rule in RULES if has_pictures or rule not in PICTURE_RULES]


def _rule_part(audit: Audit, name: str, cards: Sequence[Card]) -> RulePart:
    rule = RULES[name]
    return RulePart(
        name=name,
        severity=rule.severity,
        count=audit.counts[name],
        num_regions=audit.regions.get(name, 0),
        what=rule.what,
        faster_rcnn=rule.faster_rcnn,
        ssd=rule.ssd,
        is_cleaned=rule.is_cleaned,
        cards=cards,
    )


def _cells(finding: Finding) -> tuple[str, ...]:
    box = "" if finding.box is None else ", ".join(f"{side:g}" for side in finding.box)
    row = "" if finding.row is None else str(finding.row)
    category = "region to ignore" if finding.is_region else finding.category or ""
    return finding.rule, finding.image or "", row, category, box, finding.message


def _findings_note(audit: Audit) -> str:
    count = len(audit.findings)
    which = "These are all; audit.json holds them too"
    if count > MOST_LISTED:
        which = f"The first {MOST_LISTED} of {count:,}; audit.json holds all"
    return f"{which}: {audit.rows_are}."
