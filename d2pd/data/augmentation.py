"""Resize, crop and flip an image together with its boxes, as Detectron2's INPUT keys say.

``torchvision.transforms.v2`` on ``tv_tensors``: further transforms of that package fit in between.
All randomness comes from torch's global generator, which the mapper seeds for each sample.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from d2pd.errors import ConfigError

CROP_TYPES = ("relative_range", "relative", "absolute", "absolute_range")
FLIPS = ("horizontal", "vertical", "none")


def resized_shape(
    image_size: tuple[int, int], shortest_edge: int, max_size: int
) -> tuple[int, int]:
    """Return the size of an image whose shorter side becomes ``shortest_edge``.

    Args:
        image_size: (height, width) in pixels.
        shortest_edge: Wanted length of the shorter side, in pixels.
        max_size: The longer side stays within this, at the cost of the shorter one.

    Returns:
        (height, width), each rounded half up, at least 1.

    Source: Detectron2, ResizeShortestEdge.
    """
    height, width = image_size
    scale = shortest_edge / min(height, width)
    # The shorter side is exact and not scaled: 0.1 + 0.2 must not turn 800 into 799.
    wanted = (
        (float(shortest_edge), scale * width)
        if height < width
        else (scale * height, float(shortest_edge))
    )
    shrink = min(1.0, max_size / max(wanted))
    return max(1, int(wanted[0] * shrink + 0.5)), max(1, int(wanted[1] * shrink + 0.5))


class ResizeShortestEdge(v2.Transform):
    """Scale so that the shorter side gets a drawn length and the longer one fits in a maximum."""

    def __init__(self, lengths: Sequence[int], max_size: int, sampling: str = "choice") -> None:
        """Set what is drawn from.

        Args:
            lengths: Lengths of the shorter side in pixels, or (lowest, highest) for ``range``;
                a drawn 0 leaves the image as it is.
            max_size: Longest side in pixels.
            sampling: ``choice`` or ``range``.

        Raises:
            ValueError: If the lengths do not suit the way of sampling.
        """
        super().__init__()
        if sampling not in ("choice", "range"):
            raise ValueError(f"sampling must be choice or range, got {sampling!r}")
        if not lengths or min(lengths) < 0 or max_size < 1:
            raise ValueError(
                f"lengths must be one or more sizes in pixels, got {tuple(lengths)} with a "
                f"maximum of {max_size}"
            )
        if sampling == "range" and (len(lengths) != 2 or lengths[0] > lengths[1]):
            raise ValueError(f"range takes two lengths, low and high, got {tuple(lengths)}")
        self.lengths = tuple(lengths)
        self.max_size = max_size
        self.sampling = sampling

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the length and return the size it gives."""
        size = v2.query_size(flat_inputs)
        if self.sampling == "range":
            length = _draw(self.lengths[0], self.lengths[1])
        else:
            length = self.lengths[_draw(0, len(self.lengths) - 1)]
        return {"size": resized_shape(size, length, self.max_size) if length else size}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize an image (bilinear, antialiased) or scale boxes."""
        return F.resize(inpt, size=list(params["size"]), antialias=True)


class RandomCrop(v2.Transform):
    """Cut out a rectangle at a drawn place."""

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        """Set how large the rectangle is.

        Args:
            crop_type: ``relative``: (height, width) as fractions of the image;
                ``relative_range``: fractions drawn between those and 1;
                ``absolute``: (height, width) in pixels, cut to the image;
                ``absolute_range``: both sides drawn from (lowest, highest) in pixels.
            crop_size: Two numbers.

        Raises:
            ValueError: If the type is unknown or the numbers do not suit it.
        """
        super().__init__()
        if crop_type not in CROP_TYPES:
            raise ValueError(f"crop type must be one of {', '.join(CROP_TYPES)}; got {crop_type!r}")
        if len(crop_size) != 2 or min(crop_size) <= 0:
            raise ValueError(f"crop size must be two positive numbers, got {tuple(crop_size)}")
        if crop_type.startswith("relative") and max(crop_size) > 1:
            raise ValueError(f"a {crop_type} crop takes fractions in (0, 1], got {crop_size}")
        if crop_type == "absolute_range" and crop_size[0] > crop_size[1]:
            raise ValueError(f"absolute_range takes (lowest, highest), got {tuple(crop_size)}")
        self.crop_type = crop_type
        self.crop_size = (crop_size[0], crop_size[1])

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the size, where it is not fixed, then the corner."""
        image_height, image_width = v2.query_size(flat_inputs)
        height, width = self.draw_size((image_height, image_width))
        top = _draw(0, image_height - height)
        return {"top": top, "left": _draw(0, image_width - width), "height": height, "width": width}

    def draw_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the crop in pixels, each in [1, side of the image]."""
        first, second = self.crop_size
        height, width = image_size
        if self.crop_type == "absolute":
            return min(int(first), height), min(int(second), width)
        if self.crop_type == "absolute_range":
            low, high = int(first), int(second)
            drawn = [_draw(min(side, low), min(side, high)) for side in image_size]
            return drawn[0], drawn[1]
        if self.crop_type == "relative_range":
            first += float(torch.rand(())) * (1 - first)
            second += float(torch.rand(())) * (1 - second)
        return max(1, int(height * first + 0.5)), max(1, int(width * second + 0.5))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop an image, or move boxes into the crop and clip them."""
        return F.crop(inpt, **params)


def make_augmentation(
    *,
    lengths: Sequence[int],
    max_size: int,
    sampling: str = "choice",
    flip: str = "none",
    crop: tuple[str, Sequence[float]] | None = None,
) -> v2.Compose:
    """Chain crop, resize and flip, in Detectron2's order.

    Args:
        lengths: See ``ResizeShortestEdge``; so are ``max_size`` and ``sampling``.
        max_size: Longest side in pixels.
        sampling: ``choice`` or ``range``.
        flip: ``horizontal`` or ``vertical`` mirrors every other sample, by chance; or ``none``.
        crop: (type, size) of ``RandomCrop``; None for the whole image.

    Raises:
        ValueError: If a value is not allowed.
    """
    if flip not in FLIPS:
        raise ValueError(f"flip must be one of {', '.join(FLIPS)}; got {flip!r}")
    steps: list[v2.Transform] = [RandomCrop(*crop)] if crop else []
    steps.append(ResizeShortestEdge(lengths, max_size, sampling))
    if flip == "horizontal":
        steps.append(v2.RandomHorizontalFlip(0.5))
    elif flip == "vertical":
        steps.append(v2.RandomVerticalFlip(0.5))
    return v2.Compose(steps)


def build_augmentation(cfg: Any, is_train: bool) -> v2.Compose:
    """Build the pipeline that ``cfg.INPUT`` describes; in testing only the resize.

    Raises:
        ConfigError: If a value below INPUT cannot be used.
    """
    try:
        if not is_train:
            return make_augmentation(
                lengths=[cfg.INPUT.MIN_SIZE_TEST], max_size=cfg.INPUT.MAX_SIZE_TEST
            )
        # Detectron2 takes a single int here as well.
        lengths = cfg.INPUT.MIN_SIZE_TRAIN
        return make_augmentation(
            lengths=[lengths] * 2 if isinstance(lengths, int) else lengths,
            max_size=cfg.INPUT.MAX_SIZE_TRAIN,
            sampling=cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
            flip=cfg.INPUT.RANDOM_FLIP,
            crop=(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE) if cfg.INPUT.CROP.ENABLED else None,
        )
    except ValueError as error:
        raise ConfigError(
            f"INPUT.MIN_SIZE_*, MAX_SIZE_*, RANDOM_FLIP or CROP cannot be used: {error}"
        ) from None


def _draw(low: int, high: int) -> int:
    """Return an integer of [low, high], both included."""
    return int(torch.randint(low, high + 1, ()))
