"""Detections as a result file states them, before they are held against the labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RawDetections:
    """D detections in the order of their file; numbers may still be anything.

    Attributes:
        path: The file, for messages.
        image_ids: (D,) as the file spells them.
        id_offset: What an image's id in the label file is less than here: 1 in a ``.txt``.
        numbers: (D, 5) float64: x, y, width, height in pixels, score.
        categories: (D,) as the file spells them, or None where it states none.
        class_names: What categories 0, 1, ... are called, by a file that says so; else None.
        where: Names file and line of a detection 0..D-1.
    """

    path: Path
    image_ids: Sequence[Any] | np.ndarray
    id_offset: int
    numbers: np.ndarray
    categories: Sequence[Any] | None
    class_names: tuple[str, ...] | None
    where: Callable[[int], str]
