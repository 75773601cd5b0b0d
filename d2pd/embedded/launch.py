"""Starts the processes of a run: here always this one."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from d2pd.errors import EngineError

DEFAULT_TIMEOUT = timedelta(minutes=30)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: Sequence[Any] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call ``main_func(*args)``.

    Args:
        main_func: The run.
        num_gpus_per_machine: 0 or 1.
        num_machines: 1.
        machine_rank: For several machines, as in Detectron2.
        dist_url: For several processes, as in Detectron2.
        args: Arguments of ``main_func``.
        timeout: For several processes, as in Detectron2.

    Raises:
        EngineError: If more than one process is asked for.
    """
    if num_gpus_per_machine > 1 or num_machines > 1:
        raise EngineError(
            f"{num_machines} machine(s) with {num_gpus_per_machine} GPUs were asked for, but the "
            "embedded engine trains in one process: use --num-gpus 1, or install Detectron2"
        )
    main_func(*args)
