"""What a registered dataset is read from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from d2pd.data.annotations import Labels, read_coco_json, read_csv, read_kaist_json
from d2pd.data.annotations.labels import Select
from d2pd.data.drawn_on_first_use import DrawingSize, ensure_drawn
from d2pd.data.folds import FoldPart

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
        fold_part: The images to take, where the file is split; None takes all.
    """

    format: str
    annotations: Path
    images: Path
    class_names: tuple[str, ...] = ()
    min_box_size: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    drawing: DrawingSize | None = None
    fold_part: FoldPart | None = None

    def read(self, images: Path | None) -> Labels:
        """Read the labels, without pictures if ``images`` is None.

        Raises:
            UserError: If they, or the file of folds, cannot be read; the message says where.
        """
        if self.drawing is not None:
            ensure_drawn(self.annotations, self.drawing)
        select, classes = self._select(), self.class_names or None
        path, options = self.annotations, self.options
        if self.format == "csv":
            return read_csv(path, images, class_names=classes, select=select, **options)
        if self.format == "coco":
            return read_coco_json(path, images, class_names=classes, select=select)
        return read_kaist_json(
            path, images, class_names=classes or KAIST_CLASSES, select=select, **options
        )

    def _select(self) -> Select | None:
        if self.fold_part is None:
            return None
        is_whole = not any(self.options.get(key) for key in ("image_list", "include", "exclude"))
        return partial(self.fold_part.select, annotations=self.annotations, is_whole=is_whole)
