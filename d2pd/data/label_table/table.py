"""The content of a label file in columns, faults included."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

UNKNOWN_CATEGORY = -2
"""Category of a box whose class the file does not list, or does not say."""

NOT_STATED = -1
"""Occlusion of a box of which the file says nothing."""


@dataclass(frozen=True)
class MalformedRow:
    """A row that cannot be read as a box or an image, and that no array holds.

    Attributes:
        row: Position in the JSON list from 0, or line of a CSV from 1.
        place: ``annotation``, ``image`` or ``line``: what ``row`` counts.
        message: What is wrong and what would be right; begins with place and row.
        image: Name of the image it belongs to, None where that cannot be told.
    """

    row: int
    place: str
    message: str
    image: str | None


@dataclass(frozen=True)
class LabelTable:
    """All rows of a label file; I images, B boxes, both in the order of the file.

    A row is the position in the JSON list ``images`` or ``annotations`` from 0, or the line of a
    CSV from 1. Class 0..K-1 is an index into ``class_names``.

    Attributes:
        path: The file.
        format: ``kaist``, ``coco`` or ``csv``.
        box_format: How the file writes a box, ``xyxy`` or ``xywh``; JSON is always ``xywh``.
        image_names: (I,) ``im_name``, ``file_name`` or cell; JSON may repeat a name, a CSV has one
            entry for each different name.
        image_ids: (I,) ids of a JSON, 0..I-1 for a CSV.
        image_rows: (I,) int64, row of each image; of a CSV the first line that names it.
        heights: (I,) float64, pixels, 0 where the file states none (KAIST: 512).
        widths: (I,) float64, pixels, 0 where the file states none (KAIST: 640).
        box_images: (B,) int64, index of the image of each box, not its id.
        boxes_xyxy: (B, 4) float64, pixels, as the file says: NaN, infinite and negative sizes are
            kept.
        box_rows: (B,) int64, row of each box, ascending.
        categories: (B,) int64, class 0..K-1, ``IGNORE_REGION`` (-1) or ``UNKNOWN_CATEGORY`` (-2).
        class_names: (K,) names of the classes.
        category_words: What the file says of an unknown category, by row of the box.
        is_region: (B,) bool, True for a region to ignore: category -1, or a flag that says so.
        occlusion: (B,) int8, 0 none, 1 partial, 2 heavy, ``NOT_STATED`` (-1).
        malformed: Rows that none of the arrays hold.
        repeated: Index of the image by line, for lines of a CSV that name, without a box, an image
            that an earlier line names; empty for JSON.
        columns: Names of the columns of a CSV, where they were given in place of its header.
    """

    path: Path
    format: str
    box_format: str
    image_names: list[str]
    image_ids: list[int | str]
    image_rows: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    box_images: np.ndarray
    boxes_xyxy: np.ndarray
    box_rows: np.ndarray
    categories: np.ndarray
    class_names: tuple[str, ...]
    category_words: Mapping[int, str]
    is_region: np.ndarray
    occlusion: np.ndarray
    malformed: list[MalformedRow]
    repeated: Mapping[int, int]
    columns: tuple[str, ...] | None = None

    @property
    def num_images(self) -> int:
        """Number of images that could be read."""
        return len(self.image_names)

    @property
    def num_boxes(self) -> int:
        """Number of boxes that could be read."""
        return len(self.boxes_xyxy)
