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


def install_command() -> str:
    """Return the line that builds Detectron2 for the torch of this Python."""
    # Its set-up imports torch, so no isolated build; and pkg_resources, gone from setuptools 81.
    pip = f"{sys.executable} -m pip"
    return (
        f"{pip} install 'setuptools<81' wheel && "
        f"{pip} install --no-build-isolation --no-deps --force-reinstall '{SOURCE}'"
        f" && {pip} install pycocotools omegaconf hydra-core cloudpickle black"
    )


def detect_detectron2() -> EngineState:
    """Tell absent, present, broken and shadowed apart; imports Detectron2 only if it is there."""
    try:
        spec = importlib.util.find_spec("detectron2")
    except (ImportError, ValueError) as error:
        return EngineState("broken", _installed_version(), None, _one_line(error))
    version = _installed_version()
    if spec is None:
        return EngineState("absent")
    if spec.origin is None:
        folders = list(spec.submodule_search_locations or ())
        location = folders[0] if folders else None
        detail = f"{location} is a folder without a package in it and hides Detectron2"
        return EngineState("shadowed", version, location, detail)
    location = str(Path(spec.origin).parent)
    if version is None:
        detail = f"{location} is source code that was not installed"
        return EngineState("shadowed", None, location, detail)
    try:
        # Brings in the compiled operators as well.
        importlib.import_module("detectron2.engine")
    except Exception as error:  # a broken build raises anything
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
            f"({found.detail}): build it again for this torch with `{install_command()}`, or "
            f"{_EMBEDDED}"
        )
    return (
        f"Detectron2 is shadowed: {found.detail}; leave or rename that folder, install Detectron2 "
        f"with `{install_command()}`, or {_EMBEDDED}"
    )


def _installed_version() -> str | None:
    try:
        return metadata.version("detectron2")
    except metadata.PackageNotFoundError:
        return None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
