"""What was found in one image, as plain arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from d2pd.evaluation.coco import coco_results

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Detections:
    """N objects in one image, the best first.

    Attributes:
        boxes_xyxy: (N, 4) float32, px of the image, inside it.
        scores: (N,) float32 in [0, 1].
        classes: (N,) int64, positions in ``class_names``.
        class_names: Of the model.
        image: (H, W, 3) uint8 BGR that they were found in, not copied; (H, W, 6) of a pair. None
            where there is none at hand.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    class_names: Sequence[str]
    image: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> "Detections":
        """Return those with this score or more."""
        chosen = self.scores >= threshold
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[chosen],
            scores=self.scores[chosen],
            classes=self.classes[chosen],
        )

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table: ``x1``, ``y1``, ``x2``, ``y2`` in px, ``score``, ``class`` by name."""
        import pandas as pd  # here: slow to import, and few need it

        table = pd.DataFrame(self.boxes_xyxy, columns=["x1", "y1", "x2", "y2"])
        table["score"] = self.scores
        table["class"] = [self.class_names[number] for number in self.classes]
        return table

    def coco_results(self, image_id: Any) -> list[dict[str, Any]]:
        """Return COCO results with this ``image_id``; see ``evaluation.coco.coco_results``."""
        return coco_results(image_id, self.boxes_xyxy, self.scores, self.classes)

    def draw(self) -> np.ndarray:
        """Return the image with the boxes on it; the two of a pair side by side.

        Returns:
            (H, W, 3) uint8 BGR, or (H, 2 W, 3).

        Raises:
            ValueError: If there is no image to draw on.
        """
        if self.image is None:
            raise ValueError("these detections have no image: give one, replace(found, image=...)")
        from d2pd.reporting.drawing import draw_boxes

        return draw_boxes(self)
