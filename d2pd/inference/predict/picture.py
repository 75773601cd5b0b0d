"""Reads pictures for a detector: whole ones of 8 bits, with clear words for all others."""

import io
import logging
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from d2pd.data.audit.pictures import NOT_CHECKED, damage_of
from d2pd.data.images import decode_image, read_encoded
from d2pd.data.modality import CAMERAS
from d2pd.errors import AnnotationError, UserError

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH_AT = 24
"""Position of the byte that says how many bits a channel of a PNG has."""

logger = logging.getLogger(__name__)


class PictureReader:
    """Reads the image of a source, as a model of some modality takes it.

    Args:
        modality: ``visible``, ``lwir`` or ``both``.
    """

    def __init__(self, modality: str) -> None:
        self._cameras = CAMERAS[modality]
        self._has_warned = False

    def read(self, paths: Sequence[str]) -> np.ndarray:
        """Read a picture, or the two of a pair.

        Args:
            paths: One for each camera, visible first.

        Returns:
            (H, W, 3) uint8 BGR, three equal channels if thermal; (H, W, 6) of a pair.

        Raises:
            AnnotationError: If one is not there, is no picture, or a pair has two sizes; the
                message says which and why.
        """
        pictures = [
            self._read_one(path, camera) for path, camera in zip(paths, self._cameras, strict=True)
        ]
        return stack_cameras(pictures)

    def _read_one(self, path: str, camera: str) -> np.ndarray:
        try:
            encoded = read_encoded(path)
            # Before OpenCV sees it: the libraries in it write about damage to stderr.
            damage = png_damage_of(encoded) or damage_of(encoded)
            if damage:
                raise AnnotationError(f"{path}: {damage}; replace the file")
            image = decode_image(encoded, path, camera)
        except UserError as error:  # the way out that it names is that of a training
            raise AnnotationError(str(error).rpartition("; ")[0]) from error
        if not self._has_warned and has_many_bits(encoded):
            self._has_warned = True
            logger.warning(
                "%s has more than 8 bits a channel, of which the upper 8 are used: thermal "
                "pictures of 16 bits become nearly black so; stretch them to 8 bits first, as "
                "those of the training were (this is said once)",
                path,
            )
        return as_camera(image, camera)


def as_camera(image: np.ndarray, camera: str) -> np.ndarray:
    """Return a picture as a camera takes it: thermal ones have three equal channels.

    Args:
        image: (H, W) or (H, W, 3) uint8 BGR.
        camera: ``visible`` or ``lwir``.

    Returns:
        (H, W, 3) uint8.
    """
    if camera != "lwir":
        return image
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def stack_cameras(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put the pictures of a pair behind each other.

    Args:
        pictures: One or two, (H, W, 3) each.

    Raises:
        AnnotationError: If their sizes differ.
    """
    sizes = [f"{picture.shape[1]} x {picture.shape[0]} px" for picture in pictures]
    if len(set(sizes)) > 1:
        raise AnnotationError(
            f"the visible picture is {sizes[0]}, the thermal one {sizes[1]}; a pair has one size"
        )
    return pictures[0] if len(pictures) == 1 else np.dstack(pictures)


def png_damage_of(encoded: np.ndarray) -> str:
    """Say what is wrong with a PNG by the sums that it holds of its parts; "" for other files.

    Args:
        encoded: (N,) uint8, the file.
    """
    if encoded[:8].tobytes() != PNG_START:
        return ""
    try:
        with Image.open(io.BytesIO(encoded.tobytes())) as image:
            image.verify()
    except NOT_CHECKED:
        return ""
    except (OSError, SyntaxError, ValueError) as error:
        return f"cut short or damaged ({error})"
    return ""


def has_many_bits(encoded: np.ndarray) -> bool:
    """Tell whether a picture has more than 8 bits a channel.

    Args:
        encoded: (N,) uint8, the file.
    """
    start = encoded[: PNG_DEPTH_AT + 1].tobytes()
    if start.startswith(PNG_START):
        return start[PNG_DEPTH_AT] > 8
    try:
        with Image.open(io.BytesIO(encoded.tobytes())) as image:
            return image.mode.startswith(("I", "F"))
    except (*NOT_CHECKED, OSError, SyntaxError, ValueError):
        return False
