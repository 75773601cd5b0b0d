"""Read the picture of a record: 8 bits, three channels, EXIF orientation applied."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from d2pd.errors import AnnotationError, MissingFileError


def image_path(record: Mapping[str, Any], modality: str) -> str:
    """Return the file of one modality of a record.

    Args:
        record: A dataset_dict; ``file_name`` is the visible or only image.
        modality: ``visible`` or ``lwir``.

    Raises:
        AnnotationError: If a thermal image is asked for and the record has none.
    """
    if modality != "lwir":
        return str(record["file_name"])
    if "lwir_file_name" not in record:
        raise AnnotationError(
            f"{record['file_name']}: this dataset has no thermal images; INPUT.MODALITY lwir needs "
            "the KAIST layout (visible and lwir folders); set INPUT.MODALITY visible"
        )
    return str(record["lwir_file_name"])


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
    flag = cv2.IMREAD_GRAYSCALE if modality == "lwir" else cv2.IMREAD_COLOR
    # Encoded bytes and not imread: that one warns on stderr and knows no reason.
    try:
        if not Path(path).is_file() and Path(path).exists():
            raise OSError(None, "not a file")  # reading a pipe would wait for ever
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise MissingFileError(
            f"{path}: {error.strerror or 'cannot be read'}; the label file names this image"
        ) from None
    try:
        image = cv2.imdecode(encoded, flag) if encoded.size else None
    except cv2.error:  # more pixels than OpenCV takes, or than fit into memory
        image = None
    if image is None:
        raise AnnotationError(
            f"{path}: not an image that OpenCV can decode ({encoded.size} bytes); replace the "
            "file or take its rows out of the label file"
        )
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if modality == "lwir" else image
