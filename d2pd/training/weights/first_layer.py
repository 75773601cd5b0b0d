"""Makes a first layer for RGB images into one for other channels."""

from collections.abc import Sequence

import torch
from torch import Tensor

RGB_CHANNELS = 3
AVERAGE = (0, 1, 2)
VISIBLE_OF = {1: 0, 4: 3, 6: 3}
"""How many channels of an image are visible ones, by their number; the others are thermal."""


def is_first_layer(file_shape: Sequence[int], model_shape: Sequence[int]) -> bool:
    """Tell whether filters for RGB images stand where the model has some for other channels.

    Args:
        file_shape: Of a parameter in the file.
        model_shape: Of the same one in the model.
    """
    is_filter = len(file_shape) == len(model_shape) == 4
    if not is_filter or file_shape[1] != RGB_CHANNELS or model_shape[1] not in VISIBLE_OF:
        return False
    return (file_shape[0], *file_shape[2:]) == (model_shape[0], *model_shape[2:])


def adapt_filters(rgb_filters: Tensor, channels: int, lwir_filters: Sequence[int]) -> Tensor:
    """Make filters for visible and thermal channels out of those for RGB images.

    Args:
        rgb_filters: (F, 3, h, w).
        channels: Of the images: 1 (thermal), 4 or 6 (visible ones, then 1 or 3 thermal).
        lwir_filters: Which of the three, as their mean, make the filters of a thermal channel.

    Returns:
        (F, channels, h, w): visible channels keep their filters.
    """
    visible = VISIBLE_OF[channels]
    thermal = rgb_filters[:, list(lwir_filters)].mean(dim=1, keepdim=True)
    return torch.cat(
        [rgb_filters[:, :visible], thermal.expand(-1, channels - visible, -1, -1)], dim=1
    )
