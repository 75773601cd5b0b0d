"""One of two processes with a batch norm over both; see ``two_ranks``."""

import torch
import torch.distributed as dist
from torch import nn
from two_ranks import answer

from d2pd.sync_batch_norm import SyncBatchNorm
from d2pd.training.processes import in_step_with_others

CUTS = ((0, 3), (3, 4))
"""Images of each process: not as many."""


def images():
    return torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(1)) * 3 + 7


def model_with(norm):
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 2, 1))


def outputs_of(model, batch, share):
    """Outputs, gradients of a sum over images and the state; ``share`` undoes the mean of DDP."""
    found = model(batch)
    (found.square().sum() * share).backward()
    inner = getattr(model, "module", model)
    gradients = {name: p.grad.tolist() for name, p in inner.named_parameters()}
    state = {name: value.tolist() for name, value in inner[1].state_dict().items()}
    return {"outputs": found.tolist(), "gradients": gradients, "state": state}


def scenarios(_folder):
    first, last = CUTS[dist.get_rank()]
    model = in_step_with_others(model_with(SyncBatchNorm(4)))
    return outputs_of(model, images()[first:last], share=2.0)


if __name__ == "__main__":
    answer(scenarios)
