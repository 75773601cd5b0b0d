"""Variants measured in turn, and ratios within a repetition: a slow moment meets all of them."""

import argparse
import contextlib
import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

Samples = dict[str, list[float]]
Row = dict[str, Any]
Turn = Callable[[int], Any]

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def nothing() -> None:
    """Wait for nothing."""


def wait_for(device: str) -> Callable[[], None]:
    """Return what waits for the work that was given to a device."""
    return torch.cuda.synchronize if device.startswith("cuda") else nothing


def time_in_turn(
    variants: Mapping[str, Turn],
    repetitions: int,
    *,
    warmup: int = 2,
    clock: str = "wall",
    settle: Callable[[], None] = nothing,
    finish: Callable[[], None] = nothing,
) -> Samples:
    """Return seconds; in each repetition every variant has one turn, each time another one first.

    Args:
        variants: Called with the number of the repetition.
        repetitions: Those that count.
        warmup: Repetitions before those that count.
        clock: ``wall``, or ``cpu``: what the threads of this process compute, no waiting.
        settle: Called before each turn, off the clock.
        finish: Called after each turn, on the clock.
    """
    names = list(variants)
    found: Samples = {name: [] for name in names}
    for number in range(warmup + repetitions):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            settle()
            start = CLOCKS[clock]()
            variants[name](number)
            finish()
            if number >= warmup:
                found[name].append(CLOCKS[clock]() - start)
    return found


@contextlib.contextmanager
def deterministic(is_wanted: bool) -> Iterator[None]:
    """Be deterministic as ``DETERMINISTIC`` makes a run, and no longer."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = is_wanted or before
    torch.use_deterministic_algorithms(is_wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = before


def measure_peak(device: str, work: Callable[[], Any]) -> float | None:
    """Return the MiB that work needs at most above what is held before; None if unknown here."""
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    _give_back_freed_memory()
    try:  # not getrusage: its peak cannot be reset, and a process starts with that of its parent
        Path("/proc/self/clear_refs").write_text("5")
        before = _held("VmRSS")
        work()
        return _held("VmHWM") - before
    except OSError:
        return None


def _give_back_freed_memory() -> None:
    """Ask the C library for it: what it keeps would be used again and count as nothing."""
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _held(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def peaks_in_turn(args: argparse.Namespace, names: Sequence[str]) -> Samples:
    """Return MiB by variant, each measured by this script in a process of its own."""
    script, *words = sys.argv
    found: Samples = {name: [] for name in names}
    for _ in range(args.peak_runs):
        for name in names:
            run = [sys.executable, script, "--peak", name, "--data", args.data, *words]
            answer = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
            peak = json.loads(answer.splitlines()[-1])
            found[name] += [] if peak is None else [peak]
    return found


def compare(samples: Samples, pairs: Sequence[tuple[str, str]], unit: str) -> list[Row]:
    """Return a row for each (variant, other): the ratio is the median of those of a repetition."""
    rows = []
    for variant, other in pairs:
        ours, theirs = np.array(samples[variant]), np.array(samples[other])
        row: Row = {"variant": variant, "against": other, "unit": unit}
        if ours.size and theirs.size:
            low, ratio, high = (float(part) for part in np.percentile(ours / theirs, (25, 50, 75)))
            row |= {"median": float(np.median(ours)), "median_against": float(np.median(theirs))}
            row |= {"ratio": ratio, "low": low, "high": high}
        rows.append(row)
    return rows
