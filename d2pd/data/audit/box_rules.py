"""Faults of single boxes: sides, place, category, repetition."""

from collections.abc import Callable, Iterator

import numpy as np

from d2pd.data.audit.findings import Box, Finding
from d2pd.data.label_table.table import UNKNOWN_CATEGORY, LabelTable

SLACK = 1e-6
"""How far beyond its image a box may reach, px: what x + w loses in rounding."""

WHOLE_IMAGE = 0.95
"""Share of the image's area from which a box is the whole image."""


def finite_boxes(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Return the (B,) bool of boxes whose (B, 4) numbers are all finite."""
    return np.isfinite(boxes_xyxy).all(axis=1)


def sound_boxes(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Return the (B,) bool of (B, 4) boxes that are finite and have an area."""
    with np.errstate(invalid="ignore"):
        has_area = (boxes_xyxy[:, 2] > boxes_xyxy[:, 0]) & (boxes_xyxy[:, 3] > boxes_xyxy[:, 1])
    return finite_boxes(boxes_xyxy) & has_area


def find_box_faults(table: LabelTable, min_box_size: float) -> Iterator[Finding]:
    """Find the faults of boxes, but for those that only a class as a whole shows.

    A box that is not finite, or has no area, breaks that rule alone.

    Args:
        table: The labels; an image of unknown size has no right and no lower border.
        min_box_size: Least side in pixels.
    """
    boxes = table.boxes_xyxy
    is_finite = finite_boxes(boxes)
    is_sound = sound_boxes(boxes)
    yield from _each(table, "not_finite", ~is_finite, lambda _: "a coordinate is not finite")
    yield from _each(
        table,
        "degenerate_box",
        is_finite & ~is_sound,
        lambda index: f"has no area ({_size_text(boxes[index])} px)",
    )
    sides = _sides(boxes, is_sound)
    yield from _each(
        table,
        "tiny_box",
        is_sound & (sides.min(axis=1) < min_box_size),
        lambda index: f"is {_size_text(boxes[index])} px, under {min_box_size:g}",
    )
    yield from _find_misplaced(table, is_sound)
    yield from _each(
        table,
        "unknown_category",
        is_sound & (table.categories == UNKNOWN_CATEGORY),
        lambda index: f"category {_word(table, index)} is not among the classes",
    )
    yield from find_duplicate_boxes(table, is_sound)
    yield from _find_whole_image_boxes(table, is_sound)


def box_finding(table: LabelTable, rule: str, index: int, message: str) -> Finding:
    """Return the finding of one box.

    Args:
        table: The labels.
        rule: A key of ``RULES``.
        index: Of the box.
        message: What is wrong with it.
    """
    x1, y1, x2, y2 = table.boxes_xyxy[index].tolist()
    category = int(table.categories[index])
    return Finding(
        rule,
        table.image_names[table.box_images[index]],
        int(table.box_rows[index]),
        (x1, y1, x2, y2),
        table.class_names[category] if category >= 0 else None,
        message,
        bool(table.is_region[index]),
    )


def find_duplicate_boxes(table: LabelTable, is_candidate: np.ndarray) -> Iterator[Finding]:
    """Find boxes that repeat an earlier one of their image: numbers, category and region flag.

    Args:
        table: The labels.
        is_candidate: (B,) bool, the boxes to compare.
    """
    indices = np.flatnonzero(is_candidate)
    keys = (
        *table.boxes_xyxy[indices].T,
        table.categories[indices],
        table.is_region[indices],
        table.box_images[indices],
    )
    order = np.lexsort(keys)  # stable: of equal boxes the earlier one comes first
    repeats = np.zeros(len(order), dtype=bool)
    repeats[1:] = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
    first_place = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(order))))
    first = indices[order[first_place[repeats]]]
    for index, earlier in sorted(zip(indices[order[repeats]].tolist(), first, strict=True)):
        message = f"is the box of row {table.box_rows[earlier]} again"
        yield box_finding(table, "duplicate_box", index, message)


def _each(
    table: LabelTable, rule: str, is_found: np.ndarray, describe: Callable[[int], str]
) -> Iterator[Finding]:
    for index in np.flatnonzero(is_found).tolist():
        yield box_finding(table, rule, index, describe(index))


def _find_misplaced(table: LabelTable, is_sound: np.ndarray) -> Iterator[Finding]:
    """Find boxes beyond the rim of their image, and those whose centre is."""
    boxes = np.where(is_sound[:, None], table.boxes_xyxy, 0.0)
    right, bottom = _borders(table)
    beyond: np.ndarray = np.stack(
        [-boxes[:, 0], -boxes[:, 1], boxes[:, 2] - right, boxes[:, 3] - bottom], axis=1
    )

    def reach(index: int) -> str:
        names = ("left", "top", "right", "bottom")
        parts = [
            f"{pixels:g} px beyond the {name}"
            for name, pixels in zip(names, beyond[index].tolist(), strict=True)
            if pixels > SLACK
        ]
        return f"reaches {', '.join(parts)}{_image_text(right[index], bottom[index])}"

    yield from _each(table, "outside_image", beyond.max(axis=1) > SLACK, reach)
    centres = boxes[:, :2] / 2 + boxes[:, 2:] / 2  # halves first: the sum may overflow
    is_beyond = (centres[:, 0] < -SLACK) | (centres[:, 0] > right + SLACK)
    is_beyond |= (centres[:, 1] < -SLACK) | (centres[:, 1] > bottom + SLACK)

    def centre(index: int) -> str:
        x, y = centres[index].tolist()
        of_image = _image_text(right[index], bottom[index])
        return f"has its centre ({x:g}, {y:g}) beyond the rim{of_image}"

    yield from _each(table, "centre_outside_image", is_beyond, centre)


def _find_whole_image_boxes(table: LabelTable, is_sound: np.ndarray) -> Iterator[Finding]:
    boxes = np.where(is_sound[:, None], table.boxes_xyxy, 0.0)
    right, bottom = _borders(table)
    limits = np.stack([right, bottom], axis=1)
    inside = np.clip(np.minimum(boxes[:, 2:], limits) - np.maximum(boxes[:, :2], 0.0), 0.0, None)
    with np.errstate(over="ignore"):  # without a border the share is 0
        share = inside[:, 0] / right * (inside[:, 1] / bottom)
    yield from _each(
        table,
        "whole_image_box",
        (share >= WHOLE_IMAGE) & ~table.is_region,
        lambda index: f"covers {100 * share[index]:.0f} % of its image",
    )


def _borders(table: LabelTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the (B,) right and lower border of the image of each box, infinite where unknown."""
    right = np.where(table.widths > 0, table.widths, np.inf)[table.box_images]
    bottom = np.where(table.heights > 0, table.heights, np.inf)[table.box_images]
    return right, bottom


def _sides(boxes_xyxy: np.ndarray, is_sound: np.ndarray) -> np.ndarray:
    """Return the (B, 2) width and height, infinite for boxes that are not sound."""
    sides = np.full((len(boxes_xyxy), 2), np.inf)
    with np.errstate(over="ignore"):
        sides[is_sound] = boxes_xyxy[is_sound, 2:] - boxes_xyxy[is_sound, :2]
    return sides


def _word(table: LabelTable, index: int) -> str:
    return repr(table.category_words[int(table.box_rows[index])])


def _size_text(box_xyxy: Box | np.ndarray) -> str:
    x1, y1, x2, y2 = box_xyxy
    return f"{x2 - x1:g} x {y2 - y1:g}"


def _image_text(right: float, bottom: float) -> str:
    if np.isfinite(right) and np.isfinite(bottom):
        return f" of the {right:g} x {bottom:g} image"
    return " of the image"
