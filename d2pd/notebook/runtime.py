"""What machine a notebook runs on; asked before anything is installed."""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from d2pd.doctor.checks import check_python, system_memory

GIB = 2**30

NO_GPU_ON_COLAB = (
    "no GPU: training takes many times longer. Runtime > Change runtime type > T4 GPU, then run "
    "all cells again"
)
NO_GPU = "no GPU: the CPU trains, which takes many times longer"


@dataclass(frozen=True)
class Runtime:
    """A machine; ``str`` gives the lines to show.

    Attributes:
        is_colab: Whether it is one of Colab's.
        python: Its version, and what d2pd needs where that is another one.
        cores: Of the CPU.
        memory: Bytes; None where the system does not tell.
        free_disk: Bytes that are free where the notebook works.
        gpus: Name and memory of each.
    """

    is_colab: bool
    python: str
    cores: int
    memory: int | None
    free_disk: int
    gpus: tuple[str, ...]

    def __str__(self) -> str:
        memory = f", {self.memory / GIB:.1f} GiB of memory" if self.memory else ""
        disk = f"{self.free_disk / GIB:.1f} GiB free in {Path.cwd()}"
        gpu = "; ".join(self.gpus) or (NO_GPU_ON_COLAB if self.is_colab else NO_GPU)
        return (
            f"{'Colab' if self.is_colab else 'Not Colab'}, Python {self.python}\n"
            f"CPU: {self.cores} cores{memory}, {disk}\n"
            f"GPU: {gpu}"
        )


def look_at_runtime() -> Runtime:
    """Look at this machine; nothing is imported for that, torch need not be there."""
    return Runtime(
        is_colab=is_colab(),
        python=check_python().detail,
        cores=os.cpu_count() or 1,
        memory=system_memory(),
        free_disk=shutil.disk_usage(Path.cwd()).free,
        gpus=find_gpus(),
    )


def is_colab() -> bool:
    """Tell whether this is Colab: whether its package for notebooks is there."""
    if "google.colab" in sys.modules:
        return True
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ImportError:  # no package "google" at all
        return False


def find_gpus() -> tuple[str, ...]:
    """Return name and memory of each GPU that the driver knows; none where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(done.stdout.strip().splitlines()) if done.returncode == 0 else ()
