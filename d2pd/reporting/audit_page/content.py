"""What stands on the page of an audit, as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from d2pd.reporting.report.chart import Chart
from d2pd.reporting.report.content import Card, Figure


@dataclass(frozen=True)
class Bars:
    """Counts of a few kinds, as bars.

    Attributes:
        title: What is counted.
        rows: Name and count of each kind, from 0 on.
        note: A sentence below.
    """

    title: str
    rows: Sequence[tuple[str, int]]
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """How often something lies in each part of an image.

    Attributes:
        title: What lies there.
        counts: Rows from top to bottom, cells from left to right.
        note: A sentence below.
    """

    title: str
    counts: Sequence[Sequence[int]]
    note: str = ""

    @property
    def most(self) -> int:
        """The largest count, 1 at least."""
        return max(1, *(count for row in self.counts for count in row))


@dataclass(frozen=True)
class RulePart:
    """One rule that has found something.

    Attributes:
        name: A key of ``RULES``.
        severity: ``error`` or ``warning``.
        count: Number of findings.
        num_regions: How many of them are regions to ignore.
        what: What is found.
        faster_rcnn: What it does to Faster R-CNN.
        ssd: What it does to SSD.
        is_cleaned: Whether ``--write-clean`` mends it.
        cards: Some of the findings, with their pictures.
    """

    name: str
    severity: str
    count: int
    num_regions: int
    what: str
    faster_rcnn: str
    ssd: str
    is_cleaned: bool
    cards: Sequence[Card]


@dataclass(frozen=True)
class AuditContent:
    """All that stands on the page.

    Attributes:
        name: Of the label file.
        status: ``nothing found``, ``warnings`` or ``errors``.
        figures: The numbers for the head of the page.
        facts: Rows of the summary: what, and its words.
        absent: What is not shown or was not looked at, and how to get it.
        charts: Distributions as curves.
        bars: Distributions as bars.
        grid: Where the objects lie; None where no size of an image is known.
        rules: Those that have found something.
        clean: Names of the rules that have found nothing.
        findings: Rule, image, row, box and message of the first ones.
        findings_note: How many there are.
        frames: Key -> data URI of a whole picture.
        footer: When and by what the page was written.
    """

    name: str
    status: str
    figures: Sequence[Figure]
    facts: Sequence[tuple[str, str]]
    absent: Sequence[str]
    charts: Sequence[Chart]
    bars: Sequence[Bars]
    grid: Grid | None
    rules: Sequence[RulePart]
    clean: Sequence[str]
    findings: Sequence[Sequence[str]]
    findings_note: str
    frames: dict[str, str] = field(default_factory=dict)
    footer: str = ""
