"""Detections drawn on a picture with OpenCV: as fast as video needs it."""

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from d2pd.inference.detections import Detections

COLOURS = (
    (28, 159, 255), (92, 220, 61), (255, 170, 60), (75, 75, 255), (230, 90, 220),
    (60, 230, 230), (200, 200, 60), (170, 130, 255),
)  # fmt: skip
"""BGR, a class each and then again: on snow and in the dark alike, with the dark rim."""

DARK = (0, 0, 0)
PADDING = 2  # px, left and right of a text

FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_boxes(found: "Detections") -> np.ndarray:
    """Draw detections on their image, on both of a pair side by side; the best come on top.

    Args:
        found: With their image.

    Returns:
        (H, W, 3) uint8 BGR, or (H, 2 W, 3).

    Raises:
        ValueError: If there is no image.
    """
    if found.image is None:
        raise ValueError("there is no image to draw on")
    depth = found.image.shape[2]
    cameras = [found.image[:, :, at : at + 3].copy() for at in range(0, depth, 3)]
    for camera in cameras:
        _draw_on(camera, found)
    return np.hstack(cameras)


def _draw_on(picture: np.ndarray, found: "Detections") -> None:
    height, width = picture.shape[:2]
    thickness = max(2, round(min(height, width) / 300))
    scale = max(0.35, min(height, width) / 1200)
    for box, score, number in zip(
        found.boxes_xyxy[::-1], found.scores[::-1], found.classes[::-1], strict=True
    ):
        colour = COLOURS[int(number) % len(COLOURS)]
        # Pixel i covers [i, i + 1].
        left, top = (int(side) for side in np.floor(box[:2]))
        right, bottom = (int(side) - 1 for side in np.ceil(box[2:]))
        _frame(picture, (left, top), (right, bottom), colour, thickness)
        name = f"{found.class_names[int(number)]} " if len(found.class_names) > 1 else ""
        _write(picture, f"{name}{score:.2f}", (left, top), colour, scale)


def _frame(
    picture: np.ndarray,
    first: tuple[int, int],
    last: tuple[int, int],
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    """Draw a frame on the pixels inside a box, thinner in small ones, and a dark line around."""
    (left, top), (right, bottom) = first, last
    cv2.rectangle(picture, (left - 1, top - 1), (right + 1, bottom + 1), DARK, 1)
    for inset in range(max(1, min(thickness, (right - left) // 5, (bottom - top) // 5))):
        corners = (left + inset, top + inset), (right - inset, bottom - inset)
        cv2.rectangle(picture, *corners, colour, 1)


def _write(
    picture: np.ndarray,
    text: str,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
    scale: float,
) -> None:
    """Write a text above a corner, or below it at the picture's rim."""
    (width, height), base = cv2.getTextSize(text, FONT, scale, 1)
    width += 2 * PADDING
    # Where the dark line of the frame begins.
    left = max(0, min(corner[0] - 1, picture.shape[1] - width))
    above = corner[1] - 2
    bottom = above if above >= height + base else corner[1] + height + base
    cv2.rectangle(picture, (left, bottom - height - base), (left + width - 1, bottom), colour, -1)
    place = (left + PADDING, bottom - base + 1)
    cv2.putText(picture, text, place, FONT, scale, DARK, 1, cv2.LINE_AA)
