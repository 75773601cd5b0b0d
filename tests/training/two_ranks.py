"""Two gloo processes on this machine: a script that each of them runs, and what they answer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

RANKS = 2
SECONDS = 150
ROOT = Path(__file__).resolve().parents[2]


def run_ranks(script: Path, folder: Path) -> list[dict[str, Any]]:
    """Run a script that calls ``answer`` in both processes; return what each has answered.

    A hang is a failure, and leaves no process behind.
    """
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder)],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        errors = [process.communicate(timeout=SECONDS)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * RANKS, "\n".join(errors)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


def answer(scenarios: Callable[[Path], dict[str, Any]]) -> None:
    """Meet the other process, do what is asked for and write it as JSON; ends this process.

    The command line is ``RANK FOLDER``.
    """
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=SECONDS // 2),
    )
    found = scenarios(folder)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()  # neither hangs up while the other still talks
    # Torch now and then aborts when it takes its own gloo threads down.
    os._exit(0)
