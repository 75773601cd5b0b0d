"""The backbone ``build_torchvision_fpn_backbone``: a torchvision classifier below a pyramid."""

from itertools import pairwise
from typing import Any

from torch import nn

from d2pd import d2
from d2pd.d2 import CfgNode, ShapeSpec
from d2pd.errors import ConfigError
from d2pd.modeling.torchvision_features import TorchvisionFeatures

NAME = "build_torchvision_fpn_backbone"


def register(registry: Any, parts: tuple[Any, Any, Any]) -> None:
    """Register the backbone with an engine.

    Args:
        registry: The engine's list of backbones.
        parts: The engine's ``Backbone``, ``FPN`` and ``LastLevelMaxPool``.
    """
    backbone_class, pyramid_class, pool_class = parts

    class TorchvisionBottomUp(TorchvisionFeatures, backbone_class):  # type: ignore[misc,valid-type]
        """What the engine knows as a backbone."""

    def build_torchvision_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
        features = list(cfg.MODEL.FPN.IN_FEATURES)
        check_levels(features, list(cfg.MODEL.RPN.IN_FEATURES))
        pyramid: nn.Module = pyramid_class(
            bottom_up=TorchvisionBottomUp(
                cfg.MODEL.TORCHVISION.NAME,
                input_shape.channels or 3,
                features,
                out_nodes=cfg.MODEL.TORCHVISION.OUT_NODES,
                freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
                freezes_norm=cfg.MODEL.TORCHVISION.FREEZE_NORM,
            ),
            in_features=features,
            out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
            norm=cfg.MODEL.FPN.NORM,
            top_block=pool_class(),
            fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
        )
        return pyramid

    registry.register(build_torchvision_fpn_backbone)


def check_levels(features: list[str], rpn_features: list[str]) -> None:
    """Check that the maps follow each other, up to res5: the top level is pooled from p5.

    Raises:
        ConfigError: If they do not, or the RPN asks for another level.
    """
    levels = [int(name[3:]) for name in features if name[:3] == "res" and name[3:].isdigit()]
    if len(levels) != len(features) or levels[-1:] != [5]:
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES is {features}; it takes maps such as res2, res3, res4, res5, "
            "and has to end in res5, as the top level is pooled from p5"
        )
    if any(coarse != fine + 1 for fine, coarse in pairwise(levels)):
        raise ConfigError(f"MODEL.FPN.IN_FEATURES is {features}: each needs twice the stride")
    there = [f"p{level}" for level in (*levels, 6)]
    missing = [name for name in rpn_features if name not in there]
    if missing:
        raise ConfigError(
            f"MODEL.RPN.IN_FEATURES names {', '.join(map(str, missing))}, but the pyramid over "
            f"{', '.join(features)} has {', '.join(there)}"
        )


register(d2.BACKBONE_REGISTRY, (d2.Backbone, d2.FPN, d2.LastLevelMaxPool))
if d2.ENGINE != "embedded":
    register(*d2.embedded_backbone_parts())  # what is predicted with and exported
