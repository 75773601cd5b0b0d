"""Parameter groups, gradient clipping, the default optimizer and the learning-rate schedule."""

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn

from d2pd.embedded.config import CfgNode
from d2pd.embedded.lr_scheduler import LRMultiplier, WarmupParamScheduler
from d2pd.errors import ConfigError

logger = logging.getLogger(__name__)

Group = dict[str, Any]

_LISTS = ("params", "param_names")

_NORM_LAYERS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[Group]:
    """Sort the trainable parameters into as few groups of equal settings as possible.

    Args:
        model: Shared parameters count once, where they are met first.
        base_lr: Rate of every group; None leaves it to the optimizer.
        weight_decay: Decay of every group; None leaves it to the optimizer.
        weight_decay_norm: Decay of the parameters of normalisation layers.
        bias_lr_factor: Factor on the rate of parameters called ``bias``.
        weight_decay_bias: Decay of parameters called ``bias``.
        lr_factor_func: From a parameter's full name to a factor on its rate.
        overrides: Settings by the parameter's last name; stronger than all of the above.

    Raises:
        ValueError: If a factor is given without ``base_lr``, or ``bias`` is set in two ways.
    """
    if base_lr is None and (bias_lr_factor not in (None, 1.0) or lr_factor_func is not None):
        raise ValueError("bias_lr_factor and lr_factor_func need base_lr")
    overrides = dict(overrides or {})
    bias = _bias_settings(base_lr, bias_lr_factor, weight_decay_bias)
    if bias and "bias" in overrides:
        raise ValueError("bias is set by overrides and by bias_lr_factor or weight_decay_bias")
    if bias:
        overrides["bias"] = bias
    params = []
    for module, full_name, parameter in _trainable(model):
        settings = _given(lr=base_lr, weight_decay=weight_decay)
        if weight_decay_norm is not None and isinstance(module, _NORM_LAYERS):
            settings["weight_decay"] = weight_decay_norm
        if lr_factor_func is not None:
            settings["lr"] *= lr_factor_func(full_name)
        settings.update(overrides.get(full_name.rpartition(".")[2], {}))
        params.append({"params": [parameter], **settings})
    return reduce_param_groups(params)


def _bias_settings(
    base_lr: float | None, factor: float | None, weight_decay: float | None
) -> dict[str, float]:
    settings = _given(weight_decay=weight_decay)
    if base_lr is not None and factor not in (None, 1.0):
        settings = {"lr": base_lr * factor, **settings}
    return settings


def _given(**settings: float | None) -> dict[str, float]:
    return {key: value for key, value in settings.items() if value is not None}


def _trainable(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield module, f"{module_name}.{name}", parameter


def reduce_param_groups(params: list[Group]) -> list[Group]:
    """Merge groups of equal settings; a later group overrides the settings of an earlier one.

    Fewer groups let torch's optimizers update many tensors at once.
    """
    settings: dict[nn.Parameter, Group] = {}
    names: dict[nn.Parameter, str] = {}
    for group in params:
        shared = {key: value for key, value in group.items() if key not in _LISTS}
        for parameter in group["params"]:
            settings.setdefault(parameter, {}).update(shared)
        names.update(zip(group["params"], group.get("param_names", ()), strict=False))
    merged: dict[tuple[tuple[str, Any], ...], Group] = {}
    for parameter, own in settings.items():
        group = merged.setdefault(tuple(own.items()), {**own, "params": []})
        group["params"].append(parameter)
        if parameter in names:
            group.setdefault("param_names", []).append(names[parameter])
    return list(merged.values())


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: Any) -> Any:
    """Make an optimizer clip each parameter's gradient before its step, if the config asks for it.

    Args:
        cfg: ``SOLVER.CLIP_GRADIENTS``: ENABLED, CLIP_TYPE ``value`` or ``norm``, CLIP_VALUE,
            NORM_TYPE.
        optimizer: An optimizer or a class of optimizers; the same kind comes back.

    Raises:
        ValueError: If CLIP_TYPE is another word.
    """
    clipping = copy.deepcopy(cfg.SOLVER.CLIP_GRADIENTS)
    if not clipping.ENABLED:
        return optimizer
    base: Any = optimizer if isinstance(optimizer, type) else type(optimizer)
    clip = _clipper(clipping)

    def step(self: torch.optim.Optimizer, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:  # torch refuses to clip nothing
                    clip(parameter)
        return base.step(self, closure)

    clipped = type(f"{base.__name__}WithGradientClip", (base,), {"step": step})
    if isinstance(optimizer, type):
        return clipped
    optimizer.__class__ = clipped
    return optimizer


def _clipper(clipping: CfgNode) -> Callable[[nn.Parameter], Any]:
    if clipping.CLIP_TYPE == "value":
        return lambda parameter: nn.utils.clip_grad_value_(parameter, clipping.CLIP_VALUE)
    if clipping.CLIP_TYPE == "norm":
        return lambda parameter: nn.utils.clip_grad_norm_(
            parameter, clipping.CLIP_VALUE, clipping.NORM_TYPE
        )
    raise ConfigError(
        f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {clipping.CLIP_TYPE!r}: allowed are value, norm"
    )


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Return SGD over ``model`` with the settings of ``SOLVER``."""
    solver = cfg.SOLVER
    params = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    optimizer = torch.optim.SGD(
        params,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        foreach=True,  # stands in the checkpoint, as Detectron2's does
    )
    return maybe_add_gradient_clipping(cfg, optimizer)


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """Return the schedule that ``SOLVER`` describes: warm-up, then steps or a cosine.

    Raises:
        ConfigError: If ``SOLVER.LR_SCHEDULER_NAME`` or ``BASE_LR_END`` cannot be used.
    """
    solver = cfg.SOLVER
    warmed = WarmupParamScheduler(
        _decay(solver),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=warmed, max_iter=solver.MAX_ITER)


def _decay(solver: CfgNode) -> ParamScheduler:
    name = solver.LR_SCHEDULER_NAME
    if name == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step <= solver.MAX_ITER]
        if len(steps) < len(solver.STEPS):
            logger.warning("SOLVER.STEPS beyond SOLVER.MAX_ITER (%d) are left out", solver.MAX_ITER)
        values = [solver.GAMMA**passed for passed in range(len(steps) + 1)]
        return MultiStepParamScheduler(values, milestones=steps, num_updates=solver.MAX_ITER)
    if name == "WarmupCosineLR":
        share = solver.BASE_LR_END / solver.BASE_LR
        if not 0.0 <= share <= 1.0:
            raise ConfigError(
                f"SOLVER.BASE_LR_END is {solver.BASE_LR_END}: it must lie between 0 and "
                f"SOLVER.BASE_LR ({solver.BASE_LR})"
            )
        return CosineParamScheduler(1, share)
    if name == "WarmupStepWithFixedGammaLR":
        return StepWithFixedGammaParamScheduler(
            base_value=1.0,
            gamma=solver.GAMMA,
            num_decays=solver.NUM_DECAYS,
            num_updates=solver.MAX_ITER,
        )
    raise ConfigError(
        f"SOLVER.LR_SCHEDULER_NAME is {name!r}: allowed are WarmupMultiStepLR, WarmupCosineLR, "
        "WarmupStepWithFixedGammaLR"
    )
