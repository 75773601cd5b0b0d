"""Axis-aligned boxes of one image, and the ways in which a box may be written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import IntEnum, unique
from typing import Any

import numpy as np
import torch
from torch import Tensor


@unique
class BoxMode(IntEnum):
    """How the numbers of a box are meant; the values are those found in dataset dicts.

    ``ABS`` modes count pixels, ``REL`` modes are fractions of the image size (known by name, not
    converted). ``XYWHA`` is a rotated box: centre, size, and degrees counter-clockwise.
    """

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4

    @staticmethod
    def convert(box: Any, from_mode: BoxMode | int, to_mode: BoxMode | int) -> Any:
        """Write boxes in another mode.

        Args:
            box: One box as a list or tuple of 4 (``XYWHA``: 5) numbers, or (N, 4 or 5) boxes as an
                array or tensor. It is not modified.
            from_mode: Mode of ``box``.
            to_mode: Mode wanted.

        Returns:
            The boxes in ``to_mode``, of the type and dtype of ``box``.

        Raises:
            ValueError: If a single box has not 4 or 5 numbers.
            NotImplementedError: If there is no conversion between these two modes.
        """
        if from_mode == to_mode:
            return box
        modes = (BoxMode(from_mode), BoxMode(to_mode))
        if modes not in _CONVERSIONS:
            raise NotImplementedError(f"No conversion from {modes[0].name} to {modes[1].name}.")
        if isinstance(box, list | tuple):
            if len(box) not in (4, 5):
                raise ValueError(f"A single box has 4 or 5 numbers, got {len(box)}: {box}")
            converted = _CONVERSIONS[modes](torch.tensor(box)[None])
            return type(box)(converted[0].tolist())
        if isinstance(box, np.ndarray):
            return _CONVERSIONS[modes](torch.from_numpy(box)).numpy()
        return _CONVERSIONS[modes](box)


def _xyxy_to_xywh(boxes_xyxy: Tensor) -> Tensor:
    return torch.cat([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], dim=1)


def _xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    return torch.cat([boxes_xywh[:, :2], boxes_xywh[:, 2:] + boxes_xywh[:, :2]], dim=1)


def _xywh_to_xywha(boxes_xywh: Tensor) -> Tensor:
    exact = boxes_xywh.double()
    centers = exact[:, :2] + exact[:, 2:] / 2
    upright = exact.new_zeros(len(exact), 1)
    return torch.cat([centers, exact[:, 2:], upright], dim=1).to(boxes_xywh.dtype)


def _xywha_to_xyxy(boxes_xywha: Tensor) -> Tensor:
    """Upright boxes drawn around rotated ones."""
    if boxes_xywha.shape[-1] != 5:
        raise ValueError(f"A rotated box has 5 numbers, got {boxes_xywha.shape[-1]}.")
    exact = boxes_xywha.double()
    width, height, radians = exact[:, 2], exact[:, 3], exact[:, 4] * (math.pi / 180.0)
    cos, sin = radians.cos().abs(), radians.sin().abs()
    extent = torch.stack([cos * width + sin * height, sin * width + cos * height], dim=1)
    corner = exact[:, :2] - extent / 2
    return torch.cat([corner, corner + extent], dim=1).to(boxes_xywha.dtype)


_CONVERSIONS = {
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): _xyxy_to_xywh,
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): _xywh_to_xyxy,
    (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS): _xywh_to_xywha,
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): _xywha_to_xyxy,
}


class Boxes:
    """N boxes as an (N, 4) float32 tensor of rows x1, y1, x2, y2, in pixels.

    Attributes:
        tensor: The boxes. Methods that say so change it in place.
    """

    def __init__(self, tensor: Tensor | np.ndarray | Sequence[Any]):
        """Hold boxes.

        Args:
            tensor: (N, 4) boxes; anything without elements makes N = 0.

        Raises:
            ValueError: If the shape is not (N, 4).
        """
        if isinstance(tensor, Tensor):
            tensor = tensor.to(torch.float32)
        else:
            tensor = torch.as_tensor(tensor, dtype=torch.float32, device=torch.device("cpu"))
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.dim() != 2 or tensor.shape[1] != 4:
            raise ValueError(f"Boxes are an (N, 4) tensor, got shape {tuple(tensor.shape)}.")
        self.tensor = tensor

    def clone(self) -> Boxes:
        """Copy the boxes into storage of their own."""
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device | str) -> Boxes:
        """Boxes on another device; the dtype stays float32."""
        return Boxes(self.tensor.to(device=device))

    def area(self) -> Tensor:
        """(N,) areas in square pixels."""
        sides = self.tensor[:, 2:] - self.tensor[:, :2]
        return sides[:, 0] * sides[:, 1]

    def clip(self, box_size: tuple[int, int]) -> None:
        """Move corners that lie outside the image onto its border, in place.

        Args:
            box_size: Height and width of the image.

        Raises:
            FloatingPointError: If a coordinate is infinite or NaN.
        """
        if not torch.isfinite(self.tensor).all():
            bad = int((~torch.isfinite(self.tensor)).any(dim=1).sum())
            raise FloatingPointError(f"{bad} of {len(self)} boxes hold infinite or NaN numbers.")
        height, width = box_size
        x = self.tensor[:, 0::2].clamp(min=0, max=width)
        y = self.tensor[:, 1::2].clamp(min=0, max=height)
        self.tensor = torch.stack((x, y), dim=-1).flatten(1)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """(N,) bool, True where both sides are longer than ``threshold`` pixels."""
        return ((self.tensor[:, 2:] - self.tensor[:, :2]) > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: float = 0) -> Tensor:
        """Find the boxes that stay within an image.

        Args:
            box_size: Height and width of the image.
            boundary_threshold: Pixels by which a box may reach over the border.

        Returns:
            (N,) bool.
        """
        height, width = box_size
        x1, y1, x2, y2 = self.tensor.unbind(dim=-1)
        starts_inside = (x1 >= -boundary_threshold) & (y1 >= -boundary_threshold)
        ends_inside = (x2 < width + boundary_threshold) & (y2 < height + boundary_threshold)
        return starts_inside & ends_inside

    def get_centers(self) -> Tensor:
        """(N, 2) centres, x and y."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> Boxes:
        """Join boxes into one object with storage of its own; an empty list makes N = 0."""
        if len(boxes_list) == 0:
            return cls(torch.empty(0))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))

    @property
    def device(self) -> torch.device:
        """Where the tensor lies."""
        return self.tensor.device

    def __getitem__(self, item: Any) -> Boxes:
        """Select boxes by an int (one box), a slice, or a vector of indices or booleans."""
        if isinstance(item, int):
            return Boxes(self.tensor[item].view(1, 4))
        selected = self.tensor[item]
        if selected.dim() != 2:
            raise ValueError(f"Boxes indexed by {item} are no (N, 4) tensor any more.")
        return Boxes(selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union of every box of one set with every box of another.

    Args:
        boxes1: N boxes.
        boxes2: M boxes.

    Returns:
        (N, M) float in [0, 1]; 0 where two boxes share no area, boxes without area included.
    """
    top_left = torch.max(boxes1.tensor[:, None, :2], boxes2.tensor[:, :2])
    bottom_right = torch.min(boxes1.tensor[:, None, 2:], boxes2.tensor[:, 2:])
    width, height = (bottom_right - top_left).clamp_(min=0).unbind(dim=2)
    shared = width * height
    union = boxes1.area()[:, None] + boxes2.area() - shared
    return torch.where(shared > 0, shared / union, torch.zeros_like(shared))
