"""Resize, crop and rotate an image together with its boxes.

``torchvision.transforms.v2`` on ``tv_tensors``: further transforms of that package fit in between.
Boxes have ``clamping_mode=None``: they go where their pixels go, over the rim too.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from d2pd.data.augmentation.sizes import ImageSize, Sizes, draw_integer, draw_number

CROP_TYPES = ("relative_range", "relative", "absolute", "absolute_range")


class Resize(v2.Transform):
    """Scale to the size that a rule gives."""

    def __init__(self, sizes: Sizes) -> None:
        """Take the rule."""
        super().__init__()
        self.sizes = sizes

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the new size."""
        height, width = v2.query_size(flat_inputs)
        return {"size": self.sizes.draw((height, width))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize an image (bilinear, antialiased) or scale boxes."""
        if isinstance(inpt, tv_tensors.Image):
            return tv_tensors.Image(resize(inpt.as_subclass(torch.Tensor), params["size"]))
        return F.resize(inpt, size=list(params["size"]))


def resize(image: torch.Tensor, size: ImageSize) -> torch.Tensor:
    """Return a (C, H, W) image, bilinear and antialiased, at a size of (height, width)."""
    # Torch has a fast way for up to four channels; six at once take five times as long.
    parts = [_resize(part, size) for part in image.split(4 if len(image) == 4 else 3)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _resize(image: torch.Tensor, size: ImageSize) -> torch.Tensor:
    if len(image) < 3 or tuple(image.shape[1:]) == tuple(size):
        return F.resize(image, list(size), antialias=True)
    # The same bits, quicker: torch needs the channels of a pixel side by side, and OpenCV takes
    # less time to put them there and to take them apart again.
    pixels = torch.from_numpy(cv2.merge(list(image.numpy()))).permute(2, 0, 1)
    resized = F.resize(pixels, list(size), antialias=True).permute(1, 2, 0).numpy()
    planes = np.empty((len(image), *size), resized.dtype)
    cv2.split(resized, list(planes))  # into ``planes``
    return torch.from_numpy(planes)


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
        """Draw the rectangle."""
        height, width = v2.query_size(flat_inputs)
        return self.draw((height, width))

    def draw(self, image_size: ImageSize) -> dict[str, int]:
        """Draw the size, where it is not fixed, then the corner.

        Returns:
            ``top``, ``left``, ``height`` and ``width`` in pixels of the image.
        """
        height, width = self.draw_size(image_size)
        top = draw_integer(0, image_size[0] - height)
        left = draw_integer(0, image_size[1] - width)
        return {"top": top, "left": left, "height": height, "width": width}

    def draw_size(self, image_size: ImageSize) -> ImageSize:
        """Return (height, width) of the crop in pixels, each in [1, side of the image]."""
        first, second = self.crop_size
        height, width = image_size
        if self.crop_type == "absolute":
            return min(int(first), height), min(int(second), width)
        if self.crop_type == "absolute_range":
            low, high = int(first), int(second)
            drawn = [draw_integer(min(side, low), min(side, high)) for side in image_size]
            return drawn[0], drawn[1]
        if self.crop_type == "relative_range":
            first += float(torch.rand(())) * (1 - first)
            second += float(torch.rand(())) * (1 - second)
        return max(1, int(height * first + 0.5)), max(1, int(width * second + 0.5))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop an image, or move boxes into the crop."""
        return F.crop(inpt, **params)


class Rotation(v2.Transform):
    """Turn about the middle by a drawn angle, on a canvas that holds all corners.

    What comes in is filled; a box becomes the upright one around its turned corners.
    """

    def __init__(self, degrees: float, fill: Sequence[int]) -> None:
        """Set what is drawn from.

        Args:
            degrees: The largest angle, to either side.
            fill: A level for each channel.

        Raises:
            ValueError: If the angle is outside [0, 90].
        """
        super().__init__()
        if not 0 <= degrees <= 90:
            raise ValueError(f"the largest angle must be in [0, 90] degrees, got {degrees}")
        self.degrees = degrees
        self.fill = tuple(fill)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the angle, counter-clockwise; the canvas grows by an even number of pixels."""
        height, width = v2.query_size(flat_inputs)
        angle = draw_number(-self.degrees, self.degrees)
        sine, cosine = abs(math.sin(math.radians(angle))), abs(math.cos(math.radians(angle)))
        taller = max(0, math.ceil((height * cosine + width * sine - height) / 2))
        wider = max(0, math.ceil((height * sine + width * cosine - width) / 2))
        return {"angle": angle, "padding": (taller, wider)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turn an image (bilinear), or boxes."""
        taller, wider = params["padding"]
        if not isinstance(inpt, tv_tensors.Image):
            return F.rotate(F.pad(inpt, [wider, taller]), params["angle"])
        height, width = inpt.shape[-2:]
        # OpenCV takes a tenth of the time of F.rotate; its coordinates are those of pixel centres.
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), params["angle"], 1.0)
        turn[:, 2] += (wider, taller)
        size = (width + 2 * wider, height + 2 * taller)
        planes = [
            cv2.warpAffine(plane.numpy(), turn, size, borderValue=level)
            for plane, level in zip(inpt.as_subclass(torch.Tensor), self.fill, strict=True)
        ]
        return tv_tensors.Image(torch.from_numpy(np.stack(planes)))
