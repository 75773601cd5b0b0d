"""Builds any model by the name in ``MODEL.META_ARCHITECTURE``, d2pd's own among them."""

from torch import nn

from d2pd import d2
from d2pd.d2 import CfgNode
from d2pd.modeling import ssd_seg  # noqa: F401  registers SSDSeg

RGB = ("red", "green", "blue")


def build_model(cfg: CfgNode) -> nn.Module:
    """Build a model on ``MODEL.DEVICE``; no weights are loaded.

    Args:
        cfg: The whole configuration.

    Returns:
        The model. Its ``lwir_filters`` says which filters of a first layer for RGB images make up,
        as their mean, those for a thermal channel; see ``training.weights.first_layer``.

    Raises:
        ConfigError: If keys do not fit together.
    """
    model = d2.build_model(cfg)
    vars(model)["lwir_filters"] = lwir_filters(cfg.MODEL.BACKBONE.LWIR_FILTERS, cfg.INPUT.FORMAT)
    return model


def lwir_filters(name: str, image_format: str) -> tuple[int, ...]:
    """Return the positions, 0 to 2, of the filters that ``MODEL.BACKBONE.LWIR_FILTERS`` names.

    Args:
        name: ``average``, ``red``, ``green`` or ``blue``.
        image_format: Order of the channels, ``RGB`` or ``BGR``: what the weights are for.
    """
    if name == "average":
        return (0, 1, 2)
    position = RGB.index(name)
    return (position if image_format == "RGB" else 2 - position,)
