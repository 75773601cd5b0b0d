"""The checks in the order of the report."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d2pd.doctor.engine import check_engine
from d2pd.doctor.finding import Finding
from d2pd.doctor.packages import (
    REINSTALL_TORCH,
    ProbeError,
    check_opencv,
    check_requirements,
    check_torchvision,
    installed_version,
    probe,
)

TESTED_PYTHONS = ((3, 11), (3, 13))
"""First and last version that the tests run on."""


def diagnose() -> list[Finding]:
    """Look at everything d2pd needs on this machine.

    Returns:
        Findings in the order to mend them: Python, packages, torch, devices, engine, data.
    """
    findings = [check_python(), *check_requirements()]
    torch_facts: dict[str, Any] = {"version": "(missing)", "cuda": None, "gpus": [], "mps": False}
    try:
        torch_facts = probe("torch")
        findings.append(_torch_finding(torch_facts))
    except ProbeError as error:
        if installed_version("torch") is not None:  # otherwise among the missing requirements
            detail = f"does not load: {error}"
            findings.append(Finding("torch", "broken", detail, REINSTALL_TORCH))
    findings += check_torchvision(torch_facts["version"])
    findings += check_opencv()
    findings += check_devices(torch_facts)
    findings += check_engine(torch_facts["cuda"], bool(torch_facts["gpus"]))
    findings.append(check_dataset_root())
    return findings


def check_python() -> Finding:
    """Look whether this Python is one that d2pd runs and is tested on."""
    oldest, newest = TESTED_PYTHONS
    detail = f"{platform.python_version()} ({sys.executable})"
    allowed = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
    if sys.version_info[:2] < oldest:
        return Finding(
            "Python", "broken", f"{detail}; d2pd needs {allowed}", "make PYTHON=python3.12"
        )
    if sys.version_info[:2] > newest:
        return Finding("Python", "note", f"{detail}; tested on {allowed}")
    return Finding("Python", "ok", detail)


def _torch_finding(facts: dict[str, Any]) -> Finding:
    build = f"CUDA {facts['cuda']}" if facts["cuda"] else "CPU build"
    return Finding("torch", "ok", f"{facts['version']}, {build}")


def check_devices(torch_facts: dict[str, Any]) -> Iterator[Finding]:
    """List the devices with their memory, and a GPU that torch cannot use.

    Args:
        torch_facts: What the torch probe said: ``cuda``, ``gpus`` (name, bytes) and ``mps``.
    """
    memory = f", {_gib(total)}" if (total := system_memory()) else ""
    yield Finding("device", "ok", f"cpu: {os.cpu_count()} cores{memory}")
    for number, (name, size) in enumerate(torch_facts["gpus"]):
        yield Finding("device", "ok", f"cuda:{number}: {name}, {_gib(size)}")
    if torch_facts["mps"]:
        yield Finding("device", "ok", "mps: Apple GPU; d2pd is not tested on it")
    if torch_facts["gpus"] or shutil.which("nvidia-smi") is None:
        return
    if torch_facts["cuda"] is None:
        detail = "a GPU driver, but torch is a CPU build"
        yield Finding("device", "note", detail, REINSTALL_TORCH)
    else:
        detail = f"a GPU driver, but torch (CUDA {torch_facts['cuda']}) sees no GPU with it"
        yield Finding("device", "note", f"{detail}; this shows the driver's CUDA:", "nvidia-smi")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def system_memory() -> int | None:
    """Return the machine's memory in bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def check_dataset_root() -> Finding:
    """Look for the folder that relative paths of datasets start from."""
    variable = os.environ.get("D2PD_DATASETS")
    root = Path(variable or "datasets")
    origin = "$D2PD_DATASETS" if variable else f"in {Path.cwd()}"
    if root.is_dir():
        names = sorted(path.name for path in root.iterdir() if path.is_dir())
        held = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "no folder yet"
        return Finding("datasets", "ok", f"{root} ({origin}): {held}")
    return Finding(
        "datasets",
        "note",
        f"no folder {root} ({origin}); the demo draws its data, real data needs it",
        "export D2PD_DATASETS=/path/to/datasets",
    )
