"""Pictures of what a model gets: one for each camera, whatever the numbers in it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2pd.data.modality import channels_in
from d2pd.reporting.sheet import Mark, Tile


def sample_tiles(
    sample: Mapping[str, Any], image_format: str, caption: str, marks: Sequence[Mark]
) -> list[Tile]:
    """Return a tile for each camera of a sample, all with the same marks.

    Args:
        sample: As ``data.mapper.Mapper`` makes it; its pixels may be anything.
        image_format: Order of the visible channels: ``BGR`` or ``RGB``.
        caption: Of the first tile; a second one has the name of the thermal file.
        marks: In pixels of the sample's image.
    """
    first, *others = camera_pictures(sample["image"], image_format)
    beside = f"lwir  {short_path(str(sample.get('lwir_file_name', '')))}"
    return [
        Tile(first, caption, list(marks)),
        *(Tile(picture, beside, list(marks)) for picture in others),
    ]


def short_path(file_name: str) -> str:
    """Keep the last four parts of a path: in KAIST they say set, video, modality and frame."""
    return "/".join(Path(file_name).parts[-4:])


def camera_pictures(image: Tensor, image_format: str) -> list[np.ndarray]:
    """Return the pictures of an image, the visible one first where there are two.

    Args:
        image: (C, h, w) with 1, 3, 4 or 6 channels, see ``displayable``.
        image_format: Order of the visible channels: ``BGR`` or ``RGB``.

    Raises:
        ValueError: If there is another number of channels.
    """
    numbers = channels_in(len(image)).of_cameras
    return [displayable(part, image_format) for part in image.split(list(numbers))]


def displayable(image: Tensor, image_format: str) -> np.ndarray:
    """Return pixels of one camera that can be drawn.

    Args:
        image: (3, h, w) or (1, h, w), uint8 or float of any range.
        image_format: Order of the channels: ``BGR`` or ``RGB``.

    Returns:
        (h, w, 3) uint8 RGB. Numbers that are not finite are magenta; a float image beyond 0..255,
        or within 0..1, is stretched to 0..255.
    """
    values = image.detach().cpu()
    values = values.expand(3, *values.shape[-2:]).permute(1, 2, 0)
    if image_format == "BGR":
        values = values.flip(2)
    if values.dtype == torch.uint8:
        return np.ascontiguousarray(values.numpy())
    values = values.double()
    is_finite = torch.isfinite(values)
    known = values[is_finite]
    low, high = (known.min().item(), known.max().item()) if len(known) else (0.0, 0.0)
    if low < 0 or high > 255 or high <= 1:
        span = high - low
        usable = span > 0 and math.isfinite(span)
        values = (values - low) / span * 255 if usable else torch.full_like(values, 128)
    shown = torch.where(is_finite, values, 0).clamp(0, 255).to(torch.uint8)
    shown[~is_finite.all(dim=2)] = torch.tensor([255, 0, 255], dtype=torch.uint8)
    return np.ascontiguousarray(shown.numpy())
