"""What detects: images in, detections out, whether by one model or by several."""

import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np
import torch

from d2pd.data.images import read_pictures
from d2pd.data.modality import Channels
from d2pd.inference.batches import in_batches
from d2pd.inference.detections import Detections


class PreparedImage(Protocol):
    """An image as a detector takes it."""

    @property
    def batch_key(self) -> Hashable:
        """What images that are computed together have in common."""

    @property
    def image(self) -> np.ndarray:
        """The image as it was given."""


@dataclass(frozen=True)
class Timing:
    """How long detection took: resizing, model and boxes, without reading the file.

    Attributes:
        seconds: Of each image, in the order of the images.
        device: Where the model ran.
    """

    seconds: tuple[float, ...]
    device: str

    @property
    def mean(self) -> float:
        """Mean time of an image in seconds."""
        return sum(self.seconds) / len(self.seconds)

    @property
    def fps(self) -> float:
        """Images a second, one at a time."""
        return 1 / self.mean

    def __str__(self) -> str:
        return (
            f"{1000 * self.mean:.1f} ms an image, {self.fps:.1f} FPS "
            f"({len(self.seconds)} images, one at a time, on {self.device})"
        )


P = TypeVar("P", bound=PreparedImage)
F = TypeVar("F")


class Detector(ABC, Generic[P, F]):
    """Detects objects in images, in three steps: ``prepare``, ``detect``, ``finish``.

    An image is (H, W, 3) uint8, channels BGR as OpenCV reads them; a thermal one has three equal
    channels; for a model of both cameras it is (H, W, 6), the visible image and behind it the
    thermal one: ``np.dstack([visible, lwir])``.

    Attributes:
        class_names: Of class 0, 1, ...
        channels: Of an image as the model gets it; they say which cameras it is for.
        device: Where the model runs.
        name: The weights file, for messages.
        score_floor: Score under which nothing is found, whatever the threshold.
    """

    class_names: tuple[str, ...]
    channels: Channels
    device: torch.device
    name: str
    score_floor: float

    @abstractmethod
    def prepare(self, image: np.ndarray) -> P:
        """Resize an image as the model takes it; may run in a thread of its own.

        Raises:
            ValueError: If it is not an array as the class describes it.
        """

    @abstractmethod
    def detect(self, prepared: Sequence[P]) -> F:
        """Run the model on images of one ``batch_key``; what it finds stays on its device.

        Raises:
            ConfigError: If the images are too small for the model.
        """

    @abstractmethod
    def finish(self, of_batch: F, prepared: Sequence[P], threshold: float) -> list[Detections]:
        """Scale what was found to the images as they were given.

        Args:
            of_batch: What ``detect`` returned.
            prepared: What it was given.
            threshold: Least score of a detection.
        """

    @overload
    def predict(
        self, images: np.ndarray, *, threshold: float = ..., batch: int = ...
    ) -> Detections: ...

    # Not any Iterable: an array is one too, and a type checker would know of neither.
    @overload
    def predict(
        self,
        images: Sequence[np.ndarray] | Iterator[np.ndarray],
        *,
        threshold: float = ...,
        batch: int = ...,
    ) -> list[Detections]: ...

    def predict(
        self,
        images: np.ndarray | Iterable[np.ndarray],
        *,
        threshold: float = 0.5,
        batch: int = 1,
    ) -> Detections | list[Detections]:
        """Detect objects in images, or in one.

        Args:
            images: See the class; of any sizes.
            threshold: Least score of a detection, 0 to 1; 0 gives all, as a miss rate needs them.
            batch: Images to compute at once; they are those in a row that have the same size.

        Returns:
            For each image, in pixels of the image given; for one image, what was found in it.

        Raises:
            ValueError: If an image is not an array as the class describes it, or ``threshold`` or
                ``batch`` is out of range.
            ConfigError: If an image is too small for the model.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is a score from 0 to 1, got {threshold}")
        if batch < 1:
            raise ValueError(f"batch is a number of images, 1 or more, got {batch}")
        if images is None or (isinstance(images, np.ndarray) and images.ndim != 4):
            return self._of_batch([self.prepare(images)], threshold)[0]
        batches = in_batches(map(self.prepare, images), attrgetter("batch_key"), batch)
        return [found for each in batches for found in self._of_batch(each, threshold)]

    def _of_batch(self, prepared: Sequence[P], threshold: float) -> list[Detections]:
        return self.finish(self.detect(prepared), prepared, threshold)

    def predict_records(self, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Detect objects in the images of dataset_dicts, of the modality the model is for.

        Returns:
            COCO results: ``image_id``, ``category_id`` 0..K-1, ``bbox`` XYWH, ``score``.

        Raises:
            MissingFileError: If an image is not there.
            AnnotationError: If one cannot be decoded, a record has none of a camera, or the two
                of a pair differ in size.
        """
        rows = []
        for record in records:
            found = self.predict(self.read(record), threshold=0)
            rows += found.coco_results(record["image_id"])
        return rows

    def read(self, record: Mapping[str, Any]) -> np.ndarray:
        """Read the image of a dataset_dict that the model is for, as ``predict`` takes it."""
        return np.dstack(read_pictures(record, self.channels.modality))

    def time(self, images: Sequence[np.ndarray], *, warm_up: int = 3) -> Timing:
        """Measure how long detection takes, one image at a time.

        Args:
            images: See the class; at least one.
            warm_up: Detections made and not counted before the first that is.

        Raises:
            ValueError: If there is no image.
        """
        if not len(images):
            raise ValueError("nothing to time: give at least one image")
        for image in islice(cycle(images), warm_up):
            self.predict(image)
        return Timing(tuple(self._seconds(image) for image in images), str(self.device))

    def _seconds(self, image: np.ndarray) -> float:
        start = time.perf_counter()
        self.predict(image)
        return time.perf_counter() - start
