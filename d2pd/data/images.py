"""Read the pictures of a record: 8 bits, three channels, EXIF orientation applied."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from d2pd.data.modality import CAMERAS, Channels
from d2pd.errors import AnnotationError, MissingFileError

if TYPE_CHECKING:
    import torch


def image_path(record: Mapping[str, Any], camera: str) -> str:
    """Return the file of one camera of a record.

    Args:
        record: A dataset_dict; ``file_name`` is the visible or only image.
        camera: ``visible`` or ``lwir``.

    Raises:
        AnnotationError: If a thermal image is asked for and the record has none.
    """
    if camera != "lwir":
        return str(record["file_name"])
    if "lwir_file_name" not in record:
        raise AnnotationError(
            f"{record['file_name']}: this dataset has no thermal images; INPUT.MODALITY lwir or "
            "both needs the KAIST layout (visible and lwir folders); set INPUT.MODALITY visible"
        )
    return str(record["lwir_file_name"])


def image_paths(record: Mapping[str, Any], modality: str) -> tuple[str, ...]:
    """Return the files that make up the image of a record, in the order of its channels.

    Args:
        record: A dataset_dict.
        modality: ``visible``, ``lwir`` or ``both``.

    Raises:
        AnnotationError: If the record lacks one, see ``lacking_camera``.
    """
    lacking = lacking_camera(record, modality)
    if lacking == "visible":
        raise AnnotationError(
            f"{record['file_name']}: this frame has no visible image, a thermal one stands in its "
            "place; INPUT.MODALITY both needs both: get the visible folders too, or set "
            "INPUT.MODALITY lwir"
        )
    return tuple(image_path(record, camera) for camera in CAMERAS[modality])


def lacking_camera(record: Mapping[str, Any], modality: str) -> str:
    """Return the camera whose image a record lacks; empty where it has all that are needed.

    A dataset without visible frames has the thermal ones in their place, which its reader warns
    of: enough for ``visible``, but not one half of a pair.

    Args:
        record: A dataset_dict.
        modality: ``visible``, ``lwir`` or ``both``.
    """
    if "lwir" not in CAMERAS[modality]:
        return ""
    if "lwir_file_name" not in record:
        return "lwir"
    is_same = str(record["file_name"]) == str(record["lwir_file_name"])
    return "visible" if modality == "both" and is_same else ""


def read_pictures(record: Mapping[str, Any], modality: str) -> tuple[np.ndarray, ...]:
    """Read the image of a record: one picture for each camera of a modality, of the same size.

    Args:
        record: A dataset_dict.
        modality: ``visible``, ``lwir`` or ``both``.

    Returns:
        As ``read_image`` gives them, visible first.

    Raises:
        MissingFileError: If a file is not there.
        AnnotationError: If the record lacks a camera, a file cannot be decoded, or the two of a
            pair differ in size.
    """
    paths = image_paths(record, modality)
    pictures = tuple(
        read_image(path, camera) for path, camera in zip(paths, CAMERAS[modality], strict=True)
    )
    sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures]
    if len(set(sizes)) > 1:
        raise AnnotationError(
            f"{paths[0]} is {sizes[0]} pixels, {paths[1]} is {sizes[1]}: the two images of a pair "
            "must have one size; replace the one that is wrong, or use one camera "
            "(INPUT.MODALITY visible or lwir)"
        )
    return pictures


def stack_pictures(
    pictures: Sequence[np.ndarray], channels: Channels, image_format: str
) -> "torch.Tensor":
    """Make the image that a model gets of the pictures of its cameras.

    Args:
        pictures: (H, W, 3) uint8 BGR each, of one size, visible first; a thermal one has three
            equal channels.
        channels: How many of each are wanted.
        image_format: Order of the visible channels: ``BGR`` or ``RGB``.

    Returns:
        (C, H, W) uint8, its own memory.
    """
    import torch  # here: an audit reads pictures too, and does not wait for it

    image = np.empty((channels.total, *pictures[0].shape[:2]), np.uint8)
    planes = list(image)
    for picture, number in zip(pictures, channels.of_cameras, strict=True):
        own, planes = planes[:number], planes[number:]
        if number == 3:
            # Equal thermal channels are the same in either order.
            cv2.split(picture, own[::-1] if image_format == "RGB" else own)  # into ``image``
        else:
            cv2.extractChannel(picture, 0, own[0])
    return torch.from_numpy(image)


def read_image(path: str | Path, modality: str = "visible") -> np.ndarray:
    """Read an image file.

    Args:
        path: JPEG, PNG or whatever else OpenCV decodes.
        modality: ``lwir`` reads one channel and repeats it.

    Returns:
        (H, W, 3) uint8, channels BGR; for ``lwir`` three equal channels.

    Raises:
        MissingFileError: If there is no such file.
        AnnotationError: If the file cannot be decoded.
    """
    image = decode_image(read_encoded(path), path, modality)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if modality == "lwir" else image


def read_encoded(path: str | Path) -> np.ndarray:
    """Return the (N,) uint8 bytes of a file.

    Raises:
        MissingFileError: If there is no such file, or it cannot be read.
    """
    # Bytes and not imread: that one warns on stderr and knows no reason.
    try:
        if not Path(path).is_file() and Path(path).exists():
            raise OSError(None, "not a file")  # reading a pipe would wait for ever
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise MissingFileError(
            f"{path}: {error.strerror or 'cannot be read'}; the label file names this image"
        ) from None


def decode_image(encoded: np.ndarray, path: str | Path, modality: str) -> np.ndarray:
    """Decode the bytes of an image file.

    Args:
        encoded: (N,) uint8.
        path: Of the file, for the message.
        modality: ``lwir`` gives one channel.

    Returns:
        (H, W, 3) uint8 BGR, or (H, W).

    Raises:
        AnnotationError: If OpenCV cannot.
    """
    flag = cv2.IMREAD_GRAYSCALE if modality == "lwir" else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(encoded, flag) if encoded.size else None
    except cv2.error:  # more pixels than OpenCV takes, or than fit into memory
        image = None
    if image is None:
        raise AnnotationError(
            f"{path}: not an image that OpenCV can decode ({encoded.size} bytes); replace the "
            "file or take its rows out of the label file"
        )
    return image
