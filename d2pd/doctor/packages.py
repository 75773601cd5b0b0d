"""What is installed: the requirements, and torch, torchvision and OpenCV by trying them."""

import ctypes.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import d2pd
from d2pd.doctor.finding import Finding, Status

PIP = f"{shlex.quote(sys.executable)} -m pip"
ROOT = Path(d2pd.__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
INSTALL_ALL = f"{PIP} install -r {shlex.quote(str(REQUIREMENTS))}"
REINSTALL_TORCH = f"{PIP} install --force-reinstall torch torchvision"
FEW = 3
"""Up to this many wrong packages get a finding each."""

OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
TEST_PACKAGES = frozenset({"pytest", "hypothesis", "nbclient", "nbformat", "ipykernel"})
"""Requirements of the tests and the notebook; d2pd runs without them."""

PROBES = {
    "torch": """
import json, torch
cuda = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "gpus": [[gpu.name, gpu.total_memory] for gpu in cuda],
    "architectures": sorted({f"{gpu.major}{gpu.minor}" for gpu in cuda}),
    "mps": torch.backends.mps.is_available(),
}))
""",
    "torchvision": """
import json, torch, torchvision
torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
print(json.dumps({"version": torchvision.__version__}))
""",
    "cv2": """
import json, cv2
print(json.dumps({"version": cv2.__version__}))
""",
    "detectron2": """
import dataclasses, json
from d2pd.engine_state import detect_detectron2
print(json.dumps(dataclasses.asdict(detect_detectron2())))
""",
}
"""Scripts that use a package for a moment and print what it says of itself as JSON."""


class ProbeError(Exception):
    """A package that does not load or does not work; the message is the last line it wrote."""


def probe(package: str) -> dict[str, Any]:
    """Use a package in a process of its own.

    Args:
        package: A key of ``PROBES``.

    Returns:
        What the package said of itself, ``version`` among it.

    Raises:
        ProbeError: If it failed, crashed or hung.
    """
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)]).lstrip(os.pathsep)
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBES[package]],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        raise ProbeError("no answer within 120 seconds") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ProbeError(lines[-1] if lines else f"it ended with code {done.returncode}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def installed_version(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirement_lines(path: Path | None = None) -> list[str]:
    """Return what d2pd asks for, one requirement a line such as ``torch>=2.8``.

    Args:
        path: Requirements file; None for d2pd's own, or where it is not there what is installed.
    """
    path = path or REQUIREMENTS
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return metadata.requires("d2pd") or []


def check_requirements() -> Iterator[Finding]:
    """Find every requirement that is missing or too old; one finding where there is none.

    Many of them make one finding, with the line that installs all.
    """
    wrong = list(_wrong_requirements())
    if not wrong:
        yield Finding("packages", "ok", "every requirement is installed")
    for status in ("broken", "note"):
        alike = [finding for finding in wrong if finding.status == status]
        if len(alike) > FEW and REQUIREMENTS.is_file():
            names = ", ".join(finding.topic for finding in alike)
            yield Finding("packages", status, f"missing or too old: {names}", INSTALL_ALL)
        else:
            yield from alike


def _wrong_requirements() -> Iterator[Finding]:
    for line in requirement_lines():
        name = re.split(r"[^A-Za-z0-9_.-]", line)[0]
        if name in OPENCV_PACKAGES:
            continue  # any of the four will do: check_opencv
        version = installed_version(name)
        cure = f"{PIP} install '{line}'"
        status: Status = "note" if name in TEST_PACKAGES else "broken"
        purpose = "; the tests and the notebook need it" if name in TEST_PACKAGES else ""
        if version is None:
            yield Finding(name, status, f"not installed{purpose}", cure)
        elif not is_satisfied(version, line):
            yield Finding(name, status, f"{version} is installed, d2pd needs {line}{purpose}", cure)


def is_satisfied(version: str, requirement: str) -> bool:
    """Tell whether a version is one that a requirement allows.

    Args:
        version: Of the package that is installed.
        requirement: Such as ``torch>=2.8``.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:  # it comes with matplotlib; pip has one of its own
        try:
            from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
        except ImportError:
            return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def check_torchvision(torch_version: str) -> Iterator[Finding]:
    """Look whether torchvision's C++ operators (NMS, RoIAlign) load, where it is installed."""
    version = installed_version("torchvision")
    try:
        yield Finding("torchvision", "ok", f"{probe('torchvision')['version']}, operators load")
    except ProbeError as error:
        if version is not None:  # otherwise it is among the missing requirements
            yield Finding(
                "torchvision",
                "broken",
                f"{version} beside torch {torch_version}: its operators do not load ({error}); "
                "both must come from one place",
                REINSTALL_TORCH,
            )


def check_opencv() -> Iterator[Finding]:
    """Look whether OpenCV loads, and whether two of its packages share one folder."""
    found = [name for name in OPENCV_PACKAGES if installed_version(name)]
    twins = opencv_twins()
    try:
        version = probe("cv2")["version"]
    except ProbeError as error:
        yield _opencv_failure(found, twins, str(error))
        return
    if twins:
        yield Finding(
            "OpenCV",
            "note",
            f"{version} loads, but {' and '.join(twins)} write into one folder: updating or "
            "removing one breaks the other",
            _reinstall_opencv(twins),
        )
    else:
        yield Finding("OpenCV", "ok", f"{version} ({found[0] if found else 'not from pip'})")


def _opencv_failure(found: list[str], twins: list[str], error: str) -> Finding:
    if not found:
        line = next(
            (line for line in requirement_lines() if line.startswith("opencv")), "opencv-python"
        )
        wanted = line if has_libgl() else line.replace("opencv-python", "opencv-python-headless")
        return Finding("OpenCV", "broken", "not installed", f"{PIP} install '{wanted}'")
    if twins:
        detail = f"{' and '.join(twins)} are in one folder and overwrite each other: {error}"
        return Finding("OpenCV", "broken", detail, _reinstall_opencv(twins))
    if re.search(r"lib(GL|EGL|gthread|glib|xcb|X11|SM|Xext)\b", error):
        return Finding(
            "OpenCV",
            "broken",
            f"{found[0]} needs a library of the system: {error}; install it, or take the "
            "package that needs none (the second line)",
            "apt-get install -y libgl1 libglib2.0-0\n" + _reinstall_opencv(found, headless=True),
        )
    return Finding("OpenCV", "broken", f"{found[0]}: {error}", _reinstall_opencv(found))


def opencv_twins() -> list[str]:
    """Return the OpenCV packages that share one folder; empty where there is one at most."""
    folders: dict[Path, list[str]] = defaultdict(list)
    for name in OPENCV_PACKAGES:
        if installed_version(name):
            folders[Path(str(metadata.distribution(name).locate_file("cv2")))].append(name)
    return next((names for names in folders.values() if len(names) > 1), [])


def has_libgl() -> bool:
    """Tell whether the system has libGL, which OpenCV's packages with windows need."""
    return sys.platform != "linux" or ctypes.util.find_library("GL") is not None


def _reinstall_opencv(found: list[str], headless: bool | None = None) -> str:
    """Return the line that leaves one OpenCV: the one without windows where libGL is missing."""
    without_windows = not has_libgl() if headless is None else headless
    kept = "opencv-python-headless" if without_windows else "opencv-python"
    return f"{PIP} uninstall -y {' '.join(found)} && {PIP} install {kept}"
