"""What ``d2pd predict`` asks of a detector."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from d2pd.data.modality import Channels
from d2pd.inference.detections import Detections


class PreparedImage(Protocol):
    """An image as a detector takes it."""

    @property
    def batch_key(self) -> Any:
        """What images that are computed together have in common."""

    @property
    def image(self) -> np.ndarray:
        """The image as it was given."""


class Detector(Protocol):
    """A detector in three steps, each of which may run in a thread of its own."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def class_names(self) -> Sequence[str]:
        """Of class 0, 1, ..."""

    @property
    def channels(self) -> Channels:
        """What an image consists of."""

    @property
    def score_floor(self) -> float:
        """Score under which it finds nothing, whatever the threshold."""

    def prepare(self, image: np.ndarray) -> Any:
        """Turn an image into a ``PreparedImage``.

        Raises:
            ValueError: If it is no image of these channels.
        """

    def detect(self, prepared: Sequence[Any]) -> Any:
        """Find objects in prepared images of one ``batch_key``.

        Raises:
            ConfigError: If the images cannot be used, being too small.
        """

    def finish(self, of_batch: Any, prepared: Sequence[Any], threshold: float) -> list[Detections]:
        """Return what ``detect`` has found in each image, with this score or more."""
