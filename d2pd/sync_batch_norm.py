"""Batch norm over the images of all processes of a training, on CPU and GPU."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over all processes in plain sums; torch's own refuses to work on a CPU.

    By itself it is ``nn.BatchNorm2d``, but for a channel with one value, which goes by the running
    numbers. Its state has the names of any batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W); every process has to take part, N may differ."""
        is_alone = not dist.is_initialized() or dist.get_world_size() == 1
        if is_alone and self.training and x.numel() == x.shape[1]:
            norms = (self.running_mean, self.running_var, self.weight, self.bias)
            return F.batch_norm(x, *norms, training=False, eps=self.eps)
        if is_alone or not self.training:
            return super().forward(x)
        values = x.double()  # a mean of squares takes a square of a mean away
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count])
        total, squares, count = all_reduce(sums).split([self.num_features, self.num_features, 1])
        mean = total / count
        var = squares / count - mean.square()
        self._follow(mean.detach(), (var * count / (count - 1).clamp(min=1)).detach())
        scale = (var + self.eps).rsqrt() * self.weight
        shift = self.bias - mean * scale
        return (values * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, unbiased_var: Tensor) -> None:
        """Move the running numbers on."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if (
            self.momentum is not None
            and self.running_mean is not None
            and self.running_var is not None
        ):
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased_var.to(self.running_var.dtype), self.momentum)


def synchronised(module: nn.Module) -> nn.Module:
    """Replace every batch norm below a module, in place; frozen ones stay.

    Args:
        module: Not a batch norm itself.

    Returns:
        ``module``.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = SyncBatchNorm(child.num_features, child.eps, child.momentum)
            norm.load_state_dict(child.state_dict())
            module.add_module(name, norm.train(child.training))
        else:
            synchronised(child)
    return module
