"""Images of different sizes as one padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class ImageList:
    """A batch of images, padded on the right and at the bottom to one size.

    Attributes:
        tensor: (N, ..., H, W), images in the upper left corner.
        image_sizes: Height and width of each image before padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]):
        self.tensor = tensor
        self.image_sizes = image_sizes

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Pad images to a common size.

        Args:
            tensors: At least one image, (..., H_i, W_i), with the same leading dimensions.
            size_divisibility: Round height and width of the batch up to a multiple of this; 0 or 1
                leaves them.
            pad_value: Value of the padding.
            padding_constraints: ``size_divisibility`` in here overrides the argument; a
                ``square_size`` over 0 makes a square of that size.

        Raises:
            ValueError: If there is no image, or the leading dimensions differ.
        """
        leading = {tuple(image.shape[:-2]) for image in tensors}
        if len(leading) != 1:
            raise ValueError(f"Images of one batch need the same leading dimensions, got {leading}")
        constraints = padding_constraints or {}
        image_sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        height, width = (max(sides) for sides in zip(*image_sizes, strict=True))
        if constraints.get("square_size", 0) > 0:
            height = width = constraints["square_size"]
        multiple = max(constraints.get("size_divisibility", size_divisibility), 1)
        height, width = (-(-side // multiple) * multiple for side in (height, width))
        batch = tensors[0].new_full((len(tensors), *leading.pop(), height, width), pad_value)
        for padded, image in zip(batch, tensors, strict=True):
            padded[..., : image.shape[-2], : image.shape[-1]].copy_(image)
        return ImageList(batch, image_sizes)

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """Move or cast the batch; the arguments are those of ``Tensor.to``."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        """Where the batch lies."""
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """One image without its padding."""
        height, width = self.image_sizes[index]
        return self.tensor[index, ..., :height, :width]
