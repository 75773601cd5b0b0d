"""What a look at every training image found, and how it is told."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from d2pd.data.cleaning import CleaningReport
from d2pd.json_file import strict

LOSS_NOT_FINITE = "loss_not_finite"
UNREADABLE_IMAGE = "unreadable_image"

HEADING = ("row", "image", "rule", "box (x1 y1 x2 y2)", "cleaning drops it", "loss")
TABLE_LINES = 50
HIGHEST_LOSSES = 10


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one image.

    Attributes:
        row: Of the image, see ``Diagnosis``.
        image: As its label file names it.
        rule: One of ``sample_faults.RULES``, ``LOSS_NOT_FINITE`` or ``UNREADABLE_IMAGE``.
        message: What is wrong, one line.
        box: Position of the box among the labels of the image; None where no box is at fault.
        bbox_xyxy: That box in pixels, as its file has it.
        label_row: Place of the box in its file, where the format has one.
        dropped_as: The rule by which cleaning drops that box before training; None where it stays.
    """

    row: int
    image: str
    rule: str
    message: str
    box: int | None = None
    bbox_xyxy: tuple[float, ...] | None = None
    label_row: int | None = None
    dropped_as: str | None = None


@dataclass(frozen=True)
class ImageResult:
    """What came out for one image.

    Attributes:
        row: See ``Diagnosis``.
        image: As its label file names it.
        findings: What is wrong with it.
        losses: By name, ``total_loss`` among them; empty where there are none.
    """

    row: int
    image: str
    findings: tuple[Finding, ...]
    losses: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_loss(self) -> float:
        """The sum of the losses; NaN where there are none."""
        return self.losses.get("total_loss", math.nan)


@dataclass
class Diagnosis:
    """Findings and losses of the training images, in their order.

    A row is the position of an image, from 0, among all that have an object (or all, where empty
    ones are trained on), before cleaning drops boxes.

    Attributes:
        num_images: Images to look at.
        num_training_images: Images that training has, after cleaning.
        cleaning: What cleaning does to the labels before training.
        conditions: How it was looked: command, engine, weights and so on, for the JSON.
        images: Results so far, one for each image looked at.
    """

    num_images: int
    num_training_images: int
    cleaning: CleaningReport
    conditions: Mapping[str, Any]
    images: list[ImageResult] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        """All findings, by row."""
        return [finding for image in self.images for finding in image.findings]

    @property
    def listed(self) -> list[ImageResult]:
        """The images with findings."""
        return [image for image in self.images if image.findings]

    @property
    def highest_losses(self) -> list[ImageResult]:
        """The images with the highest finite losses, highest first."""
        finite = [one for one in self.images if math.isfinite(one.total_loss)]
        return sorted(finite, key=lambda one: -one.total_loss)[:HIGHEST_LOSSES]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON's own types; numbers that are not finite are strings."""
        content = {
            **self.conditions,
            "complete": len(self.images) == self.num_images,
            "num_images": self.num_images,
            "num_looked_at": len(self.images),
            "num_training_images": self.num_training_images,
            "rows": [image.row for image in self.listed],
            "findings": [asdict(finding) for finding in self.findings],
            "images": [_image_json(image) for image in self.listed],
            "highest_losses": [_image_json(image) for image in self.highest_losses],
            "cleaning": {**self.cleaning.counts, "clipped": self.cleaning.num_clipped},
        }
        return strict(content)

    def table(self) -> str:
        """Return a line for each finding, ``TABLE_LINES`` at most, under a heading."""
        lines: list[tuple[str, ...]] = [HEADING]
        lines += [_cells(image, found) for image in self.listed for found in image.findings]
        hidden = len(lines) - 1 - TABLE_LINES
        lines = lines[: TABLE_LINES + 1]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join((line[0].rjust(widths[0]), *map(str.ljust, line[1:], widths[1:]))).rstrip()
            for line in lines
        ]
        return "\n".join([*shown, *([f"... and {hidden:,} more"] if hidden > 0 else [])])

    def report(self) -> str:
        """Return table, summary and what cleaning does to the labels, for a terminal."""
        return "\n".join([*([self.table(), ""] if self.findings else []), *self._summary()])

    def _summary(self) -> Iterator[str]:
        looked_at = f"{len(self.images):,} training images"
        if len(self.images) < self.num_images:
            yield f"cut short: {looked_at} of {self.num_images:,} were looked at"
        if not self.findings:
            yield f"nothing found in {looked_at}"
        else:
            counts = Counter(finding.rule for finding in self.findings)
            told = ", ".join(f"{rule} {count:,}" for rule, count in counts.items())
            yield f"{len(self.listed):,} of {looked_at} are at fault: {told}"
        dropped = Counter(found.dropped_as for found in self.findings if found.dropped_as)
        if dropped:
            told = ", ".join(f"{rule} {count:,}" for rule, count in dropped.items())
            boxes = sum(found.box is not None for found in self.findings)
            yield (
                f"training would not have seen {dropped.total():,} of these {boxes:,} boxes: "
                f"cleaning drops them ({told})"
            )
        not_finite = sum(found.rule == LOSS_NOT_FINITE for found in self.findings)
        if not_finite > len(self.images) / 2:
            yield "most losses are not finite: look at the weights first, not at the images"
        if self.num_training_images != self.num_images:
            yield (
                f"rows count the {self.num_images:,} images before cleaning; it leaves "
                f"{self.num_training_images:,} to train on"
            )
        for line in self.cleaning.summary().splitlines():
            yield f"cleaning before training: {line}"
        if not self.conditions["labels_only"]:
            yield f"losses are those of {self.conditions['weights']}"


def _cells(image: ImageResult, finding: Finding) -> tuple[str, ...]:
    box = " ".join(f"{value:g}" for value in finding.bbox_xyxy or ())
    loss = f"{image.total_loss:.4g}" if image.losses else ""
    return (str(finding.row), finding.image, finding.rule, box, finding.dropped_as or "", loss)


def _image_json(image: ImageResult) -> dict[str, Any]:
    return {
        "row": image.row,
        "image": image.image,
        "rules": list(dict.fromkeys(finding.rule for finding in image.findings)),
        "losses": dict(image.losses),
    }
