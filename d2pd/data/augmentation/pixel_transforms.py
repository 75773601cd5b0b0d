"""Albumentations where it is installed: transforms of pixels alone, listed in a YAML file."""

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torchvision import tv_tensors
from torchvision.transforms import v2

from d2pd.data.augmentation.sizes import draw_integer
from d2pd.data.modality import Channels
from d2pd.errors import ConfigError, MissingFileError

CURE = "pip install albumentations"

EXAMPLE = "a list such as '- GaussNoise: {p: 0.3}'"


class PixelTransforms(v2.Transform):
    """Apply Albumentations to the picture of each camera, as RGB; the seed comes from torch.

    A thermal picture goes through as three equal channels, and its channels are equal afterwards.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, path: str | Path, channels: Channels, image_format: str) -> None:
        """Read the list and try it out.

        Args:
            path: YAML file: a list of names, each alone or with its arguments.
            channels: Of each camera.
            image_format: Order of the visible ones: ``BGR`` or ``RGB``.

        Raises:
            MissingFileError: If there is no such file.
            ConfigError: If Albumentations is not installed or too old, or the file asks for
                what it does not have or for more than a change of pixels.
        """
        super().__init__()
        self.channels = channels
        self.image_format = image_format
        self.pipeline = load_pipeline(path)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw a seed for each camera."""
        return {"seeds": [draw_integer(0, 2**31 - 2) for _ in self.channels.of_cameras]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change the pixels of an image."""
        pictures = inpt.as_subclass(torch.Tensor).split(self.channels.of_cameras)
        changed = [
            self._change(picture, seed, is_visible=self.channels.visible > 0 and at == 0)
            for at, (picture, seed) in enumerate(zip(pictures, params["seeds"], strict=True))
        ]
        return tv_tensors.Image(torch.cat(changed))

    def _change(self, picture: torch.Tensor, seed: int, *, is_visible: bool) -> torch.Tensor:
        """Return a camera's (c, h, w) picture, changed."""
        is_turned = is_visible and self.image_format == "BGR"
        rgb = (picture.flip(0) if is_turned else picture).expand(3, -1, -1)
        self.pipeline.set_random_seed(seed)
        out = self.pipeline(image=np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()))["image"]
        changed = torch.from_numpy(np.ascontiguousarray(out.transpose(2, 0, 1)))
        if is_visible:
            return changed.flip(0) if is_turned else changed
        grey = changed.float().mean(dim=0, keepdim=True).round().to(torch.uint8)
        return grey.expand(len(picture), -1, -1)


def load_pipeline(path: str | Path) -> Any:
    """Build the Albumentations pipeline that a file describes; see ``PixelTransforms``."""
    entries = _read(path)
    package = _import()
    steps = [_build(package, path, *entry) for entry in entries]
    for step in steps:
        _try_out(package, path, step)
    pipeline = package.Compose(steps)
    if not hasattr(pipeline, "set_random_seed"):
        raise ConfigError(
            f"{path}: Albumentations {package.__version__} cannot be seeded for each sample; "
            f"{CURE} -U"
        )
    return pipeline


def _try_out(package: Any, path: str | Path, step: Any) -> None:
    """Apply a transform, by whatever chance it will be applied, to a picture."""
    name, chance, step.p = type(step).__name__, step.p, 1.0
    picture = np.full((64, 64, 3), 128, np.uint8)
    try:
        out = package.Compose([step])(image=picture)["image"]
    except Exception as error:  # whatever a transform raises that lacks something
        raise ConfigError(f"{path}: {name} fails on an image: {_line(error)}") from None
    finally:
        step.p = chance
    if out.shape != picture.shape or out.dtype != picture.dtype:
        raise ConfigError(
            f"{path}: {name} makes {out.shape} {out.dtype} of a (64, 64, 3) uint8 image; take it "
            "out: size, scale and number of channels are the model's matter"
        )


def _read(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Return names and arguments."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingFileError(
            f"{path}: {error.strerror or 'cannot be read'}; it should hold {EXAMPLE}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file of plain values: {_line(error)}") from None
    if not isinstance(content, list) or not content:
        raise ConfigError(f"{path}: it must hold {EXAMPLE}")
    return [_entry(path, item) for item in content]


def _entry(path: str | Path, item: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        return item, {}
    if isinstance(item, dict) and len(item) == 1:
        ((name, arguments),) = item.items()
        arguments = {} if arguments is None else arguments
        if isinstance(name, str) and isinstance(arguments, dict):
            return name, arguments
    raise ConfigError(f"{path}: {item!r} is not a name with its arguments; write {EXAMPLE}")


def _import() -> Any:
    # It asks the network for a newer version otherwise.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        return importlib.import_module("albumentations")
    except ImportError as error:
        raise ConfigError(
            f"Albumentations cannot be imported ({_line(error)}): {CURE}, or leave the key empty"
        ) from None


def _build(package: Any, path: str | Path, name: str, arguments: dict[str, Any]) -> Any:
    """Make one transform, if it is one of pixels."""
    kind = getattr(package, name, None)
    if not isinstance(kind, type) or not issubclass(kind, package.BasicTransform):
        raise ConfigError(f"{path}: Albumentations {package.__version__} has no transform {name!r}")
    if not issubclass(kind, package.ImageOnlyTransform):
        raise ConfigError(
            f"{path}: {name} does more than change pixels, so boxes and the other camera would "
            "not go along; take it out, and see INPUT.AUG for flips, crops and rotation"
        )
    try:
        with warnings.catch_warnings():
            # It only warns of an argument that it does not know, and goes on without.
            warnings.simplefilter("error", UserWarning)
            return kind(**arguments)
    except Exception as error:  # TypeError, ValueError, pydantic's, or that warning
        raise ConfigError(f"{path}: {name} does not take {arguments}: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
