"""A trained detector as a function: image in, detections out."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors

from d2pd.config import load_config
from d2pd.d2 import CfgNode, Instances
from d2pd.data.augmentation import build_augmentation
from d2pd.data.images import read_pictures, stack_pictures
from d2pd.data.modality import Channels, channels_of
from d2pd.errors import ConfigError, MissingFileError
from d2pd.evaluation.evaluators import coco_rows
from d2pd.modeling.build import build_model
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.preflight import resolve_device


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


class Predictor:
    """Detects objects in one image at a time, prepared exactly as in evaluation.

    In: (H, W, 3) uint8, channels BGR as OpenCV reads them; a thermal image as three equal
    channels; for a model of both cameras (H, W, 6), the visible image and behind it the thermal
    one: ``np.dstack([visible, lwir])``.

    Out: ``Instances`` on the CPU, in pixels of the image given, the best score first:
    ``pred_boxes`` (N, 4) XYXY, ``scores`` (N,) in [0, 1], ``pred_classes`` (N,) in 0..K-1.

    Args:
        cfg: The configuration of the model; ``MODEL.WEIGHTS`` names its weights.

    Raises:
        DeviceError: If this machine lacks ``MODEL.DEVICE``.
        MissingFileError: If the weights are not there.
        WeightsError: If the weights are damaged or of another model.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
        self.cfg.freeze()
        self.model = build_model(self.cfg).eval()
        Checkpointer(self.model).load(self.cfg.MODEL.WEIGHTS)
        self.transforms = build_augmentation(self.cfg, is_train=False)
        self.channels = channels_of(self.cfg.INPUT.MODALITY, len(self.cfg.MODEL.PIXEL_MEAN))

    def __call__(self, image: np.ndarray) -> Instances:
        """Detect objects in an image.

        Raises:
            ValueError: If it is not a uint8 array of the shape that the class names.
        """
        with torch.no_grad():
            output = self.model([self._sample(image)])[0]
        instances: Instances = output["instances"].to("cpu")
        return instances

    def heat_maps(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return where the segmentation layers of the model see an object.

        Args:
            image: As for a call.

        Returns:
            By the names of the maps with such a layer, (rows, columns) float32 in [0, 1], of the
            whole image.

        Raises:
            ConfigError: If the model has no segmentation layers.
            ValueError: As for a call.
        """
        if not self.has_heat_maps:
            raise ConfigError(
                f"this model ({self.cfg.MODEL.META_ARCHITECTURE}) has no segmentation layers, and "
                "so no heat maps: train SSDSeg with MODEL.SSD.SEG.MAPS, such as [True, True, "
                "False, False, False, False]"
            )
        model: Any = self.model  # SSDSeg, which has this method
        (heat,) = model.heat_maps([self._sample(image)])
        return {name: probability.cpu().numpy() for name, probability in heat.items()}

    @property
    def has_heat_maps(self) -> bool:
        """Whether the model has segmentation layers."""
        model = self.cfg.MODEL
        return model.META_ARCHITECTURE == "SSDSeg" and any(model.SSD.SEG.MAPS)

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
            rows += coco_rows(self(self.read(record)), record["image_id"])
        return rows

    def read(self, record: Mapping[str, Any]) -> np.ndarray:
        """Read the image of a dataset_dict that the model is for, as a call takes it."""
        return np.dstack(read_pictures(record, self.cfg.INPUT.MODALITY))

    def _sample(self, image: np.ndarray) -> dict[str, Any]:
        _check_image(image, self.channels)
        pictures = np.split(image, len(self.channels.of_cameras), axis=2)
        pixels = stack_pictures(pictures, self.channels, self.cfg.INPUT.FORMAT)
        resized = self.transforms(tv_tensors.Image(pixels)).as_subclass(torch.Tensor)
        return {"image": resized, "height": image.shape[0], "width": image.shape[1]}

    def time(self, images: Sequence[np.ndarray], *, warm_up: int = 3) -> Timing:
        """Measure how long detection takes, one image at a time.

        Args:
            images: As for a call; at least one.
            warm_up: Detections made and not counted before the first that is.

        Raises:
            ValueError: If there is no image.
        """
        if not images:
            raise ValueError("nothing to time: give at least one image")
        for image in islice(cycle(images), warm_up):
            self(image)
        seconds = tuple(self._seconds(image) for image in images)
        return Timing(seconds, self.cfg.MODEL.DEVICE)

    def _seconds(self, image: np.ndarray) -> float:
        start = time.perf_counter()
        self(image)
        if self.cfg.MODEL.DEVICE.startswith("cuda"):
            torch.cuda.synchronize()
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


def load_predictor(
    run: str | Path, weights: str | Path | None = None, *, device: str = "auto"
) -> Predictor:
    """Load a trained detector.

    Args:
        run: The ``OUTPUT_DIR`` of a training, whose newest weights are taken; or a config file,
            whose ``MODEL.WEIGHTS`` are.
        weights: Take these instead: a path, or a location as ``MODEL.WEIGHTS`` takes it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        MissingFileError: If the folder holds no run, or no weights are named or there.
        UserError: For all else that is wrong with configuration, weights or device.
    """
    path = Path(run)
    config_file = path / "config.yaml" if path.is_dir() else path
    if not config_file.is_file():
        raise MissingFileError(
            f"no trained model in {path}: {config_file} is not there; train one (`make demo` takes "
            "minutes), or name its OUTPUT_DIR"
        )
    cfg = load_config(config_file)
    if weights is None and path.is_dir():
        weights = newest_weights(path)
    if weights is not None:
        cfg.MODEL.WEIGHTS = str(weights)
    if not cfg.MODEL.WEIGHTS:
        raise MissingFileError(
            f"{config_file} names no weights (MODEL.WEIGHTS): give the OUTPUT_DIR of a training, "
            "or weights"
        )
    cfg.MODEL.DEVICE = device
    return Predictor(cfg)


def newest_weights(output_dir: Path) -> Path:
    """Return the weights that a run saved last.

    Raises:
        MissingFileError: If it has not saved any.
    """
    tag = output_dir / "last_checkpoint"
    name = tag.read_text(encoding="utf-8").strip() if tag.is_file() else "model_final.pth"
    path = output_dir / name
    if not path.is_file():
        raise MissingFileError(
            f"no weights in {output_dir}: {path.name} is not there; the training has not saved any "
            "yet, or it was moved: give the OUTPUT_DIR of a run that has some, or MODEL.WEIGHTS"
        )
    return path
