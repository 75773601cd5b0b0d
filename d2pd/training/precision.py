"""In which numbers the forward pass is computed, and the loss scale that fp16 needs."""

import contextlib
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from d2pd.d2 import CfgNode

logger = logging.getLogger(__name__)

PRECISIONS = FP32, BF16, FP16 = "fp32", "bf16", "fp16"
_DTYPES = {BF16: torch.bfloat16, FP16: torch.float16}


class Precision:
    """Weights are always float32; bf16 and fp16 compute most of the forward pass in 16 bits.

    fp16 has little room for small gradients, so the loss is scaled up before backward and the
    gradients down after it. A gradient that overflows makes the scaler skip the step and halve
    its scale; after 2000 steps without one it doubles.

    Args:
        name: ``fp32``, ``bf16`` or ``fp16``.
        device_type: ``cpu`` or ``cuda``.
    """

    def __init__(self, name: str = FP32, device_type: str = "cpu") -> None:
        self.name = name
        self.device_type = device_type
        self._scaler = torch.amp.GradScaler(device_type, enabled=name == FP16)
        self._is_unscaled = False

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context to compute losses in."""
        if self.name == FP32:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=_DTYPES[self.name])

    @property
    def is_scaled(self) -> bool:
        """Whether the loss is scaled, which it is under fp16 alone."""
        return self._scaler.is_enabled()

    @property
    def scale(self) -> float:
        """What the loss is multiplied by; 1 without scaling."""
        return float(self._scaler.get_scale())

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, scaled."""
        self._scaler.scale(loss).backward()

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring the gradients back to their own size; once before ``step`` or ``forget``."""
        self._scaler.unscale_(optimizer)
        self._is_unscaled = True

    def step(self, optimizer: Optimizer) -> None:
        """Make the step, or skip it where a scaled gradient has overflowed."""
        self._scaler.step(optimizer)
        self._scaler.update()
        self._is_unscaled = False

    def forget(self) -> None:
        """Take back ``unscale``, where there was one: the step is not made, the scale stays."""
        if self.is_scaled and self._is_unscaled:
            self._scaler.update(new_scale=self.scale)
        self._is_unscaled = False

    def state_dict(self) -> dict[str, Any]:
        """Return scale and count of steps since it changed; empty without scaling."""
        return dict(self._scaler.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what ``state_dict`` returned; an empty one leaves the scale as it is."""
        if self.is_scaled and state_dict:
            self._scaler.load_state_dict(dict(state_dict))
        elif self.is_scaled:
            logger.warning("the checkpoint has no loss scale: it starts at %g", self.scale)


def build_precision(cfg: CfgNode, device_type: str) -> Precision:
    """Read ``SOLVER.AMP``: fp32, unless it is enabled."""
    amp = cfg.SOLVER.AMP
    return Precision(amp.PRECISION if amp.ENABLED else FP32, device_type)
