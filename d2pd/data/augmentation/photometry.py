"""Change brightness, contrast and colours: of visible channels as SSD does, of thermal ones less.

Works on whole images; boxes and other entries of a sample pass as they are.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from d2pd.data.augmentation.sizes import draw_number
from d2pd.data.modality import Channels

LEVELS = np.arange(256, dtype=np.float32)

Planes = Sequence[np.ndarray]
"""The channels of one camera, (h, w) uint8 each."""


class PhotometricDistort(v2.Transform):
    """Distort each camera's channels by what is drawn for it.

    Visible: brightness, contrast, saturation, hue and order of the channels, drawn and applied as
    by ``v2.RandomPhotometricDistort``. Thermal: brightness and contrast, from the same ranges; its
    channels stay equal.

    Source: Liu et al., SSD, ECCV 2016, section 2.2, by way of torchvision.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, channels: Channels, image_format: str) -> None:
        """Set what the channels are.

        Args:
            channels: Of each camera.
            image_format: Order of the visible ones: ``BGR`` or ``RGB``.
        """
        super().__init__()
        self.channels = channels
        self.image_format = image_format
        self.ranges = v2.RandomPhotometricDistort()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw what is done to each camera that there is; None for what is left alone."""
        visible, lwir = self.channels.visible, self.channels.lwir
        return {
            "visible": self.ranges.make_params([torch.empty(visible, 1, 1)]) if visible else None,
            "lwir": self._draw_lwir() if lwir else None,
        }

    def _draw_lwir(self) -> dict[str, float | None]:
        drawn = {}
        for name in ("brightness", "contrast"):
            low, high = getattr(self.ranges, name)
            is_wanted = float(torch.rand(())) < self.ranges.p
            drawn[name] = draw_number(low, high) if is_wanted else None
        return drawn

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Distort an image; OpenCV takes a tenth of the time of torchvision's functions."""
        planes = list(inpt.as_subclass(torch.Tensor).numpy())
        cut = self.channels.visible
        distorted: list[np.ndarray] = []
        if params["visible"]:
            distorted += distort_colours(planes[:cut], params["visible"], self.image_format)
        if params["lwir"]:
            lwir = adjust(planes[cut], **params["lwir"])
            distorted += [lwir] * self.channels.lwir
        return tv_tensors.Image(torch.from_numpy(np.stack(distorted)))


def distort_colours(planes: Planes, params: dict[str, Any], image_format: str) -> Planes:
    """Apply what ``v2.RandomPhotometricDistort.make_params`` drew, in its order.

    Args:
        planes: Three.
        params: A factor or None for each distortion, and what torchvision adds to them.
        image_format: ``BGR`` or ``RGB``.

    Returns:
        Three planes, within a few levels of torchvision's: hue is kept in 256 steps.
    """
    planes = planes if image_format == "RGB" else planes[::-1]
    image = cv2.merge(list(planes))
    contrast, is_before = params["contrast_factor"], params["contrast_before"]
    image = adjust(image, params["brightness_factor"], contrast if is_before else None)
    if params["saturation_factor"] is not None:
        factor = params["saturation_factor"]
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = cv2.addWeighted(image, factor, grey, 1 - factor, 0)
    if params["hue_factor"] is not None:
        image = turn_hue(image, params["hue_factor"])
    image = adjust(image, None, None if is_before else contrast)
    planes = cv2.split(image)
    planes = planes if image_format == "RGB" else planes[::-1]
    order = params["channel_permutation"]
    return planes if order is None else [planes[at] for at in order]


def adjust(image: np.ndarray, brightness: float | None, contrast: float | None) -> np.ndarray:
    """Scale the levels, then their distance from the mean of the grey image.

    Args:
        image: (h, w) or (h, w, 3) RGB, uint8.
        brightness: Factor; None for none.
        contrast: Factor; None for none.

    Returns:
        As ``adjust_brightness`` and ``adjust_contrast`` of torchvision give it.
    """
    if brightness is not None:
        image = cv2.LUT(image, _levels(LEVELS * brightness))
    if contrast is not None:
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        mean = float(cv2.mean(grey)[0])
        image = cv2.LUT(image, _levels(LEVELS * contrast + mean * (1 - contrast)))
    return image


def turn_hue(image: np.ndarray, factor: float) -> np.ndarray:
    """Shift the hue of an (h, w, 3) uint8 RGB image by a share of the full circle."""
    hsv = list(cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)))
    hsv[0] = hsv[0] + np.uint8(round(factor * 256) % 256)  # 256 steps: it wraps around by itself
    return cv2.cvtColor(cv2.merge(hsv), cv2.COLOR_HSV2RGB_FULL)


def _levels(levels: np.ndarray) -> np.ndarray:
    return levels.clip(0, 255).astype(np.uint8)
