"""What a registered dataset is read from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2pd.data.annotations import Labels, read_coco_json, read_csv, read_kaist_json
from d2pd.data.drawn_on_first_use import DrawingSize, ensure_drawn

FORMATS = ("kaist", "coco", "csv", "synthetic")
KAIST_CLASSES = ("person",)


@dataclass(frozen=True)
class DatasetSource:
    """All that a registered dataset is read from; equal sources give equal records.

    Attributes:
        format: One of ``FORMATS``.
        annotations: Label file.
        images: Folder that image names start from.
        class_names: Names of category 0, 1, ...; empty: those of the file.
        min_box_size: Least width and height of a box in pixels.
        options: Further arguments of the reader.
        drawing: What to draw, for ``synthetic``.
    """

    format: str
    annotations: Path
    images: Path
    class_names: tuple[str, ...] = ()
    min_box_size: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    drawing: DrawingSize | None = None

    def read(self, images: Path | None) -> Labels:
        """Read the labels, without pictures if ``images`` is None."""
        if self.drawing is not None:
            ensure_drawn(self.annotations, self.drawing)
        if self.format == "csv":
            return read_csv(
                self.annotations, images, class_names=self.class_names or None, **self.options
            )
        if self.format == "coco":
            return read_coco_json(self.annotations, images, class_names=self.class_names or None)
        classes = self.class_names or KAIST_CLASSES
        return read_kaist_json(self.annotations, images, class_names=classes, **self.options)
