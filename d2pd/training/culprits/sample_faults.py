"""What a sample must not be: labels and pixels that would ruin a training, often in silence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d2pd.errors import UserError

Sample = Mapping[str, Any]

BOX_NOT_FINITE = "box_not_finite"
BOX_WITHOUT_AREA = "box_without_area"
BOX_OUTSIDE_IMAGE = "box_outside_image"
CLASS_OUT_OF_RANGE = "class_out_of_range"
PIXELS_NOT_FINITE = "pixels_not_finite"
RULES = (
    BOX_NOT_FINITE,
    BOX_WITHOUT_AREA,
    BOX_OUTSIDE_IMAGE,
    CLASS_OUT_OF_RANGE,
    PIXELS_NOT_FINITE,
)

TOLERANCE = 0.01
"""How far a box may reach over the rim of its image, px: what float32 loses when boxes scale."""


class TargetError(UserError, ValueError):
    """Labels or pixels that would ruin the training: the message names image, row and fault."""


@dataclass(frozen=True)
class Fault:
    """One rule that one sample breaks.

    Attributes:
        index: Position of the sample in its batch.
        row: Index of its record in the training list, from 0; None where the sample has none.
        file_name: The image.
        rule: One of ``RULES``.
        box: Index into ``gt_boxes``; None for a fault of the pixels.
        bbox_xyxy: That box in pixels of the network input.
        message: What is wrong and the way out, one line, without the image's name.
    """

    index: int
    row: int | None
    file_name: str
    rule: str
    box: int | None
    bbox_xyxy: tuple[float, ...] | None
    message: str

    def __str__(self) -> str:
        return f"{image_label(self.file_name, self.row)}: {self.message}"


def image_label(file_name: str, row: int | None) -> str:
    """Return how messages name an image: its file, and its row where it is known."""
    return file_name if row is None else f"{file_name} (row {row})"


def find_faults(batch: Sequence[Sample], num_classes: int) -> list[Fault]:
    """Find every label and picture of a batch that would ruin a training.

    A box without area overlaps nothing, so that every anchor ties for its best one and becomes
    positive, or its log size is minus infinity. A class out of range ends in a device-side assert.

    Args:
        batch: Samples as ``data.mapper.Mapper`` makes them in training: ``image`` (C, h, w),
            ``instances`` with ``gt_boxes`` (XYXY, pixels of ``image``) and ``gt_classes``,
            ``file_name`` and maybe ``row``.
        num_classes: Number of classes, without background.

    Returns:
        The faults in the order of the batch, at most one of a box and one of its class each;
        empty for a sound batch.
    """
    return [
        fault
        for index, sample in enumerate(batch)
        if not _is_sound(sample, num_classes)
        for fault in _faults(index, sample, num_classes)
    ]


def describe_faults(faults: Sequence[Fault]) -> str:
    """Return one line: the first fault in full, and how many more there are."""
    more = len(faults) - 1
    return f"{faults[0]}" + (f" ({more} more in this batch)" if more else "")


def _is_sound(sample: Sample, num_classes: int) -> bool:
    corners, classes = _targets(sample)
    # NaN compares as False everywhere, so that one sum of comparisons finds all.
    sound = (corners[:, 2:] > corners[:, :2]).all() & (corners >= -TOLERANCE).all()
    sound = sound & (corners <= _limits(sample, corners) + TOLERANCE).all()
    sound = sound & ((classes >= 0) & (classes < num_classes)).all()
    return bool(sound) and _has_finite_pixels(sample)


def _faults(index: int, sample: Sample, num_classes: int) -> Iterator[Fault]:
    corners, classes = _targets(sample)

    def fault(rule: str, box: int | None, message: str) -> Fault:
        bbox = None if box is None else tuple(corners[box].tolist())
        row = sample.get("row")
        return Fault(index, row, str(sample["file_name"]), rule, box, bbox, message)

    limits = _limits(sample, corners)
    for box, (corner, label) in enumerate(zip(corners, classes.tolist(), strict=True)):
        broken = _broken_box_rule(corner, limits)
        if broken:
            yield fault(broken, box, _box_message(broken, box, corner, limits))
        if not 0 <= label < num_classes:
            yield fault(
                CLASS_OUT_OF_RANGE,
                box,
                f"target box {box} has class {label}, but the model has {num_classes} classes, "
                f"0..{num_classes - 1}: set MODEL.ROI_HEADS.NUM_CLASSES, or correct the labels",
            )
    if not _has_finite_pixels(sample):
        bad = int((~torch.isfinite(sample["image"])).sum())
        yield fault(
            PIXELS_NOT_FINITE,
            None,
            f"{bad} of {sample['image'].numel()} pixel values are infinite or not a number: "
            "repair the image or the transform that made it, or take the row out of the label file",
        )


def _broken_box_rule(corner: Tensor, limits: Tensor) -> str:
    """Return the first rule that a box breaks; empty for none."""
    if not torch.isfinite(corner).all():
        return BOX_NOT_FINITE
    if not (corner[2:] > corner[:2]).all():
        return BOX_WITHOUT_AREA
    if not ((corner >= -TOLERANCE) & (corner <= limits + TOLERANCE)).all():
        return BOX_OUTSIDE_IMAGE
    return ""


def _box_message(rule: str, box: int, corner: Tensor, limits: Tensor) -> str:
    named = f"target box {box} {[round(value, 2) for value in corner.tolist()]} (XYXY, pixels of "
    named += "the network input)"
    if rule == BOX_NOT_FINITE:
        return f"{named} is not finite: correct the label, or the transform that moved it"
    if rule == BOX_WITHOUT_AREA:
        return (
            f"{named} has no area: cleaning drops such labels; raise DATASETS.MIN_BOX_SIZE, or "
            "take the label out"
        )
    width, height = limits[:2].tolist()
    centre = (corner[:2] + corner[2:]) / 2
    is_inside = bool(((centre >= 0) & (centre <= limits[:2])).all())
    what = "reaches" if is_inside else "has its centre"
    return (
        f"{named} {what} outside its image of {width:g}x{height:g} pixels: clip or drop boxes "
        "after the transform that moved it, or correct the label"
    )


def _targets(sample: Sample) -> tuple[Tensor, Tensor]:
    """Return the boxes, (N, 4) XYXY, and their classes, (N,)."""
    instances = sample["instances"]
    return instances.gt_boxes.tensor, instances.gt_classes


def _limits(sample: Sample, corners: Tensor) -> Tensor:
    height, width = sample["image"].shape[-2:]
    return corners.new_tensor([width, height, width, height])


def _has_finite_pixels(sample: Sample) -> bool:
    image: Tensor = sample["image"]
    return not image.is_floating_point() or bool(torch.isfinite(image).all())
