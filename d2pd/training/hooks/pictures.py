"""Pictures of a run while it goes on: curves, detections, and what the model gets to see."""

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np

from d2pd.d2 import HookBase, comm
from d2pd.reporting.curves import draw_curves
from d2pd.training.hooks.scalar_history import WINDOW
from d2pd.training.pictures import attempt

MOST_WIDTH = 1600
"""Pixels; wider pictures are made smaller for TensorBoard."""


class Pictures(HookBase):
    """Draws the pictures again at each evaluation and puts them into the event storage.

    On the main process alone. A picture that cannot be drawn is a warning: the training is worth
    more. Comes after the hooks that decide by an evaluation and before the writers.
    """

    def __init__(
        self, output_dir: str | Path, draw_detections: Callable[[], Mapping[str, Path]]
    ) -> None:
        """Set up.

        Args:
            output_dir: Holds ``metrics.json`` and ``train_batch.png``; gets ``curves.png``.
            draw_detections: Draws what the last evaluation has found: what it is -> the picture.
        """
        self._output_dir = Path(output_dir)
        self._draw_detections = draw_detections

    def before_train(self) -> None:
        """Show the first samples, once a run."""
        if comm.is_main_process() and self.trainer.start_iter == 0:
            self._show(self._output_dir / "train_batch.png")

    def after_step(self) -> None:
        """Draw after an evaluation."""
        if comm.is_main_process() and self.trainer.is_evaluation_due():
            attempt("detections", self._show_detections)
            attempt("curves", self._show_curves)

    def _show_detections(self) -> None:
        for path in self._draw_detections().values():
            self._show(path)

    def _show_curves(self) -> None:
        """Draw what is written, and what the writers will write of this iteration."""
        trainer, path = self.trainer, self._output_dir / "curves.png"
        draw_curves(
            self._output_dir / "metrics.json",
            path,
            latest=trainer.storage.latest_with_smoothing_hint(WINDOW),
            stopped=(trainer.iter, trainer.stop_reason) if trainer.stop_reason else None,
        )
        self._show(path)

    def _show(self, path: Path) -> None:
        def put() -> None:
            self.trainer.storage.put_image(f"pictures/{path.stem}", read_rgb(path))

        if path.is_file():
            attempt(path.name, put)


def read_rgb(path: Path) -> np.ndarray:
    """Read a picture for the event storage.

    Returns:
        (3, H, W) uint8, RGB, at most ``MOST_WIDTH`` wide.

    Raises:
        ValueError: If it is no picture.
    """
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} is not a picture that OpenCV can read")
    height, width = image.shape[:2]
    if width > MOST_WIDTH:
        size = (MOST_WIDTH, max(1, round(height * MOST_WIDTH / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
