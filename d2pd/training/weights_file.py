"""Reads weights and checkpoints without running what they hold, and checks that they are whole."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2pd.errors import MissingFileError, WeightsError
from d2pd.training.numpy_pickle import NUMPY_NAMES, WAY_OUT, PickledArray, load_numpy_pickle
from d2pd.training.weight_names import name_layout, to_detectron2_names

_ZIP_MAGIC = b"PK\x03\x04"
_OLD_TORCH_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_CONTAINERS = ("model", "model_state", "state_dict", "blobs")


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a weights file.

    Attributes:
        state: CPU tensors by Detectron2's names (those of a backbone without their prefix).
        origin: Who wrote the file, for people: its ``__author__``, or whose names it uses.
        path: The file.
        versions: What ``state_dict()._metadata`` holds: the version of each module's format, by
            the module's name. Empty where the file does not say or names were translated.
    """

    state: dict[str, Tensor]
    origin: str
    path: Path
    versions: dict[str, dict[str, int]] = field(default_factory=dict)


def _check_zip(path: Path) -> None:
    """Compare every checksum, which torch does not: it accepts a file with a flipped byte."""
    try:
        with zipfile.ZipFile(path) as archive:
            is_stored = all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
            damaged = archive.testzip() if is_stored else None
    except Exception as error:  # zipfile raises nearly anything on damaged headers
        raise WeightsError(
            f"{path} is cut off or damaged ({path.stat().st_size:,} bytes; {error}): {WAY_OUT}"
        ) from error
    if damaged is not None:
        raise WeightsError(f"{path} is damaged (checksum of {damaged} differs): {WAY_OUT}")
    if not is_stored:
        raise WeightsError(f"{path} is a compressed archive, which torch.save does not write")


def _load_torch(path: Path) -> Any:
    stand_ins: list[Any] = [(answer, name) for name, answer in NUMPY_NAMES.items()]
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise nearly anything
        unsafe = re.search(r"GLOBAL:? (\S+) (?:was not|whose)", str(error))
        if unsafe:
            raise WeightsError(
                f"{path} asks for {unsafe[1]}, which is neither a tensor nor a container: loading "
                "it could run code, so nothing was loaded. Take the file from a source you trust, "
                "saved as tensors only"
            ) from error
        what = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(f"{path} is cut off or damaged ({what[0][:200]}): {WAY_OUT}") from error


def _load(path: Path) -> Any:
    """Load by content, not by suffix: downloads are often not what their name says."""
    if not path.is_file():
        raise MissingFileError(f"weights file {path} is not there: give the path of a .pth or .pkl")
    with path.open("rb") as file:
        start = file.read(64)
        if start.startswith(_ZIP_MAGIC):
            _check_zip(path)
            return _load_torch(path)
        if start.startswith(_OLD_TORCH_MAGIC):
            return _load_torch(path)
        if not start:
            raise WeightsError(f"{path} is empty: {WAY_OUT}")
        if start.lstrip()[:1] in (b"<", b"{") or start.startswith(b"version https://git-lfs"):
            text = start.decode("latin1").split("\n")[0]
            raise WeightsError(
                f"{path} is text ({text!r}), such as a download page saved in place of the file: "
                f"{WAY_OUT}"
            )
        return load_numpy_pickle(file, str(path))


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, PickledArray):
        return torch.from_numpy(value.value)
    return value.detach() if isinstance(value, Tensor) else None


def _tensors_of(container: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    """Keep the tensors of a file, without Caffe2's momenta and the prefix of a wrapped model."""
    state = {
        name: tensor
        for name, value in dict.items(container)
        if isinstance(name, str) and not name.endswith("_momentum")
        if (tensor := _tensor(value)) is not None
    }
    if not state:
        raise WeightsError(f"{path} holds no tensors by name: it is not a weights file")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise WeightsError(
                f"{path}: {name} holds numbers that are not finite; the file is damaged, or its "
                "training had diverged. Take an earlier checkpoint"
            )
    return state


def _versions_of(container: Mapping[Any, Any]) -> dict[str, dict[str, int]]:
    metadata = getattr(container, "_metadata", None)
    if not isinstance(metadata, Mapping):
        return {}
    return {
        name.removeprefix("module."): {"version": entry["version"]}
        for name, entry in metadata.items()
        if isinstance(name, str) and isinstance(entry, Mapping)
        if isinstance(entry.get("version"), int)
    }


def read_checkpoint(path: str | Path) -> tuple[WeightsFile, dict[str, Any]]:
    """Read a file of weights and whatever else it holds.

    It may be torch's ``.pth`` or a ``.pkl`` of Detectron2 or Caffe2, and hold the tensors
    themselves, or them under ``model`` (Detectron2, torchvision's references), ``state_dict``,
    ``model_state`` (pycls) or ``blobs`` (Detectron). Nothing that a file holds is run.

    Returns:
        The weights, and the rest by its keys: ``trainer``, ``iteration`` and the like.

    Raises:
        MissingFileError: If there is no such file.
        WeightsError: If the file is cut off, damaged, asks for code, or holds no tensors.
    """
    path = Path(path)
    content = _load(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not tensors by name")
    # A hostile file can give its OrderedDict an attribute named ``items``: ask the class.
    entries = dict(dict.items(content))
    key = next((key for key in _CONTAINERS if isinstance(entries.get(key), dict)), None)
    container = content if key is None else entries.pop(key)
    rest = {} if key is None else entries
    state = _tensors_of(container, path)
    layout = name_layout(state)
    author = rest.get("__author__")
    origin = author if isinstance(author, str) else f"{layout} names"
    versions = _versions_of(container) if layout == "detectron2" else {}
    return WeightsFile(to_detectron2_names(state), origin, path, versions), rest


def read_weights(path: str | Path) -> WeightsFile:
    """Read the weights alone; see ``read_checkpoint``."""
    return read_checkpoint(path)[0]
