"""Detectron2 in a notebook: built once for a kind of machine, then taken from a folder."""

import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from d2pd.atomic_file import copy_file
from d2pd.doctor.engine import find_detectron2
from d2pd.doctor.packages import ProbeError, probe
from d2pd.engine_state import SOURCE, way_out
from d2pd.errors import EngineError, InstallError
from d2pd.notebook.pip_process import add_packages, installed_versions, run_pip

WITHOUT = "d2pd runs without Detectron2 too: leave this cell out"
TOO_NEW_SETUPTOOLS = 81
"""From here on it lacks ``pkg_resources``, which the build of Detectron2 imports."""


def install_detectron2(cache_dir: str | Path, source: str = SOURCE) -> None:
    """Install Detectron2, from a wheel of an earlier session where there is one.

    A wheel fits one Python, torch, CUDA and kind of GPU; each has a folder of its own. Nothing that
    is installed is replaced.

    Args:
        cache_dir: Folder that keeps wheels, such as one on Drive.
        source: What pip builds, as it names it.

    Raises:
        EngineError: If a folder named detectron2 hides the package.
        InstallError: If it cannot be built or installed.
    """
    state = find_detectron2()
    if state.state == "present":
        print(f"Detectron2 {state.version} is there already.")
        return
    if state.state == "shadowed":
        raise EngineError(way_out(state))
    installed = installed_versions()
    folder = Path(cache_dir) / build_tag()
    with tempfile.TemporaryDirectory() as temporary:
        wheel = cached_wheel(folder)
        if wheel is None:
            wheel = _build(source, installed, Path(temporary))
            wheel = _keep(wheel, folder)
        else:
            print(f"Taken from {wheel}, built in an earlier session.", flush=True)
        anew = ["--force-reinstall", "--no-deps"] if state.state == "broken" else []
        unpinned = {name: v for name, v in installed.items() if name != "detectron2"}
        add_packages([*anew, str(wheel)], unpinned, f"Detectron2 ({WITHOUT})")
    _say_state()


def build_tag() -> str:
    """Return what a wheel fits, such as ``py313-torch2.11.0-cu128-sm75``.

    Detectron2 is compiled for the GPUs that the machine of the build has, and without one for the
    CPU alone: such a wheel is none for a machine with another GPU.

    Raises:
        InstallError: If torch does not load.
    """
    try:
        facts = probe("torch")
    except ProbeError as error:
        raise InstallError(
            f"Detectron2 needs a torch that loads ({error}): install the requirements first"
        ) from error
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    torch = f"torch{facts['version'].partition('+')[0]}"
    if not (facts["cuda"] and facts["gpus"]):
        return f"{python}-{torch}-cpu"
    gpus = "-".join(f"sm{architecture}" for architecture in facts["architectures"])
    return f"{python}-{torch}-cu{facts['cuda'].replace('.', '')}-{gpus}"


def cached_wheel(folder: Path) -> Path | None:
    """Return the newest wheel of a folder that is whole; None where there is none."""
    try:
        wheels = sorted(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime, reverse=True)
        return next((wheel for wheel in wheels if _is_whole(wheel)), None)
    except OSError as error:  # a drive that has gone
        print(f"{folder} cannot be read ({error.strerror or error}): Detectron2 is built anew.")
        return None


def _is_whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile):
        damaged = wheel.name
    if damaged is not None:
        print(f"{wheel} is damaged and left aside.")
    return damaged is None


def _build(source: str, installed: Mapping[str, str], folder: Path) -> Path:
    version = installed.get("setuptools", "")
    if not version or int(version.split(".")[0]) >= TOO_NEW_SETUPTOOLS:
        raise InstallError(
            f"Detectron2 is built with setuptools below {TOO_NEW_SETUPTOOLS}, here is "
            f"{version or 'none'}: `pip install 'setuptools<{TOO_NEW_SETUPTOOLS}'`, then run this "
            f"cell again; {WITHOUT}"
        )
    print(f"Building Detectron2 from {source}: some minutes, the first time only.", flush=True)
    words = ["wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), source]
    run_pip(words, f"Detectron2 ({WITHOUT}; `python -m d2pd doctor` tells what a build needs)")
    return next(folder.glob("*.whl"))


def _keep(wheel: Path, folder: Path) -> Path:
    """Copy a wheel into a folder, whole or not at all; return the copy, else the wheel."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy_file(wheel, folder / wheel.name)
    except OSError as error:
        print(f"The wheel cannot be kept in {folder} ({error}): the next session builds it again.")
        return wheel
    print(f"Kept in {folder} for the next session.", flush=True)
    return folder / wheel.name


def _say_state() -> None:
    state = find_detectron2()
    if state.state != "present":
        raise EngineError(f"{way_out(state)} (in a notebook: os.environ['D2PD_ENGINE'])")
    restart = "; restart the session to run on it" if "d2pd.d2" in sys.modules else ""
    print(f"Detectron2 {state.version} is installed{restart}.")
