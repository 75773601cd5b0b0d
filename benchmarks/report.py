"""The table of a benchmark, with all that its figures depend on."""

import argparse
import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from drawn import ROOT
from measuring import Row, Samples

from d2pd import __version__
from d2pd.d2 import ENGINE, CfgNode


class OtherWork:
    """How many cores other processes keep busy from now on; Linux only."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), _busy_elsewhere()

    def __str__(self) -> str:
        seconds, busy = time.perf_counter() - self.start[0], _busy_elsewhere()
        if busy is None or self.start[1] is None:
            return "not measured"
        return f"{max(0.0, busy - self.start[1]) / seconds:.2f} of {os.cpu_count()} cores"


def _busy_elsewhere() -> float | None:
    """Return the seconds that processes other than this one and its children have computed."""
    try:
        words = Path("/proc/stat").read_text().split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words)
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def report(
    args: argparse.Namespace,
    cfg: CfgNode,
    *,
    data: str,
    rows: Sequence[Row],
    samples: dict[str, Samples],
    other_work: OtherWork,
) -> None:
    """Print what was measured as Markdown and write it, with every sample, to ``--json``."""
    facts = _facts(cfg, data) | {"clock": args.clock, "other work meanwhile": str(other_work)}
    print("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    print("\n| variant | against | median | of the other | ratio | middle half |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(_line(row))
    if args.json:
        content = {"facts": facts, "rows": rows, "samples": samples}
        Path(args.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _line(row: Row) -> str:
    cells = [row["variant"], row["against"], "not measured", "not measured", "", ""]
    if "median" in row:
        cells[2:4] = (f"{row[key]:.4g} {row['unit']}" for key in ("median", "median_against"))
        ratio, low, high = (_ratio(row[key]) for key in ("ratio", "low", "high"))
        cells[4:] = ratio, f"{low} - {high}"
    return f"| {' | '.join(cells)} |"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value >= 0.1 else f"{value:.2g}"


def _facts(cfg: CfgNode, data: str) -> dict[str, Any]:
    version = __version__ if ENGINE == "embedded" else importlib.metadata.version("detectron2")
    return {
        "engine": f"{ENGINE} {version}",
        "device": _device(cfg.MODEL.DEVICE),
        "torch": torch.__version__,
        "data": data,
        "seed": cfg.SEED,
        "command": " ".join(["python", *sys.argv]),
        "commit": _commit(),
        "date": f"{datetime.date.today():%Y-%m-%d}",
    }


def _device(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU {' '.join(names[:1])}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def _commit() -> str:
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    found = subprocess.run(words, capture_output=True, text=True)
    return found.stdout.strip() or "not known"
