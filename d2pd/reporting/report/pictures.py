"""Pictures of errors as data URIs: the part around a box, and the whole frame."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from d2pd.data.images import image_path, read_image
from d2pd.data.modality import CAMERAS

CONTEXT = 2.6  # side of the part that is shown, in longer sides of the box
LEAST_SIDE = 96.0  # px of the image file: a smaller part would show no surroundings
FAR = 1e6  # px: beyond any image
CROP_SIDE, FRAME_SIDE = 320, 720  # px, at most
CROP_QUALITY, FRAME_QUALITY = 84, 74


def view_around(
    xywh: Sequence[float], image_size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the part of an image to show of a box: square, with what is around, inside the image.

    Args:
        xywh: The box, pixels; it may reach outside or be no number.
        image_size: (height, width) in pixels.

    Returns:
        x, y, width, height in whole pixels; less than a square where the image is narrower.
    """
    height, width = image_size
    # A label file can hold anything; what is no place in the image shows the nearest.
    numbers = np.clip(np.nan_to_num(np.asarray(xywh, dtype=float)), -FAR, FAR)
    x, y, w, h = numbers.tolist()
    side = max(CONTEXT * max(w, h), LEAST_SIDE)
    view_width, view_height = min(round(side), width), min(round(side), height)
    left = min(max(0.0, x + w / 2 - view_width / 2), width - view_width)
    top = min(max(0.0, y + h / 2 - view_height / 2), height - view_height)
    return float(round(left)), float(round(top)), float(view_width), float(view_height)


def read_picture(record: Mapping[str, Any], modality: str) -> np.ndarray:
    """Read the frame of a record that the model saw, of a pair the visible one.

    Returns:
        (H, W, 3) uint8, channels BGR.

    Raises:
        UserError: If it is not there or no image.
    """
    camera = CAMERAS[modality][0]
    return read_image(image_path(record, camera), camera)


def crop_uri(image: np.ndarray, view: Sequence[float]) -> str:
    """Return a part of an image as a data URI, at most ``CROP_SIDE`` pixels a side."""
    left, top, width, height = (int(value) for value in view)
    return _jpeg_uri(image[top : top + height, left : left + width], CROP_SIDE, CROP_QUALITY)


def frame_uri(image: np.ndarray) -> str:
    """Return a whole image as a data URI, at most ``FRAME_SIDE`` pixels a side."""
    return _jpeg_uri(image, FRAME_SIDE, FRAME_QUALITY)


def _jpeg_uri(image: np.ndarray, most_side: int, quality: int) -> str:
    scale = most_side / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
