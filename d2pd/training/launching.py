"""Starts the processes of a run, the same under both engines, and tells how they ended.

Detectron2's own launcher asks for NCCL wherever there is a GPU, loses the type of an error and says
nothing of a process that was killed; this one keeps its arguments and their meaning.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlparse

import torch
import torch.distributed as dist

from d2pd.d2 import comm
from d2pd.errors import ConfigError, RunInterrupted, UserError
from d2pd.training.process_watch import Watch, start_processes
from d2pd.training.processes import keep_quiet, named_loss

DEFAULT_TIMEOUT = timedelta(minutes=30)
SECONDS_FOR_FIRST = 5
"""In which torchrun has ended the others where the first process has failed."""

BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Job:
    """What every process of this machine is told.

    Attributes:
        main_func: The run.
        args: Its arguments.
        num_local: Processes on this machine.
        num_machines: Machines with as many each.
        machine_rank: Of this machine, from 0.
        url: Where the processes meet.
        on_gpu: Each has a GPU of its own and NCCL; otherwise gloo.
        timeout: Of what they do together.
    """

    main_func: Callable[..., Any]
    args: Sequence[Any]
    num_local: int
    num_machines: int
    machine_rank: int
    url: str
    on_gpu: bool
    timeout: timedelta

    def run(self, local_rank: int) -> None:
        """Meet the other processes and run."""
        if not os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // self.num_local))
        rank = self.machine_rank * self.num_local + local_rank
        if rank:
            keep_quiet()
        if self.on_gpu:
            torch.cuda.set_device(local_rank)
        try:
            dist.init_process_group(
                backend_of(self.on_gpu),
                init_method=self.url,
                rank=rank,
                world_size=self.num_machines * self.num_local,
                timeout=self.timeout,
            )
        except (RuntimeError, ValueError) as error:
            what = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"the processes cannot meet at --dist-url {self.url} ({what}): choose a free "
                "port there, or leave it out where there is one machine"
            ) from error
        comm.create_local_process_group(self.num_local)
        with named_loss():
            comm.synchronize()
            self.main_func(*self.args)
            comm.synchronize()  # none hangs up while another still talks


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: Sequence[Any] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
    *,
    on_gpu: bool = True,
) -> None:
    """Call ``main_func(*args)`` in all processes of this machine; one is this process itself.

    A process that ``torchrun`` has started joins the others and starts none.

    Args:
        main_func: The run; importable by its name.
        num_gpus_per_machine: Processes here, each with a GPU where ``on_gpu``. Without, each has
            its part of the CPU's cores unless ``OMP_NUM_THREADS`` is set.
        num_machines: Machines that train together; this is called on each.
        machine_rank: Of this machine, from 0.
        dist_url: Where they meet, as ``tcp://HOST:PORT``; ``auto`` or None for one machine.
        args: Arguments of ``main_func``; they pickle.
        timeout: Of what the processes do together.
        on_gpu: Talk by NCCL; otherwise by gloo.

    Raises:
        ConfigError: If the arguments do not fit together, or the processes cannot meet.
        ProcessLost: If a process was killed, with its rank and how.
        Exception: What ``main_func`` raised in any process, of its own type.
    """
    if is_under_torchrun():
        _check_torchrun(num_gpus_per_machine, num_machines)
        _run_under_torchrun(main_func, args, timeout, on_gpu)
        return
    if num_gpus_per_machine * num_machines <= 1:
        main_func(*args)
        return
    if not 0 <= machine_rank < num_machines:
        raise ConfigError(f"--machine-rank {machine_rank} is not in [0, {num_machines})")
    with TemporaryDirectory(prefix="d2pd_meet_") as folder:
        url = dist_url or "auto"
        if url == "auto":
            if num_machines > 1:
                raise ConfigError(
                    f"--num-machines {num_machines} needs --dist-url tcp://HOST:PORT, the same on "
                    "each: HOST is the machine of --machine-rank 0"
                )
            url = f"file://{Path(folder) / 'meet'}"  # no port that another could take meanwhile
        _check_host(url)
        job = Job(
            *(main_func, args, num_gpus_per_machine, num_machines, machine_rank, url),
            *(on_gpu, timeout),
        )
        ranks = [machine_rank * num_gpus_per_machine + n for n in range(num_gpus_per_machine)]
        Watch(start_processes(job.run, ranks)).wait()


def _check_host(url: str) -> None:
    """Refuse the name of a host that there is not: torch would look for it until the timeout."""
    host = urlparse(url).hostname
    try:
        if host:
            socket.getaddrinfo(host, None)
    except OSError as error:
        raise ConfigError(
            f"--dist-url {url}: no host {host} is known here ({error.strerror}); give the name or "
            "the address of the machine of --machine-rank 0"
        ) from None


def backend_of(on_gpu: bool) -> str:
    """Return the name of what processes talk by."""
    return "nccl" if on_gpu else "gloo"


def is_under_torchrun() -> bool:
    """Tell whether ``torchrun`` has started this process."""
    return all(name in os.environ for name in BY_TORCHRUN)


@contextmanager
def told_by_first() -> Iterator[None]:
    """Leave an error that all processes meet before they talk to the first one to tell."""
    try:
        yield
    except UserError:
        if is_under_torchrun() and os.environ["LOCAL_RANK"] != "0":
            time.sleep(SECONDS_FOR_FIRST)  # still here: only this process has met it
        raise


@told_by_first()
def _check_torchrun(num_gpus: int, num_machines: int) -> None:
    if num_gpus > 1 or num_machines > 1:
        raise ConfigError(
            "torchrun has started the processes: leave --num-gpus and --num-machines out, and say "
            "how many by torchrun --nproc-per-node and --nnodes"
        )


def _run_under_torchrun(
    main_func: Callable[..., Any], args: Sequence[Any], timeout: timedelta, on_gpu: bool
) -> None:
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if rank:
        keep_quiet()
    if on_gpu:
        torch.cuda.set_device(local_rank)
    store, _, world_size = next(dist.rendezvous("env://", timeout=timeout))
    dist.init_process_group(
        backend_of(on_gpu),
        store=dist.PrefixStore("d2pd", store),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    try:
        with named_loss():
            comm.synchronize()
            main_func(*args)
            comm.synchronize()
    except (UserError, RunInterrupted) as error:
        if _is_told(store):
            raise SystemExit(getattr(error, "exit_code", 2)) from None
        raise
    dist.destroy_process_group()


def _is_told(store: Any) -> bool:
    """Tell whether another process has told the user already; the first that asks does."""
    # Torchrun ends the others by SIGTERM, which is no news for the user.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        return bool(store.add("d2pd/told", 1) > 1)
    except RuntimeError:  # the process that kept the store has ended
        return False
