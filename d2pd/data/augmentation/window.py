"""Zoom out, cut out and resize in one go: what is drawn is a window on the picture.

A chain that resizes after each of these steps blurs the picture each time, and zooming out on a
canvas that grows needs many times the memory. Here the steps only choose a window, which may reach
over the picture's rim, and the pixels are resampled once, to the size that the network gets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.ops import box_iou, clip_boxes_to_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from d2pd.data.augmentation.geometry import RandomCrop, Rotation, resize
from d2pd.data.augmentation.sizes import (
    LARGEST_FACTOR,
    ImageSize,
    Sizes,
    check_range,
    draw_integer,
    draw_number,
)

IOU_OPTIONS = (None, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Overlaps that a crop may have to have with a label; None leaves the picture whole."""

TRIALS = 40
"""Crops drawn for an overlap, before another overlap is drawn."""

ROUNDS = 40
"""Overlaps drawn at most; the picture stays whole where none gave a crop."""


@dataclass(frozen=True)
class Window:
    """A rectangle in pixels of the picture; it may reach over the rim."""

    top: int
    left: int
    height: int
    width: int

    def within(self, picture: ImageSize) -> ImageSize:
        """Return its size, scaled down to fit into the picture's: no canvas outgrows that."""
        shrink = min(1.0, picture[0] / self.height, picture[1] / self.width)
        return max(1, round(self.height * shrink)), max(1, round(self.width * shrink))


DrawWindow = Callable[[Window, ImageSize, torch.Tensor], Window]
"""Draws the next window from the last one, the picture's size and the (N, 4) labels in it."""


class Crop:
    """A part of the last window, as ``RandomCrop`` cuts it out of an image.

    Other windows may show again what it leaves out, which cut off would be lost.
    """

    def __init__(self, crop: RandomCrop) -> None:
        """Take what draws it."""
        self.crop = crop

    def __call__(self, window: Window, _picture: ImageSize, _labels: torch.Tensor) -> Window:
        """Draw size and place."""
        drawn = self.crop.draw((window.height, window.width))
        top, left = window.top + drawn["top"], window.left + drawn["left"]
        return Window(top, left, drawn["height"], drawn["width"])


class ZoomOut:
    """Every other time, a window larger than the last by a drawn factor, around it.

    Source: Liu et al., SSD, ECCV 2016, section 3.6.
    """

    def __init__(self, largest: float) -> None:
        """Set the largest factor on the sides.

        Raises:
            ValueError: If it is below 1, or out of all proportion.
        """
        if not 1 <= largest <= LARGEST_FACTOR:
            raise ValueError(
                f"the largest factor must be a number from 1 to {LARGEST_FACTOR}, got {largest}"
            )
        self.largest = largest

    def __call__(self, window: Window, _picture: ImageSize, _labels: torch.Tensor) -> Window:
        """Draw whether, the factor and the place."""
        if float(torch.rand(())) < 0.5:
            return window
        factor = draw_number(1.0, self.largest)
        height, width = round(window.height * factor), round(window.width * factor)
        top = window.top - draw_integer(0, height - window.height)
        return Window(top, window.left - draw_integer(0, width - window.width), height, width)


class IoUCrop:
    """A window within the last one that holds a label's centre and overlaps it by a drawn IoU.

    As ``v2.RandomIoUCrop``: sides of .3 to 1 of the last one's, at most twice as long as each
    other. It differs in what it knows: regions to ignore are no labels, nor is what lies outside
    the picture. A picture without labels stays whole.

    Source: Liu et al., SSD, ECCV 2016, section 2.2.
    """

    def __call__(self, window: Window, picture: ImageSize, labels: torch.Tensor) -> Window:
        """Draw overlaps, and crops for each, until one fits."""
        labels = _inside(labels, picture)
        for _ in range(ROUNDS if len(labels) else 0):
            least = IOU_OPTIONS[draw_integer(0, len(IOU_OPTIONS) - 1)]
            if least is None:
                break
            crops = self._draw(window)
            fits = ((box_iou(crops, labels) >= least) & _hold_centres(crops, labels)).any(dim=1)
            if fits.any():
                x1, y1, x2, y2 = (int(side) for side in crops[int(fits.int().argmax())])
                return Window(y1, x1, y2 - y1, x2 - x1)
        return window

    def _draw(self, window: Window) -> torch.Tensor:
        """Return crops of the right shape among those drawn, (T, 4) XYXY in whole pixels."""
        rand = torch.rand(TRIALS, 4)
        whole = torch.tensor([window.width, window.height], dtype=torch.float32)
        sides = (whole * (0.3 + 0.7 * rand[:, :2])).floor().clamp(min=1)
        corner = ((whole - sides) * rand[:, 2:]).floor()
        corner += torch.tensor([window.left, window.top])
        ratio = sides[:, 0] / sides[:, 1]
        return torch.cat([corner, corner + sides], dim=1)[(ratio >= 0.5) & (ratio <= 2)]


class ResizedCrop:
    """A window of a drawn share of the last one's area, above 1 around it, and a drawn shape."""

    def __init__(self, scale: Sequence[float], ratio: Sequence[float]) -> None:
        """Set what is drawn from, on a logarithmic scale: half is as likely as twice.

        Args:
            scale: (low, high) share of the area; above 1 the window reaches over the rim.
            ratio: (low, high) width / height, relative to that of the last window.

        Raises:
            ValueError: If one is not two numbers, 0 < low <= high.
        """
        for name, pair in (("scale", scale), ("ratio", ratio)):
            if len(pair) != 2:
                raise ValueError(f"{name} takes two numbers, low and high, got {tuple(pair)}")
            check_range(*pair)
        self.log_scale = [math.log(number) for number in scale]
        self.log_ratio = [math.log(number) for number in ratio]

    def __call__(self, window: Window, picture: ImageSize, _: torch.Tensor) -> Window:
        """Draw area, shape and place."""
        area, shape = draw_number(*self.log_scale), draw_number(*self.log_ratio)
        height = max(1, round(window.height * math.exp((area - shape) / 2)))
        width = max(1, round(window.width * math.exp((area + shape) / 2)))
        top = _draw_start(window.top, window.height, height, picture[0])
        return Window(top, _draw_start(window.left, window.width, width, picture[1]), height, width)


def _draw_start(start: int, length: int, new_length: int, limit: int) -> int:
    """Draw where the new stretch starts: in the old one, or around it; its middle in [0, limit]."""
    spare = length - new_length
    drawn = start + draw_integer(min(0, spare), max(0, spare))
    return min(max(drawn, -(new_length // 2)), limit - (new_length + 1) // 2)


class LookThrough(v2.Transform):
    """Show what is seen through a drawn window, at the size that a rule gives.

    What lies beyond the picture is filled. Boxes go along, all of them and unclipped.
    """

    def __init__(
        self,
        draws: Sequence[DrawWindow],
        sizes: Sizes,
        fill: Sequence[int],
        rotation: Rotation | None = None,
    ) -> None:
        """Set what is drawn.

        Args:
            draws: Applied in turn, the first to a window that shows the whole picture.
            sizes: Asked with the size of the window, or less: see ``Window.within``.
            fill: A level for each channel.
            rotation: Turns the picture first, behind that window.
        """
        super().__init__()
        self.draws = tuple(draws)
        self.sizes = sizes
        self.fill = tuple(fill)
        self.rotation = rotation

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Apply one window to the image and boxes of a sample.

        ``v2.Transform.forward`` would not show ``make_params`` which boxes are regions: it keeps
        plain tensors from it.

        Args:
            sample: ``image``, ``boxes``, and maybe ``is_region`` and more, which pass.
        """
        height, width = sample["image"].shape[-2:]
        if self.rotation:
            sample = self.rotation(sample)
        picture = sample["image"].shape[-2:]
        window = Window((picture[0] - height) // 2, (picture[1] - width) // 2, height, width)
        labels = _labels_of(sample)
        for draw in self.draws:
            window = draw(window, picture, labels)
        size = self.sizes.draw(window.within((height, width)))
        params = {"window": window, "size": size}
        return sample | {name: self.transform(sample[name], params) for name in ("image", "boxes")}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resample an image (bilinear, antialiased), or move and scale boxes."""
        window, size = params["window"], params["size"]
        if isinstance(inpt, tv_tensors.Image):
            image = inpt.as_subclass(torch.Tensor)
            return tv_tensors.Image(see_through(image, window, size, self.fill))
        moved = F.crop(inpt, window.top, window.left, window.height, window.width)
        return F.resize(moved, size=list(size))


def see_through(
    image: torch.Tensor, window: Window, size: ImageSize, fill: Sequence[int]
) -> torch.Tensor:
    """Return what a window shows of an image.

    Args:
        image: (C, H, W).
        window: Overlaps the image.
        size: (height, width) of the result.
        fill: A level for each channel.

    Returns:
        (C, height, width); the image's edges lie within half a pixel of where they belong.
    """
    rows, to_rows = _stretches(window.top, window.height, image.shape[1], size[0])
    columns, to_columns = _stretches(window.left, window.width, image.shape[2], size[1])
    target = (to_rows.stop - to_rows.start, to_columns.stop - to_columns.start)
    shown = resize(image[:, rows, columns].contiguous(), target)
    if target == tuple(size):
        return shown
    canvas = image.new_tensor(list(fill)).reshape(-1, 1, 1).repeat(1, *size)
    canvas[:, to_rows, to_columns] = shown
    return canvas


def _stretches(start: int, length: int, limit: int, new_length: int) -> tuple[slice, slice]:
    """Return which pixels of [0, limit) a window shows along one side, and where it shows them."""
    first, last = max(0, start), min(limit, start + length)
    scale = new_length / length
    to_first = min(round((first - start) * scale), new_length - 1)
    to_last = max(round((last - start) * scale), to_first + 1)
    return slice(first, last), slice(to_first, to_last)


def _labels_of(sample: Mapping[str, Any]) -> torch.Tensor:
    """Return the boxes that are no regions."""
    boxes = sample["boxes"].as_subclass(torch.Tensor)
    return boxes[~sample["is_region"]] if "is_region" in sample else boxes


def _inside(labels: torch.Tensor, picture: ImageSize) -> torch.Tensor:
    """Return the labels with their centre in the picture, clipped to it."""
    whole = torch.tensor([[0.0, 0.0, picture[1], picture[0]]])
    return clip_boxes_to_image(labels[_hold_centres(whole, labels)[0]], picture)


def _hold_centres(windows: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Tell which windows, (W, 4), hold the centre of which boxes, (N, 4): (W, N) bool."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    after = centres > windows[:, None, :2]
    return (after & (centres < windows[:, None, 2:])).all(dim=2)
