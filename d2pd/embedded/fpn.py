"""Feature pyramid: Lin et al., Feature Pyramid Networks, CVPR 2017."""

import math
from itertools import pairwise

import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from d2pd.embedded.backbone import BACKBONE_REGISTRY, Backbone
from d2pd.embedded.batch_norm import get_norm
from d2pd.embedded.conv import Conv2d, init_xavier
from d2pd.embedded.resnet import build_resnet_backbone
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError


class LastLevelMaxPool(nn.Module):
    """One more level on top of a pyramid: every second position of ``p5``.

    Attributes:
        num_levels: Levels that it adds.
        in_feature: Level that they are made of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_levels = 1
        self.in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, C, H, W) to one map of half the size."""
        return [F.max_pool2d(x, kernel_size=1, stride=2, padding=0)]


class FPN(Backbone):
    """Pyramid of equal channels over a bottom-up network, with further levels on top.

    Map ``p<k>`` has stride ``2 ** k``. The lateral and output convolutions register before the
    bottom-up network: optimizer state saved by position relies on it.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: list[str],
        out_channels: int,
        norm: str = "",
        top_block: LastLevelMaxPool | None = None,
        fuse_type: str = "sum",
    ):
        """Build the pyramid.

        Args:
            bottom_up: Network whose maps are taken.
            in_features: Names of its maps, high to low resolution, each of twice the stride.
            out_channels: Channels of every level.
            norm: See ``get_norm``; empty gives the convolutions a bias instead.
            top_block: Makes the levels above the coarsest map of ``bottom_up``, if any.
            fuse_type: ``sum`` or ``avg`` of the lateral map and the enlarged coarser one.

        Raises:
            ConfigError: If the strides do not double, the top block needs a level that is not
                there, or ``fuse_type`` is unknown.
        """
        super().__init__()
        shapes = bottom_up.output_shape()
        missing = [name for name in in_features if name not in shapes]
        if missing or not in_features:
            raise ConfigError(f"FPN.IN_FEATURES is {in_features}, the backbone has {list(shapes)}")
        strides = [shapes[name].stride or 1 for name in in_features]
        if any(fine * 2 != coarse for fine, coarse in pairwise(strides)):
            raise ConfigError(f"FPN.IN_FEATURES needs strides that double, got {strides}")
        if fuse_type not in ("sum", "avg"):
            raise ConfigError(f"MODEL.FPN.FUSE_TYPE is '{fuse_type}', allowed are 'sum' and 'avg'")
        levels = [int(math.log2(stride)) for stride in strides]
        for level, name in zip(levels, in_features, strict=True):
            self._add_level(level, shapes[name].channels or 0, out_channels, norm)
        self.bottom_up = bottom_up
        self._lateral_and_output = [(f"fpn_lateral{k}", f"fpn_output{k}") for k in levels]
        self._in_features = list(in_features)
        self._averages = fuse_type == "avg"
        self._size_divisibility = strides[-1]
        self.top_block = top_block
        self._out_feature_strides = {f"p{k}": 2**k for k in levels}
        if top_block is not None:
            if top_block.in_feature not in self._out_feature_strides:
                raise ConfigError(
                    f"the top level is pooled from {top_block.in_feature}, but the pyramid has "
                    f"{list(self._out_feature_strides)}"
                )
            above = range(levels[-1] + 1, levels[-1] + 1 + top_block.num_levels)
            self._out_feature_strides |= {f"p{k}": 2**k for k in above}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    def _add_level(self, level: int, in_channels: int, out_channels: int, norm: str) -> None:
        norms = (get_norm(norm, out_channels), get_norm(norm, out_channels))
        has_bias = norm == ""
        lateral = Conv2d(in_channels, out_channels, 1, bias=has_bias, norm=norms[0])
        output = Conv2d(out_channels, out_channels, 3, padding=1, bias=has_bias, norm=norms[1])
        init_xavier(lateral)
        init_xavier(output)
        self.add_module(f"fpn_lateral{level}", lateral)
        self.add_module(f"fpn_output{level}", output)

    @property
    def size_divisibility(self) -> int:
        """Stride of the coarsest map that is enlarged."""
        return self._size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (N, C, H, W), padded to ``size_divisibility``, to ``p2``, ``p3``, ..."""
        bottom_up = self.bottom_up(x)
        finer_to_coarser: list[Tensor] = []
        merged: Tensor | None = None
        for name, (lateral, output) in zip(
            reversed(self._in_features), reversed(self._lateral_and_output), strict=True
        ):
            own = getattr(self, lateral)(bottom_up[name])
            merged = own if merged is None else self._merge(own, merged)
            finer_to_coarser.insert(0, getattr(self, output)(merged))
        if self.top_block is not None:
            source = self._out_features.index(self.top_block.in_feature)
            finer_to_coarser += self.top_block(finer_to_coarser[source])
        return dict(zip(self._out_features, finer_to_coarser, strict=True))

    def _merge(self, lateral: Tensor, coarser: Tensor) -> Tensor:
        merged = lateral.add_(F.interpolate(coarser, scale_factor=2.0, mode="nearest"))
        return merged.div_(2) if self._averages else merged


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a ResNet with a pyramid from ``MODEL.RESNETS`` and ``MODEL.FPN``.

    Raises:
        ConfigError: If the pyramid does not reach res5; besides what ``FPN`` raises.
    """
    if cfg.MODEL.FPN.IN_FEATURES[-1:] != ["res5"]:
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES is {cfg.MODEL.FPN.IN_FEATURES}; it has to end in res5, as "
            "Detectron2 pools the top level from p5"
        )
    return FPN(
        bottom_up=build_resnet_backbone(cfg, input_shape),
        in_features=list(cfg.MODEL.FPN.IN_FEATURES),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
