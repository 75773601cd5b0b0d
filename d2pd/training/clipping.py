"""Gradient clipping as Detectron2 means it: of each parameter by itself."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from d2pd.d2 import CfgNode
from d2pd.errors import ConfigError

Clip = Callable[[Iterable[Tensor]], None]


def build_clipping(cfg: CfgNode) -> Clip:
    """Return what clips the gradients of parameters, in place.

    Detectron2 builds it into the optimizer, where it meets scaled gradients and fails on a
    parameter without one.

    Args:
        cfg: ``SOLVER.CLIP_GRADIENTS``: ENABLED; CLIP_TYPE ``value`` (each entry to
            ±CLIP_VALUE) or ``norm`` (the norm of each parameter, of order NORM_TYPE, to
            CLIP_VALUE).

    Raises:
        ConfigError: If CLIP_TYPE is another word, or a number is not above 0: a limit below it
            would turn gradients round.
    """
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    if not clipping.ENABLED:
        return leave_as_they_are
    for key in ("CLIP_VALUE", "NORM_TYPE"):
        if not clipping[key] > 0:
            raise ConfigError(
                f"SOLVER.CLIP_GRADIENTS.{key} is {clipping[key]:g}; it must be above 0"
            )
    if clipping.CLIP_TYPE == "value":
        return clip_values(clipping.CLIP_VALUE)
    if clipping.CLIP_TYPE == "norm":
        return clip_norms(clipping.CLIP_VALUE, clipping.NORM_TYPE)
    raise ConfigError(
        f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {clipping.CLIP_TYPE!r}; allowed: value, norm"
    )


def leave_as_they_are(_parameters: Iterable[Tensor]) -> None:
    """Clip nothing."""


def clip_values(limit: float) -> Clip:
    """Return what clamps each entry of a gradient to ±``limit``."""

    def clip(parameters: Iterable[Tensor]) -> None:
        nn.utils.clip_grad_value_(parameters, limit)

    return clip


def clip_norms(limit: float, order: float) -> Clip:
    """Return what scales each gradient whose norm of this order exceeds ``limit`` down to it."""

    def clip(parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                nn.utils.clip_grad_norm_(parameter, limit, order)

    return clip
