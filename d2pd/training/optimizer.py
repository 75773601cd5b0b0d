"""The optimizer that a configuration asks for."""

from typing import Any

import torch
from torch import nn

from d2pd.d2 import CfgNode, get_default_optimizer_params

POSITIONS = "relative_position_bias_table"
"""Parameters of Swin that decay as norms do, as in the training by its authors."""


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build SGD, Adam or AdamW with Detectron2's parameter groups; the step clips the gradients.

    Args:
        cfg: Reads ``SOLVER``: OPTIMIZER, BASE_LR, MOMENTUM and NESTEROV (SGD), WEIGHT_DECAY and
            its variants for norms and biases, BIAS_LR_FACTOR.
        model: Parameters that do not require a gradient are left out.

    Returns:
        The optimizer; one parameter group per distinct setting.
    """
    solver = cfg.SOLVER
    params = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        overrides={POSITIONS: {"weight_decay": solver.WEIGHT_DECAY_NORM}},
    )
    kind: Any = getattr(torch.optim, solver.OPTIMIZER)
    extra: dict[str, Any] = {}
    if solver.OPTIMIZER == "SGD":
        extra = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    return kind(params, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY, **extra)
