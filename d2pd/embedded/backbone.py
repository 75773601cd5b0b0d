"""What every backbone offers, and the list of backbones by name."""

from abc import ABC, abstractmethod
from typing import Any

from fvcore.common.config import CfgNode
from fvcore.common.registry import Registry
from torch import Tensor, nn

from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = """
Backbones by the name in ``MODEL.BACKBONE.NAME``: callables of ``(cfg, input_shape)``.
"""


class Backbone(nn.Module, ABC):
    """A network from images to named feature maps.

    Subclasses set ``_out_features`` (names), ``_out_feature_channels`` and
    ``_out_feature_strides`` (by name), or override ``output_shape``.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, *args: Any) -> dict[str, Tensor]:
        """Map images (N, C, H, W) to feature maps by name, high to low resolution."""

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; 0 if any size will do."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further demands on the padding, as ``ImageList.from_tensors`` takes them."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map, by name."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build the backbone that ``MODEL.BACKBONE.NAME`` names.

    Args:
        cfg: Configuration.
        input_shape: Shape of the images; without it, the channels of ``MODEL.PIXEL_MEAN``.

    Raises:
        ConfigError: If no backbone has that name.
    """
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    name = cfg.MODEL.BACKBONE.NAME
    if name not in BACKBONE_REGISTRY:
        known = sorted(known_name for known_name, _ in BACKBONE_REGISTRY)
        raise ConfigError(f"MODEL.BACKBONE.NAME is '{name}', the embedded engine has {known}")
    return BACKBONE_REGISTRY.get(name)(cfg, input_shape)
