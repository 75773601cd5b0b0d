"""What a sample has in training besides its image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from d2pd.d2 import Boxes, Instances


def make_targets(
    image: torch.Tensor,
    boxes: torch.Tensor,
    annotations: Sequence[Mapping[str, Any]],
    min_box_size: float | None,
) -> dict[str, Any]:
    """Make what a sample has in training besides its image, see ``Mapper``.

    Args:
        image: (3, h, w); only its size counts.
        boxes: (N, 4) XYXY in pixels of ``image``.
        annotations: N, for the classes and to tell regions to ignore.
        min_box_size: See ``Mapper``. With None, coordinates that are not finite stay so.

    Returns:
        ``instances`` and ``ignore_boxes``, each in the order of ``annotations``.
    """
    height, width = image.shape[-2:]
    limits = boxes.new_tensor([width, height, width, height])
    clipped = torch.minimum(boxes.clamp(min=0), limits)
    is_kept = torch.ones(len(boxes), dtype=torch.bool)
    if min_box_size is None:
        boxes = torch.where(boxes.isfinite(), clipped, boxes)
    else:
        boxes = clipped
        sides = boxes[:, 2:] - boxes[:, :2]
        is_kept = (sides >= min_box_size).all(dim=1) & (sides > 0).all(dim=1)
    is_ignore = torch.tensor([is_region(a) for a in annotations], dtype=torch.bool)
    classes = torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes[is_kept & ~is_ignore])
    instances.gt_classes = classes[is_kept & ~is_ignore]
    return {"instances": instances, "ignore_boxes": boxes[is_kept & is_ignore]}


def is_region(annotation: Mapping[str, Any]) -> bool:
    """Tell whether a label is a region that is neither reward nor penalty, and no target."""
    return bool(annotation.get("ignore", 0) or annotation.get("iscrowd", 0))
