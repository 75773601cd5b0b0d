"""What a sample has in training besides its image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torchvision.ops import box_area

from d2pd.d2 import Boxes, Instances


def make_targets(
    image: torch.Tensor,
    boxes: torch.Tensor,
    annotations: Sequence[Mapping[str, Any]],
    min_box_size: float | None,
    min_visible: float | None = None,
) -> dict[str, Any]:
    """Make what a sample has in training besides its image, see ``Mapper``.

    Args:
        image: (C, h, w); only its size counts.
        boxes: (N, 4) XYXY in pixels of ``image``, as the transforms left them: not clipped.
        annotations: N, for the classes and to tell regions to ignore.
        min_box_size: See ``Mapper``. With None, coordinates that are not finite stay so.
        min_visible: Share of its area in [0, 1] that a label must have inside the image, its
            centre too; None asks for neither. Regions stay while something of them is there.

    Returns:
        ``instances`` and ``ignore_boxes``, each in the order of ``annotations``;
        ``instances.gt_rows`` (int64) says which of ``annotations`` a label is.
    """
    image_size = (image.shape[-2], image.shape[-1])
    clipped = clip(boxes, image_size)
    is_label = ~torch.tensor([is_region(a) for a in annotations], dtype=torch.bool)
    if min_box_size is None:
        is_kept = torch.ones(len(boxes), dtype=torch.bool)
        clipped = torch.where(boxes.isfinite(), clipped, boxes)
    else:
        sides = clipped[:, 2:] - clipped[:, :2]
        is_kept = ((sides >= min_box_size) & (sides > 0)).all(dim=1)
    if min_visible is not None:
        is_kept &= is_seen(boxes, image_size, min_visible) | ~is_label
    rows = torch.nonzero(is_kept & is_label).flatten()
    classes = torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64)
    instances = Instances(image_size)
    instances.gt_boxes = Boxes(clipped[rows])
    instances.gt_classes = classes[rows]
    instances.gt_rows = rows
    return {"instances": instances, "ignore_boxes": clipped[is_kept & ~is_label]}


def is_seen(boxes: torch.Tensor, image_size: tuple[int, int], min_visible: float) -> torch.Tensor:
    """Tell which boxes have their centre and a share of their area inside the image.

    Args:
        boxes: (N, 4) XYXY in pixels of the image, not clipped.
        image_size: (height, width).
        min_visible: The least share, in [0, 1].

    Returns:
        (N,) bool; False for a box without area, or that is not finite.
    """
    height, width = image_size
    share = box_area(clip(boxes, image_size)) / box_area(boxes)
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).unbind(dim=1)
    is_inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return is_inside & (share >= min_visible)


def clip(boxes: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """Cut boxes, (N, 4) XYXY, to an image of (height, width)."""
    height, width = image_size
    limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limits)


def is_region(annotation: Mapping[str, Any]) -> bool:
    """Tell whether a label is a region that is neither reward nor penalty, and no target."""
    return bool(annotation.get("ignore", 0) or annotation.get("iscrowd", 0))
