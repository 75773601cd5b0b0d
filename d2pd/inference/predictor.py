"""A trained detector as a function: images in, detections out."""

import copy
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from d2pd.d2 import CfgNode
from d2pd.data.augmentation import build_augmentation, build_sizes, make_augmentation
from d2pd.data.augmentation.sizes import Jittered
from d2pd.data.images import stack_pictures
from d2pd.data.modality import Channels, channels_of
from d2pd.errors import ConfigError
from d2pd.inference.detections import Detections
from d2pd.inference.detector import Detector
from d2pd.inference.ensemble import Ensemble
from d2pd.inference.trained_model import read_trained_model
from d2pd.inference.views import View, views_of
from d2pd.modeling.batch_detections import BatchDetections
from d2pd.modeling.build import SSD_SEG, build_detector, num_classes_of, score_floor_of
from d2pd.training.preflight import resolve_device
from d2pd.training.starting_model import check_fit
from d2pd.training.weights.matching import WeightsFile
from d2pd.training.weights.weights_loading import load_weights


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


class Predictor(Detector[Prepared, BatchDetections]):
    """Detects with one model, on images that it prepares exactly as evaluation does.

    Args:
        cfg: The configuration of the model.
        weights: Its weights; None keeps the initial values.
        class_names: Of class 0, 1, ...
        half: Compute in half precision: fp16 on a GPU, bf16 on a CPU.

    Attributes:
        core: The model as one function of tensors.
        view: How it looks at an image; see ``looking``.

    Raises:
        DeviceError: If this machine lacks ``MODEL.DEVICE``.
        ConfigError: If there is no such model, or the weights leave a part of it random.
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
        numbers = range(num_classes_of(self.cfg))
        self.class_names = tuple(class_names or (f"class {number}" for number in numbers))
        self.half = half
        if weights is not None:
            check_fit(self.cfg, weights)
        self.model, self.core = build_detector(self.cfg)
        self._random: tuple[str, ...] = ()  # what the weights lack, layers of training alone
        if weights is not None:
            match = load_weights(self.model, weights)
            self._random = (*match.missing, *(one.name for one in match.renewed))
        _, self.score_floor = score_floor_of(self.cfg)
        self.name = str(weights.path) if weights else "a model without weights"
        self.view = View()
        self.transforms: v2.Transform = build_augmentation(self.cfg, is_train=False)
        self.channels = channels_of(self.cfg.INPUT.MODALITY, len(self.cfg.MODEL.PIXEL_MEAN))

    def looking(self, view: View) -> "Predictor":
        """Return a predictor with the same model, in the same memory, that looks in another way.

        What it finds is in pixels of the image as it is given, mirrored back.
        """
        other = copy.copy(self)
        other.view = view
        sizes = Jittered(build_sizes(self.cfg, is_train=False), view.scale, view.scale)
        other.transforms = make_augmentation(sizes)
        return other

    def prepare(self, image: np.ndarray) -> Prepared:
        """Resize an image as the model takes it; see ``Detector``."""
        _check_image(image, self.channels)
        pictures = np.split(self.view.shown(image), len(self.channels.of_cameras), axis=2)
        pixels = stack_pictures(pictures, self.channels, self.cfg.INPUT.FORMAT)
        resized = self.transforms(tv_tensors.Image(pixels)).as_subclass(torch.Tensor)
        return Prepared(resized.contiguous(), image)

    def detect(self, prepared: Sequence[Prepared]) -> BatchDetections:
        """Run the model on images of one size; see ``Detector``."""
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
        """Scale what was found to the images as they were given; see ``Detector``."""
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
            self.view.mirrored_back(scaled[has_area], width),
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
            ConfigError: If the model has no segmentation layers, or its weights lack them.
            ValueError: If it is not an array as the class describes it.
        """
        if not self.has_heat_maps:
            raise ConfigError(
                f"this model ({self.cfg.MODEL.META_ARCHITECTURE}) has no segmentation layers, and "
                "so no heat maps: train SSDSeg with MODEL.SSD.SEG.MAPS, such as [True, True, "
                "False, False, False, False]"
            )
        if self._random:
            raise ConfigError(
                f"{self.name} lacks the segmentation layers ({self._random[0]}), and so there are "
                "no heat maps: give weights that were trained with them"
            )
        model: Any = self.model  # SSDSeg, which has this method
        (heat,) = model.heat_maps([{"image": self.prepare(image).pixels}])
        return {name: self.view.shown(part.cpu().numpy()) for name, part in heat.items()}

    @property
    def has_heat_maps(self) -> bool:
        """Whether the model has segmentation layers."""
        model = self.cfg.MODEL
        return model.META_ARCHITECTURE == SSD_SEG and any(model.SSD.SEG.MAPS)


def _check_image(image: Any, channels: Channels) -> None:
    depth = 3 * len(channels.of_cameras)
    wanted = f"an image is an (H, W, {depth}) uint8 array"
    if channels.modality == "both":
        wanted += ", np.dstack([visible, lwir])"
    if image is None:
        raise ValueError(f"{wanted}; got None, as cv2.imread gives for a file it cannot read")
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{wanted}; got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != depth or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"{wanted}; got {image.shape} {image.dtype}")


@overload
def load(
    weights: str | Path,
    *,
    config_file: str | Path = ...,
    opts: Sequence[str] = ...,
    device: str = ...,
    half: bool = ...,
) -> Predictor: ...


@overload
def load(
    weights: str | Path | Sequence[str | Path],
    *,
    flip: bool = ...,
    scales: Sequence[float] = ...,
    config_file: str | Path = ...,
    opts: Sequence[str] = ...,
    device: str = ...,
    half: bool = ...,
) -> Predictor | Ensemble: ...


def load(
    weights: str | Path | Sequence[str | Path],
    *,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    config_file: str | Path = "",
    opts: Sequence[str] = (),
    device: str = "auto",
    half: bool = False,
) -> Predictor | Ensemble:
    """Load a trained detector, or several as one; see ``trained_model.read_trained_model``.

    Each image costs a forward pass for each of the weights at each of the scales, twice with
    ``flip``; that at scale s takes about s * s as long as a plain one.

    Args:
        weights: A checkpoint, or the ``OUTPUT_DIR`` of a training; or several, whose detections
            are fused. They must have the same classes and cameras.
        flip: Detect in the mirror image as well.
        scales: Detect at these factors, 0.25 to 4, on the size that the configuration gives.
        config_file: For a checkpoint that does not carry its configuration; for all of several.
        opts: ``KEY VALUE ...`` over the configuration, of each.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        half: Compute in half precision: fp16 on a GPU, bf16 on a CPU.

    Returns:
        A ``Predictor`` for one model that looks at an image once, as evaluation does; else an
        ``Ensemble``.

    Raises:
        UserError: For all that is wrong with weights, configuration, device or options.
    """
    views = views_of(flip=flip, scales=scales)
    files = [weights] if isinstance(weights, str | Path) else list(weights)
    _check_files(files)
    predictors = [_load_one(file, config_file, opts, device, half) for file in files]
    if len(predictors) == 1 and views == (View(),):
        return predictors[0]
    return Ensemble([predictor.looking(view) for predictor in predictors for view in views])


def _check_files(files: Sequence[str | Path]) -> None:
    if not files:
        raise ConfigError("no weights to load; name a checkpoint or the OUTPUT_DIR of a training")
    file, times = Counter(map(str, files)).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"{file}: these weights are given {times} times; name them once")


def _load_one(
    weights: str | Path, config_file: str | Path, opts: Sequence[str], device: str, half: bool
) -> Predictor:
    trained = read_trained_model(weights, config_file, opts)
    trained.cfg.MODEL.DEVICE = device
    return Predictor(trained.cfg, trained.weights, trained.class_names, half=half)
