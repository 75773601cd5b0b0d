"""Finds out whether Detectron2 can be used on this machine, and which engine to take."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from d2pd.errors import EngineError

CHOICES = ("auto", "detectron2", "embedded")

SOURCE = "git+https://github.com/facebookresearch/detectron2.git"

_EMBEDDED = "set D2PD_ENGINE=embedded to do without it"


@dataclass(frozen=True)
class EngineState:
    """What became of the search for Detectron2.

    Attributes:
        state: ``absent``; ``present`` and importable; ``broken``, installed but its import fails,
            as after torch was changed; ``shadowed``, where a folder of that name hides it or
            stands in for it, as a clone in the working directory does.
        version: Of the installed package, where there is one.
        location: Folder that ``import detectron2`` takes, where there is one.
        detail: Why it is broken or shadowed; empty otherwise.
    """

    state: Literal["absent", "present", "broken", "shadowed"]
    version: str | None = None
    location: str | None = None
    detail: str = ""


def install_command(rebuild: bool = False) -> str:
    """Return the line that builds Detectron2 for the torch of this Python.

    Args:
        rebuild: Replace an installed one, and leave its dependencies (torch too) as they are.
    """
    # Its set-up imports torch, so no isolated build; and pkg_resources, gone from setuptools 81.
    pip = f"{sys.executable} -m pip install"
    options = "--no-build-isolation" + (" --force-reinstall --no-deps" if rebuild else "")
    return f"{pip} 'setuptools<81' wheel && {pip} {options} '{SOURCE}'"


def detect_detectron2() -> EngineState:
    """Tell absent, present, broken and shadowed apart; imports Detectron2 only if it is there."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None:
        return EngineState("absent")
    version, installed = _installation()
    if spec.origin is None:
        location = next(iter(spec.submodule_search_locations or ()), None)
        detail = f"{location} is a folder of that name and holds no package"
        return EngineState("shadowed", version, location, detail)
    location = str(Path(spec.origin).resolve().parent)
    try:
        # Brings in the compiled operators as well.
        importlib.import_module("detectron2.engine")
    except Exception as error:  # a broken build raises anything
        detail = _shadow(location, installed)
        if detail:
            return EngineState("shadowed", version, location, f"{detail} ({_one_line(error)})")
        return EngineState("broken", version, location, _one_line(error))
    return EngineState("present", version, location)


def choose_engine(wish: str) -> str:
    """Return ``detectron2`` or ``embedded``.

    Args:
        wish: ``auto`` takes Detectron2 where it is installed; or one of the two by name.

    Raises:
        EngineError: If the wish is another word; if Detectron2 is wished for and absent; if it is
            broken or shadowed, unless ``embedded`` is wished for.
    """
    if wish not in CHOICES:
        raise EngineError(f"D2PD_ENGINE is {wish!r}: allowed are {', '.join(CHOICES)}")
    if wish == "embedded":
        return "embedded"
    found = detect_detectron2()
    if found.state == "present":
        return "detectron2"
    if found.state == "absent" and wish == "auto":
        return "embedded"
    raise EngineError(way_out(found))


def way_out(found: EngineState) -> str:
    """Return in one line what is wrong with Detectron2 and what to do about it."""
    if found.state == "absent":
        return (
            "D2PD_ENGINE is 'detectron2', but Detectron2 is not installed: install it with "
            f"`{install_command()}`, or {_EMBEDDED}"
        )
    if found.state == "broken":
        return (
            f"Detectron2 {found.version} at {found.location} is installed but cannot be imported "
            f"({found.detail}): build it again for this torch with "
            f"`{install_command(rebuild=True)}`, or {_EMBEDDED}"
        )
    return (
        f"Detectron2 is shadowed: {found.detail}; leave or rename that folder, install Detectron2 "
        f"with `{install_command()}`, or {_EMBEDDED}"
    )


def _shadow(location: str, installed: list[str]) -> str:
    """Return why a package that cannot be imported is not the installed one; empty if it is."""
    hidden = [folder for folder in installed if folder != location]
    if hidden:
        return f"{location} hides the one installed at {hidden[0]}"
    if not installed or Path(location).parent == Path.cwd():
        return f"{location} is source code, not an installed package"
    return ""


def _installation() -> tuple[str | None, list[str]]:
    """Return the installed version, and the folders of the installed packages."""
    found = list(metadata.distributions(name="detectron2"))
    folders = [Path(str(item.locate_file("detectron2"))).resolve() for item in found]
    version = found[0].version if found else None
    return version, [str(folder) for folder in folders if (folder / "__init__.py").is_file()]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
