"""SSD in inference as one function of tensors: what is predicted with and exported."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from d2pd.modeling.anchors import AnchorShapes, make_anchors
from d2pd.modeling.batch_detections import BatchDetections, Suppress, suppress_by_image
from d2pd.modeling.network import map_sizes
from d2pd.modeling.post_processing import detect


class SSDCore(nn.Module):
    """Detects on a batch of images of one size; the segmentation layers have no part in it.

    Args:
        model: An ``SSDSeg``; its parameters are shared.

    Attributes:
        suppress: How overlapping boxes are suppressed.
        num_groups: An upper bound on the groups that ``suppress`` is asked for.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        of_model: Any = model
        self.network = of_model.network
        self.anchor_shapes: AnchorShapes = of_model.anchor_shapes
        self.extra_layers = of_model.extra_layers
        self.detection = of_model.detection
        self.suppress: Suppress = suppress_by_image
        self.num_groups = self.network.heads.num_logits - 1
        for name in ("pixel_mean", "pixel_std"):
            self.register_buffer(name, getattr(model, name), persistent=False)

    def forward(self, images: Tensor) -> BatchDetections:
        """Detect.

        Args:
            images: (N, C, H, W) uint8 or float, pixels as ``MODEL.PIXEL_MEAN`` is for.

        Raises:
            ConfigError: If the images are too small for the maps.
        """
        size = (images.shape[-2], images.shape[-1])
        # A cache asks which sizes it has seen; an export is for any.
        lay = make_anchors if torch.compiler.is_exporting() else laid_anchors
        anchors = lay(
            self.anchor_shapes, tuple(map_sizes(size, self.extra_layers)), size, images.device
        )
        predictions = self.network((images - self.pixel_mean) / self.pixel_std)
        return detect(
            predictions.cls_logits.float(),
            predictions.box_deltas.float(),
            anchors,
            size,
            self.detection,
            self.suppress,
        )


@lru_cache(maxsize=8)
def laid_anchors(
    shapes: AnchorShapes,
    map_sizes: tuple[tuple[int, int], ...],
    image_size: tuple[int, int],
    device: torch.device,
) -> Tensor:
    """As ``make_anchors``; those of the last sizes are kept."""
    return make_anchors(shapes, map_sizes, image_size, device)
