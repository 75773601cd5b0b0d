"""Which engine d2pd would run on, and how Detectron2 is installed on this machine."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from d2pd.doctor.finding import Finding, Status
from d2pd.doctor.packages import INSTALL_ALL, PIP, ProbeError, installed_version, probe
from d2pd.engine_state import CHOICES, SOURCE, EngineState


def check_engine(torch_cuda: str | None, has_gpu: bool) -> Iterator[Finding]:
    """Tell the engine in use and the state of Detectron2.

    Args:
        torch_cuda: The CUDA version that torch was built with; None for a CPU build.
        has_gpu: Whether torch sees a GPU.
    """
    wanted = os.environ.get("D2PD_ENGINE", "auto") or "auto"
    if wanted not in CHOICES:
        yield Finding(
            "engine",
            "broken",
            f"D2PD_ENGINE is {wanted!r}; allowed: {', '.join(CHOICES)}",
            "export D2PD_ENGINE=auto",
        )
        return
    state = find_detectron2()
    yield _engine_in_use(wanted, state)
    operators = f"with CUDA {torch_cuda}" if has_gpu and torch_cuda else "for the CPU"
    yield _detectron2_finding(wanted, state, install_lines(torch_cuda, has_gpu), operators)


def find_detectron2() -> EngineState:
    """Detect Detectron2 in a process of its own: a build for another torch may crash."""
    try:
        return EngineState(**probe("detectron2"))
    except ProbeError as error:
        return EngineState("broken", installed_version("detectron2"), None, str(error))


def _engine_in_use(wanted: str, state: EngineState) -> Finding:
    if wanted == "embedded" or (wanted == "auto" and state.state == "absent"):
        return Finding("engine", "ok", f"embedded (D2PD_ENGINE={wanted})")
    if state.state == "present":
        return Finding("engine", "ok", f"detectron2 {state.version} (D2PD_ENGINE={wanted})")
    return Finding(
        "engine",
        "broken",
        f"D2PD_ENGINE={wanted} and Detectron2 is {state.state}; mend it (below) or do without it",
        "export D2PD_ENGINE=embedded",
    )


def _detectron2_finding(
    wanted: str, state: EngineState, install: list[str], operators: str
) -> Finding:
    if state.state == "present":
        return Finding("Detectron2", "ok", f"{state.version} in {state.location}")
    if state.state == "absent":
        status: Status = "broken" if wanted == "detectron2" else "note"
        detail = f"not installed; d2pd runs without it. To build it here, {operators}:"
        return Finding("Detectron2", status, detail, "\n".join(install))
    status = "note" if wanted == "embedded" else "broken"
    if state.state == "shadowed":
        return Finding(
            "Detectron2",
            status,
            f"shadowed: {state.detail}. Run from another folder, or rename it",
            f"mv {state.location} {state.location}-source",
        )
    anew = "install --force-reinstall --no-deps --no-cache-dir --no-build-isolation"
    return Finding(
        "Detectron2",
        status,
        f"{state.version} is installed but broken: {state.detail}. It must be built anew for "
        f"each torch, here {operators}:",
        "\n".join(line.replace("install --no-build-isolation", anew) for line in install),
    )


def install_lines(torch_cuda: str | None, has_gpu: bool) -> list[str]:
    """Return the lines that install Detectron2 on this machine, in order.

    Detectron2 is built from source against the installed torch, so that it needs git, a C++
    compiler, Python's headers, a setuptools that still has ``pkg_resources`` and, for its CUDA
    operators, the compiler of the CUDA version that torch was built with.

    Args:
        torch_cuda: The CUDA version that torch was built with; None for a CPU build.
        has_gpu: Whether torch sees a GPU.
    """
    lines = []
    if installed_version("torch") is None:
        lines.append(INSTALL_ALL)
    packages, cuda_home = missing_system_packages(), ""
    if has_gpu and torch_cuda:
        home = find_cuda_home(torch_cuda)
        if home is None:
            packages.append(f"cuda-toolkit-{torch_cuda.replace('.', '-')}")
        cuda_home = f"CUDA_HOME={home or f'/usr/local/cuda-{torch_cuda}'} "
    if packages:
        lines.append(f"apt-get install -y {' '.join(packages)}")
    setuptools = installed_version("setuptools")
    if setuptools is None or int(setuptools.split(".")[0]) >= 81:
        lines.append(f"{PIP} install 'setuptools<81'")
    lines.append(f"{cuda_home}{PIP} install --no-build-isolation '{SOURCE}'")
    return lines


def missing_system_packages() -> list[str]:
    """Return the Debian packages that building from source lacks here."""
    packages = []
    if shutil.which("git") is None:
        packages.append("git")
    compiler = os.environ.get("CXX", "c++").split()[0]
    if not any(shutil.which(name) for name in (compiler, "g++", "clang++")):
        packages.append("g++")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        packages.append(f"python{sys.version_info.major}.{sys.version_info.minor}-dev")
    return packages


def find_cuda_home(torch_cuda: str) -> str | None:
    """Return a CUDA toolkit that fits torch's build: one of the same major version.

    Args:
        torch_cuda: Such as ``13.0``.
    """
    on_path = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), f"/usr/local/cuda-{torch_cuda}", "/usr/local/cuda"]
    homes.append(str(Path(on_path).resolve().parent.parent) if on_path else None)
    for home in homes:
        version = home and nvcc_version(home)
        if version and version.split(".")[0] == torch_cuda.split(".")[0]:
            return home
    return None


def nvcc_version(cuda_home: str) -> str | None:
    """Return the version of a toolkit's compiler, such as ``13.0``; None where there is none."""
    nvcc = shutil.which(str(Path(cuda_home) / "bin" / "nvcc"))
    if nvcc is None:
        return None
    done = subprocess.run([nvcc, "--version"], capture_output=True, text=True)
    found = re.search(r"release (\d+\.\d+)", done.stdout)
    return found.group(1) if found else None
