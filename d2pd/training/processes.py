"""What the processes of one training tell each other."""

import logging
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from d2pd.d2 import comm
from d2pd.errors import ProcessLost

TRANSPORT = "gloo/transport"
"""In the words of every error of a connection between two processes."""


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


def in_step_with_others(model: nn.Module) -> nn.Module:
    """Return a model whose gradients become the mean over the processes; itself where one is alone.

    All begin with the weights of the main process. Parameters that are frozen are not waited for;
    every other one has to take part in each loss, if only by 0. Buffers stay each process's own
    during training, as in Detectron2, see ``share_buffers``.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    ids = [torch.cuda.current_device()] if device.type == "cuda" else None
    with warnings.catch_warnings():  # the newest torch has another name for it, older ones do not
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


def gradients_stay_here(model: nn.Module) -> AbstractContextManager[Any]:
    """Return the context for a forward and backward pass whose gradients are not exchanged yet."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def mean_of_losses(losses: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over the processes by name, on the main one; all have to call it.

    A loss that a process lacks counts as 0.
    """
    found = comm.gather(dict(losses)) or [dict(losses)]
    names = dict.fromkeys(name for one in found for name in one)
    return {name: sum(one.get(name, 0.0) for one in found) / len(found) for name in names}


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give every process the main one's buffers, such as the running numbers of batch norm.

    Each counts its own images; the model that is evaluated is the one that is saved.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def is_loss_of_peer(error: BaseException | None) -> bool:
    """Tell whether an error says no more than that another process has gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and TRANSPORT in str(error)
    )


@contextmanager
def named_loss() -> Iterator[None]:
    """Say in a line what torch says of a connection whose other end has gone."""
    try:
        yield
    except RuntimeError as error:
        if not is_loss_of_peer(error):
            raise
        raise ProcessLost(
            f"rank {comm.get_rank()} has lost another process, which ended; --resume goes on from "
            "the newest checkpoint"
        ) from error


def keep_quiet() -> None:
    """Leave the terminal to the main process; ``log.txt.rank<N>`` has the rest."""
    warnings.simplefilter("ignore")
    for name in ("", "d2pd", "detectron2", "fvcore"):
        logging.getLogger(name).addHandler(logging.NullHandler())


def transportable(error: BaseException) -> BaseException:
    """Return an error that another process can unpickle: itself, or its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
