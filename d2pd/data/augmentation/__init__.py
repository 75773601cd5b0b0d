"""What a training image goes through, together with its boxes, before the model sees it.

``torchvision.transforms.v2`` on samples ``{"image": tv_tensors.Image, "boxes":
tv_tensors.BoundingBoxes, "is_region": bool tensor}``. No transform drops a box: ``data.targets``
judges them when all is done. All randomness comes from torch's global generator, which the mapper
seeds for each sample.
"""

from d2pd.data.augmentation.building import (
    build_augmentation,
    build_sizes,
    least_visible_share,
    make_augmentation,
)

__all__ = ["build_augmentation", "build_sizes", "least_visible_share", "make_augmentation"]
