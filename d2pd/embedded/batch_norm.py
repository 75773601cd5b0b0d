"""Normalisation layers, by the names that the configuration uses."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2pd.errors import ConfigError
from d2pd.sync_batch_norm import SyncBatchNorm


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine parameters are constants.

    All four live in buffers, so no optimizer sees them. It starts as the identity. Old backbone
    files hold ``weight`` and ``bias`` alone, with the statistics folded in: the statistics then
    stay those of the identity.
    """

    _version = 3

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor | None
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)
        # Only a converted BatchNorm has counted batches; its checkpoint name must not change.
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if not x.requires_grad:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        # F.batch_norm would keep memory for gradients of weight and bias, which nobody wants.
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scaled = x * scale.view(1, -1, 1, 1).to(x.dtype)
        return scaled.add_(shift.view(1, -1, 1, 1).to(x.dtype))

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        *args: Any,
    ) -> None:
        if (local_metadata.get("version") or 1) < 2:
            state_dict.setdefault(prefix + "running_mean", torch.zeros_like(self.running_mean))
            state_dict.setdefault(prefix + "running_var", torch.ones_like(self.running_var))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        """Arguments shown when the module is printed."""
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Freeze batch normalisation below a module.

        Args:
            module: Changed in place, unless it is itself a batch norm.

        Returns:
            ``module``, or the frozen layer that takes the place of a batch norm.
        """
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            return cls._from_batch_norm(module)
        for name, child in module.named_children():
            frozen = cls.convert_frozen_batchnorm(child)
            if frozen is not child:
                module.add_module(name, frozen)
        return module

    @classmethod
    def _from_batch_norm(cls, module: nn.BatchNorm2d | nn.SyncBatchNorm) -> nn.Module:
        frozen = cls(module.num_features, module.eps)
        frozen.weight = module.weight.detach().clone()
        frozen.bias = module.bias.detach().clone()
        if module.running_mean is not None and module.running_var is not None:
            frozen.running_mean = module.running_mean
            frozen.running_var = module.running_var
        frozen.num_batches_tracked = module.num_batches_tracked
        return frozen


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "SyncBN": SyncBatchNorm,
}


def get_norm(norm: str, out_channels: int) -> nn.Module | None:
    """Create a normalisation layer.

    Args:
        norm: ``BN``, ``FrozenBN``, ``GN`` (32 groups), ``SyncBN``, or empty for none.
        out_channels: Channels that it normalises.

    Raises:
        ConfigError: If the name is unknown.
    """
    if norm == "":
        return None
    if norm not in _NORMS:
        allowed = ", ".join(["''", *_NORMS])
        raise ConfigError(f"normalisation is '{norm}', the embedded engine has {allowed}")
    if norm == "GN" and out_channels % 32:
        raise ConfigError(f"GN needs a multiple of 32 channels, got {out_channels}")
    return _NORMS[norm](out_channels)
