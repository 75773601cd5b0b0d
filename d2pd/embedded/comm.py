"""How many processes train together, and talk between them.

Everything also works alone, without ``torch.distributed`` being set up.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_local_group: Any = None


def _is_set_up() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _is_set_up() else 1


def get_rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _is_set_up() else 0


def is_main_process() -> bool:
    """Tell whether this process is the one that writes files and logs."""
    return get_rank() == 0


@cache
def create_local_process_group(num_workers_per_machine: int) -> None:
    """Make the groups of the processes that share a machine; all processes have to call it.

    Args:
        num_workers_per_machine: Processes on each machine; divides their number.

    Raises:
        AssertionError: If it does not (the type that Detectron2 raises).
    """
    global _local_group
    count, rest = divmod(get_world_size(), num_workers_per_machine)
    if rest:
        raise AssertionError(f"{get_world_size()} processes, {num_workers_per_machine} a machine")
    for machine in range(count):
        first = machine * num_workers_per_machine
        group = dist.new_group(list(range(first, first + num_workers_per_machine)))
        if machine == get_rank() // num_workers_per_machine:
            _local_group = group


def get_local_process_group() -> Any:
    """Return the group of the processes on this machine.

    Raises:
        AssertionError: If ``create_local_process_group`` was not called.
    """
    if _local_group is None:
        raise AssertionError("call create_local_process_group after init_process_group")
    return _local_group


def get_local_rank() -> int:
    """Return the number of this process on its machine, from 0."""
    return dist.get_rank(get_local_process_group()) if _is_set_up() else 0


def get_local_size() -> int:
    """Return the number of processes on this machine."""
    return dist.get_world_size(get_local_process_group()) if _is_set_up() else 1


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


@cache
def _cpu_group() -> Any:
    """Return a group of all processes for what is no tensor: NCCL sends from GPUs alone."""
    is_nccl = dist.get_backend() == dist.Backend.NCCL
    return dist.new_group(backend="gloo") if is_nccl else dist.group.WORLD


def all_gather(data: Any, group: Any = None) -> list[Any]:
    """Return what each process passed, in the order of their ranks, on every process.

    Args:
        data: Anything that pickles.
        group: Process group; None means all processes.
    """
    if get_world_size() == 1:
        return [data]
    group = _cpu_group() if group is None else group
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: Any = None) -> list[Any]:
    """Return what each process passed, on rank ``dst``; an empty list on the others."""
    if get_world_size() == 1:
        return [data]
    group = _cpu_group() if group is None else group
    if dist.get_rank(group) != dst:
        dist.gather_object(data, None, dst=dst, group=group)
        return []
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.gather_object(data, gathered, dst=dst, group=group)
    return gathered


def shared_random_seed() -> int:
    """Return a random number in [0, 2**31) that is the same on every process."""
    return int(all_gather(int(np.random.randint(2**31)))[0])


def reduce_dict(input_dict: dict[str, torch.Tensor], average: bool = True) -> dict[str, Any]:
    """Sum or average scalar tensors by name over the processes; the result is right on rank 0."""
    if get_world_size() == 1:
        return input_dict
    names = sorted(input_dict)
    with torch.no_grad():
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if is_main_process() and average:
            values /= get_world_size()
    return dict(zip(names, values, strict=True))
