"""A trained detector as a function: images in, detections out."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torchvision import tv_tensors

from d2pd.d2 import CfgNode
from d2pd.data.augmentation import build_augmentation
from d2pd.data.images import read_pictures, stack_pictures
from d2pd.data.modality import Channels, channels_of
from d2pd.errors import ConfigError
from d2pd.inference.detections import Detections
from d2pd.inference.trained_model import read_trained_model
from d2pd.modeling.batch_detections import BatchDetections
from d2pd.modeling.build import SSD_SEG, build_detector
from d2pd.training.preflight import resolve_device
from d2pd.training.starting_model import check_whole
from d2pd.training.weights.matching import WeightsFile
from d2pd.training.weights.weights_loading import load_weights


@dataclass(frozen=True)
class Timing:
    """How long a predictor took: resizing, model and boxes, without reading the file.

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


@dataclass(frozen=True)
class Prepared:
    """An image as the model takes it.

    Attributes:
        pixels: (C, h, w) uint8 on the CPU, resized.
        image: As it was given.
    """

    pixels: torch.Tensor
    image: np.ndarray

    @property
    def batch_key(self) -> tuple[int, ...]:
        """What images that are computed together have in common: their resized shape."""
        return tuple(self.pixels.shape)


class Predictor:
    """Detects objects in images, which it prepares exactly as evaluation does.

    An image is (H, W, 3) uint8, channels BGR as OpenCV reads them; a thermal one has three equal
    channels; for a model of both cameras it is (H, W, 6), the visible image and behind it the
    thermal one: ``np.dstack([visible, lwir])``.

    Args:
        cfg: The configuration of the model.
        weights: Its weights; None keeps the initial values.
        class_names: Of class 0, 1, ...
        half: Compute in half precision: fp16 on a GPU, bf16 on a CPU.

    Attributes:
        core: The model as one function of tensors.

    Raises:
        DeviceError: If this machine lacks ``MODEL.DEVICE``.
        WeightsError: If the weights are of another model.
    """

    def __init__(
        self,
        cfg: CfgNode,
        weights: WeightsFile | None = None,
        class_names: Sequence[str] = (),
        *,
        half: bool = False,
    ) -> None:
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
        self.cfg.freeze()
        self.device = torch.device(self.cfg.MODEL.DEVICE)
        count = self.cfg.MODEL.ROI_HEADS.NUM_CLASSES
        self.class_names = tuple(class_names or (f"class {number}" for number in range(count)))
        self.half = half
        self.model, self.core = build_detector(self.cfg)
        if weights is not None:
            check_whole(load_weights(self.model, weights), weights)
        self.transforms = build_augmentation(self.cfg, is_train=False)
        self.channels = channels_of(self.cfg.INPUT.MODALITY, len(self.cfg.MODEL.PIXEL_MEAN))

    @overload
    def predict(  # type: ignore[overload-overlap]  # an array is iterable too
        self, images: np.ndarray, *, threshold: float = ..., batch: int = ...
    ) -> Detections: ...

    @overload
    def predict(
        self, images: Iterable[np.ndarray], *, threshold: float = ..., batch: int = ...
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
            ValueError: If an image is not an array as the class describes it.
            ConfigError: If an image is too small for the model.
        """
        if isinstance(images, np.ndarray) and images.ndim != 4:
            return self._of_batch([self.prepare(images)], threshold)[0]
        found: list[Detections] = []
        waiting: list[Prepared] = []
        for image in images:
            prepared = self.prepare(image)
            if waiting and (len(waiting) == batch or prepared.batch_key != waiting[0].batch_key):
                found += self._of_batch(waiting, threshold)
                waiting = []
            waiting.append(prepared)
        return found + (self._of_batch(waiting, threshold) if waiting else [])

    def _of_batch(self, prepared: Sequence[Prepared], threshold: float) -> list[Detections]:
        return self.finish(self.detect(prepared), prepared, threshold)

    def prepare(self, image: np.ndarray) -> Prepared:
        """Resize an image as the model takes it; may run in a thread of its own.

        Raises:
            ValueError: If it is not an array as the class describes it.
        """
        _check_image(image, self.channels)
        pictures = np.split(image, len(self.channels.of_cameras), axis=2)
        pixels = stack_pictures(pictures, self.channels, self.cfg.INPUT.FORMAT)
        resized = self.transforms(tv_tensors.Image(pixels)).as_subclass(torch.Tensor)
        return Prepared(resized.contiguous(), image)

    def detect(self, prepared: Sequence[Prepared]) -> BatchDetections:
        """Run the model on images of one size; what it finds stays on its device.

        Raises:
            ConfigError: If the images are too small for the model.
        """
        pixels = torch.stack([each.pixels for each in prepared]).to(self.device)
        with torch.inference_mode(), self._precision():
            found: BatchDetections = self.core(pixels)
        return found

    def _precision(self) -> AbstractContextManager[Any]:
        kind = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, kind, enabled=self.half)

    def finish(
        self, of_batch: BatchDetections, prepared: Sequence[Prepared], threshold: float
    ) -> list[Detections]:
        """Scale what was found to the images as they were given.

        Args:
            of_batch: What ``detect`` returned.
            prepared: What it was given.
            threshold: Least score of a detection.
        """
        on_cpu = BatchDetections(*(part.cpu() for part in of_batch))
        return [
            self._of_image(on_cpu.of_image(index), each).above(threshold)
            for index, each in enumerate(prepared)
        ]

    def _of_image(
        self, found: tuple[torch.Tensor, torch.Tensor, torch.Tensor], prepared: Prepared
    ) -> Detections:
        height, width = prepared.image.shape[:2]
        rows, columns = prepared.pixels.shape[1:]
        boxes, scores, classes = (part.numpy() for part in found)
        # As Detectron2 scales them, to the bit.
        scaled = boxes * np.array([width / columns, height / rows] * 2, dtype=np.float32)
        scaled = scaled.clip(0, np.array([width, height] * 2, dtype=np.float32))
        has_area = (scaled[:, 2:] > scaled[:, :2]).all(axis=1)
        return Detections(
            scaled[has_area],
            scores[has_area],
            classes[has_area],
            self.class_names,
            prepared.image,
        )

    def heat_maps(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return where the segmentation layers of the model see an object.

        Args:
            image: See the class.

        Returns:
            By the names of the maps with such a layer, (rows, columns) float32 in [0, 1], of the
            whole image.

        Raises:
            ConfigError: If the model has no segmentation layers.
            ValueError: If it is not an array as the class describes it.
        """
        if not self.has_heat_maps:
            raise ConfigError(
                f"this model ({self.cfg.MODEL.META_ARCHITECTURE}) has no segmentation layers, and "
                "so no heat maps: train SSDSeg with MODEL.SSD.SEG.MAPS, such as [True, True, "
                "False, False, False, False]"
            )
        model: Any = self.model  # SSDSeg, which has this method
        (heat,) = model.heat_maps([{"image": self.prepare(image).pixels}])
        return {name: probability.cpu().numpy() for name, probability in heat.items()}

    @property
    def score_floor(self) -> float:
        """Score under which the model finds nothing, whatever the threshold."""
        model = self.cfg.MODEL
        is_ssd = model.META_ARCHITECTURE == SSD_SEG
        return float((model.SSD if is_ssd else model.ROI_HEADS).SCORE_THRESH_TEST)

    @property
    def has_heat_maps(self) -> bool:
        """Whether the model has segmentation layers."""
        model = self.cfg.MODEL
        return model.META_ARCHITECTURE == SSD_SEG and any(model.SSD.SEG.MAPS)

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
        return np.dstack(read_pictures(record, self.cfg.INPUT.MODALITY))

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


def _check_image(image: Any, channels: Channels) -> None:
    depth = 3 * len(channels.of_cameras)
    wanted = f"an image is an (H, W, {depth}) uint8 array"
    if channels.modality == "both":
        wanted += ", np.dstack([visible, lwir])"
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{wanted}; got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != depth or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"{wanted}; got {image.shape} {image.dtype}")


def load(
    weights: str | Path,
    *,
    config_file: str | Path = "",
    opts: Sequence[str] = (),
    device: str = "auto",
    half: bool = False,
) -> Predictor:
    """Load a trained detector; see ``trained_model.read_trained_model``.

    Args:
        weights: A checkpoint, or the ``OUTPUT_DIR`` of a training.
        config_file: For a checkpoint that does not carry its configuration.
        opts: ``KEY VALUE ...`` over the configuration.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        half: Compute in half precision: fp16 on a GPU, bf16 on a CPU.

    Raises:
        UserError: For all that is wrong with weights, configuration or device.
    """
    trained = read_trained_model(weights, config_file, opts)
    trained.cfg.MODEL.DEVICE = device
    return Predictor(trained.cfg, trained.weights, trained.class_names, half=half)
