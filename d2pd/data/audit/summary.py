"""An audit as text for a terminal."""

import textwrap
from collections.abc import Iterator

import numpy as np

from d2pd.data.audit.findings import Audit
from d2pd.data.audit.rules import RULES
from d2pd.printable import printable

WIDTH = 100
"""Characters of a line of explanation; findings are not wrapped."""

MOST_LISTED = 10
"""Findings of a rule that are shown."""

MOST_CLASSES = 30
"""Classes whose boxes are counted."""

PICTURE_RULES = ("missing_image", "unreadable_image", "size_mismatch", "missing_modality")
"""Rules that need the pictures."""


def summarise(audit: Audit, where_all: str) -> str:
    """Return a table of the rules that found something, then their first findings.

    Args:
        audit: What was found; its conditions say under ``images`` whether pictures were looked at.
        where_all: Where all findings are, or how to get them.
    """
    return "\n".join(_lines(audit, where_all))


def _lines(audit: Audit, where_all: str) -> Iterator[str]:
    table = audit.table
    name = printable(str(table.path))
    yield f"{name} ({table.format}): {table.num_images:,} images, {table.num_boxes:,} boxes"
    yield from _classes(audit)
    found = [rule for rule, count in audit.counts.items() if count]
    if found:
        yield from _table(audit, found)
    else:
        yield "nothing found"
    yield from _not_looked_at(audit)
    if found:
        yield f"\nfirst findings; {audit.rows_are}"
    for rule in found:
        yield from _first_findings(audit, rule, where_all)


def _classes(audit: Audit) -> Iterator[str]:
    """Say what is in each class: a name that is misspelt makes a class of its own."""
    table = audit.table
    if not table.num_boxes:
        return
    of_class = table.categories[~table.is_region & (table.categories >= 0)]
    counts = np.bincount(of_class, minlength=len(table.class_names))
    told = [
        f"{printable(name)} {count:,}"
        for name, count in zip(table.class_names, counts.tolist(), strict=True)
    ]
    if len(told) > MOST_CLASSES:
        told[MOST_CLASSES:] = [f"and {len(told) - MOST_CLASSES:,} more"]
    if table.is_region.any():
        told.append(f"regions to ignore {int(table.is_region.sum()):,}")
    yield from _wrapped(f"boxes by class: {', '.join(told)}")
    if table.format == "csv" and audit.conditions.get("classes") is None:
        yield from _wrapped("classes are those of the file: --classes tells misspelt ones apart")


def _table(audit: Audit, found: list[str]) -> Iterator[str]:
    widest = max(map(len, RULES))
    yield f"\n{'rule':<{widest}}  severity  {'count':>9}  what it does"
    for name in found:
        rule = RULES[name]
        what = rule.what
        if name in audit.regions:
            what += f" ({audit.regions[name]:,} of them regions to ignore)"
        start = f"{name:<{widest}}  {rule.severity:<8}  {audit.counts[name]:>9,}  "
        yield from _wrapped(start + what)
        effects = {"Faster R-CNN": rule.faster_rcnn, "SSD": rule.ssd}
        if rule.faster_rcnn == rule.ssd:
            effects = {"Faster R-CNN and SSD": rule.ssd}
        for model, effect in effects.items():
            yield from _wrapped(f"    {model}: {effect}")
    clean = [name for name in RULES if name not in found]
    if audit.conditions.get("images") is None:
        clean = [name for name in clean if name not in PICTURE_RULES]
    yield from _wrapped(f"nothing found of: {', '.join(clean)}")


def _not_looked_at(audit: Audit) -> Iterator[str]:
    if audit.conditions.get("images") is not None:
        return
    yield f"not looked at, which --images does: {', '.join(PICTURE_RULES)}"
    num_unknown = int(((audit.table.heights <= 0) | (audit.table.widths <= 0)).sum())
    if num_unknown:
        yield from _wrapped(
            f"{_images(num_unknown)} no size: whether their boxes reach beyond the right or "
            "the bottom is not known without --images"
        )


def _images(number: int) -> str:
    return "1 image states" if number == 1 else f"{number:,} images state"


def _first_findings(audit: Audit, rule: str, where_all: str) -> Iterator[str]:
    findings = audit.of_rule(rule)
    yield f"\n{rule}"
    yield from (f"  {printable(str(finding))}" for finding in findings[:MOST_LISTED])
    if len(findings) > MOST_LISTED:
        yield f"  and {len(findings) - MOST_LISTED:,} more: {where_all}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ")
