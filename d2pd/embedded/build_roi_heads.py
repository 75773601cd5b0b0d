"""The second stage by name."""

from fvcore.common.config import CfgNode

from d2pd.embedded.cascade import CascadeROIHeads
from d2pd.embedded.roi_heads import StandardROIHeads
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError

ROI_HEADS = {each.__name__: each for each in (StandardROIHeads, CascadeROIHeads)}


def build_roi_heads(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> StandardROIHeads:
    """Build the second stage over feature maps of these shapes.

    Raises:
        ConfigError: If there is none of the name ``MODEL.ROI_HEADS.NAME``, or a feature map is
            missing.
    """
    name = cfg.MODEL.ROI_HEADS.NAME
    if name not in ROI_HEADS:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NAME is '{name}', the embedded engine has {sorted(ROI_HEADS)}"
        )
    missing = [name for name in cfg.MODEL.ROI_HEADS.IN_FEATURES if name not in input_shape]
    if missing:
        raise ConfigError(
            f"MODEL.ROI_HEADS.IN_FEATURES asks for {missing}, the backbone has {list(input_shape)}"
        )
    return ROI_HEADS[name](cfg, input_shape)
