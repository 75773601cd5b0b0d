"""What the processes of one training tell each other."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from d2pd.d2 import comm


def is_so_on_any(is_so: bool, device: torch.device) -> bool:
    """Tell every process whether it is so on any; all have to ask.

    Args:
        is_so: On this process.
        device: That the processes' backend can send from: the model's.
    """
    if comm.get_world_size() == 1:
        return is_so
    flag = torch.tensor(int(is_so), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def gradients_stay_here(model: nn.Module) -> AbstractContextManager[Any]:
    """Return the context for a forward and backward pass whose gradients are not exchanged yet."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
