"""Whole models by name."""

import torch
from fvcore.common.config import CfgNode
from fvcore.common.registry import Registry
from torch import nn

from d2pd.embedded.honoured import check_honoured
from d2pd.errors import ConfigError

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = """
Whole models by the name in ``MODEL.META_ARCHITECTURE``: callables of ``(cfg)``.
"""


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model that ``MODEL.META_ARCHITECTURE`` names, on ``MODEL.DEVICE``.

    No weights are loaded.

    Raises:
        ConfigError: If a changed key is one that this engine does not honour, or no model has that
            name.
    """
    check_honoured(cfg)
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        known = sorted(known_name for known_name, _ in META_ARCH_REGISTRY)
        raise ConfigError(f"MODEL.META_ARCHITECTURE is '{name}', the embedded engine has {known}")
    return META_ARCH_REGISTRY.get(name)(cfg).to(torch.device(cfg.MODEL.DEVICE))
