"""Drop or clip the labels that ruin training; each drop has a rule, a place and a reason."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2pd.data.annotations.labels import Annotation, Record

RULES: dict[str, str] = {
    "not_finite": "a coordinate is NaN or infinite",
    "degenerate_box": "the box has no area; its regression target is log(0)",
    "outside_image": "the box lies wholly outside the image",
    "tiny_box": "the box, or its part inside the image, is under the minimum size",
    "no_object": "the image holds no object to learn from",
    "duplicate_image": "the file names the image more than once; all its rows are kept",
}
"""What each rule finds. Detectors learn from what is left."""


@dataclass(frozen=True)
class Drop:
    """One finding: a box or an image that was dropped, or an image that is named twice.

    Attributes:
        rule: A key of ``RULES``.
        image: ``im_name`` or ``file_name``.
        index: Position of the image among the records given, from 0.
        row: Place of the box in its file, None for an image.
        bbox: x1, y1, x2, y2 in pixels as in the file, None for an image.
        ignore: Whether the box was a region to ignore.
        message: What was found, on one line.
    """

    rule: str
    image: str
    index: int
    row: int | None
    bbox: tuple[float, ...] | None
    ignore: bool
    message: str


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning did; reports of several steps or files can be added.

    Attributes:
        drops: Boxes and images left out.
        duplicates: Images named more than once, reported and kept.
        num_clipped: Boxes that reached outside their image and were cut at its border.
    """

    drops: tuple[Drop, ...] = ()
    duplicates: tuple[Drop, ...] = ()
    num_clipped: int = 0

    def __add__(self, other: "CleaningReport") -> "CleaningReport":
        return CleaningReport(
            self.drops + other.drops,
            self.duplicates + other.duplicates,
            self.num_clipped + other.num_clipped,
        )

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each rule that has any, in the order of ``RULES``."""
        found = Counter(drop.rule for drop in (*self.drops, *self.duplicates))
        return {rule: found[rule] for rule in RULES if found[rule]}

    def summary(self) -> str:
        """Describe the findings, one line for each rule; empty if there is nothing to say."""
        findings = (*self.drops, *self.duplicates)
        lines = []
        for rule, count in self.counts.items():
            found = [drop for drop in findings if drop.rule == rule]
            what = "reported" if rule == "duplicate_image" else "dropped"
            num_regions = sum(drop.ignore for drop in found)
            of_them = f", {num_regions} of them regions to ignore" if num_regions else ""
            lines.append(
                f"{rule}: {count} {what}{of_them} ({RULES[rule]}); first: {found[0].message}"
            )
        if self.num_clipped:
            lines.append(f"clipped: {self.num_clipped} boxes reached outside their image")
        return "\n".join(lines)


def clean_records(
    records: Sequence[Record], *, min_size: float = 1.0
) -> tuple[list[Record], CleaningReport]:
    """Drop unusable boxes and clip the others to their image; the input stays as it is.

    Args:
        records: As the readers return them. Without ``height`` and ``width`` an image has no
            right and lower border.
        min_size: Least width and height in pixels, before and after clipping.

    Returns:
        Copies of all records, images without objects included, and the report. Images named more
        than once are reported and kept.
    """
    cleaned: list[Record] = []
    drops: list[Drop] = []
    num_clipped = 0
    for index, record in enumerate(records):
        kept: list[Annotation] = []
        for annotation in record["annotations"]:
            clipped = _clip(annotation["bbox"], record)
            fault = _fault(annotation["bbox"], clipped, min_size)
            if fault is not None:
                drops.append(_box_drop(*fault, record, index, annotation))
                continue
            num_clipped += clipped != list(annotation["bbox"])
            kept.append({**annotation, "bbox": clipped})
        cleaned.append({**record, "annotations": kept})
    return cleaned, CleaningReport(tuple(drops), _duplicates(records), num_clipped)


def drop_images_without_objects(
    records: Sequence[Record],
) -> tuple[list[Record], CleaningReport]:
    """Leave out images that hold nothing to learn: no box, or regions to ignore alone.

    Returns:
        The records that are left, not copied, and the report.
    """
    kept: list[Record] = []
    drops: list[Drop] = []
    for index, record in enumerate(records):
        if any(map(_is_object, record["annotations"])):
            kept.append(record)
            continue
        num_regions = len(record["annotations"])
        what = f"regions to ignore alone ({num_regions})" if num_regions else "no box"
        message = f"{image_name(record)}: {what}"
        drops.append(Drop("no_object", image_name(record), index, None, None, False, message))
    return kept, CleaningReport(tuple(drops))


def image_name(record: Mapping[str, Any]) -> str:
    """Name an image as its label file does."""
    return record.get("im_name") or record["file_name"]


def _is_object(annotation: Annotation) -> bool:
    is_region = annotation.get("ignore", 0) or annotation.get("iscrowd", 0)
    return not is_region and annotation["category_id"] >= 0


def _clip(bbox_xyxy: Sequence[float], record: Record) -> list[float]:
    width, height = record.get("width", math.inf), record.get("height", math.inf)
    x1, y1, x2, y2 = bbox_xyxy
    return [
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    ]


def _fault(
    bbox_xyxy: Sequence[float], clipped: Sequence[float], min_size: float
) -> tuple[str, str] | None:
    """Give rule and reason if a box cannot be used."""
    if not all(map(math.isfinite, bbox_xyxy)):
        return "not_finite", "is not finite"
    width, height = _size(bbox_xyxy)
    if width <= 0 or height <= 0:
        return "degenerate_box", f"has no area ({width:g} x {height:g})"
    inner_width, inner_height = _size(clipped)
    if inner_width <= 0 or inner_height <= 0:
        return "outside_image", "lies wholly outside the image"
    if min(width, height) < min_size:
        return "tiny_box", f"is {width:g} x {height:g} px, under {min_size:g}"
    if min(inner_width, inner_height) < min_size:
        inner = f"{inner_width:g} x {inner_height:g} px"
        return "tiny_box", f"has {inner} inside the image, under {min_size:g}"
    return None


def _size(bbox_xyxy: Sequence[float]) -> tuple[float, float]:
    return bbox_xyxy[2] - bbox_xyxy[0], bbox_xyxy[3] - bbox_xyxy[1]


def _box_drop(rule: str, reason: str, record: Record, index: int, annotation: Annotation) -> Drop:
    bbox = tuple(annotation["bbox"])
    row = annotation.get("row")
    place = image_name(record) if row is None else f"{image_name(record)}, row {row}"
    shown = ", ".join(f"{value:g}" for value in bbox)
    is_ignored = not _is_object(annotation)
    return Drop(
        rule, image_name(record), index, row, bbox, is_ignored, f"{place}: [{shown}] {reason}"
    )


def _duplicates(records: Sequence[Record]) -> tuple[Drop, ...]:
    """Report each further row of an image that was named before."""
    first_index: dict[str, int] = {}
    found: list[Drop] = []
    for index, record in enumerate(records):
        name = image_name(record)
        first = first_index.setdefault(name, index)
        if first != index:
            message = f"{name}: image {index} is image {first} again"
            found.append(Drop("duplicate_image", name, index, None, None, False, message))
    return tuple(found)
