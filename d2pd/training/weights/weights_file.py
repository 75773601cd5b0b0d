"""Reads weights and checkpoints without running what they hold, and checks that they are whole."""

import pickle
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2pd.errors import MissingFileError, WeightsError
from d2pd.training.checkpoints.archive import ZIP_MAGIC, check_archive
from d2pd.training.weights.numpy_pickle import NUMPY_NAMES, WAY_OUT, PickledArray, load_numpy_pickle
from d2pd.training.weights.weight_names import (
    TORCHVISION_BODY,
    is_classifier,
    name_layout,
    to_detectron2_names,
)

_OLD_TORCH_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_MEMORY_FACTOR, _MEMORY_SLACK = 8, 1 << 26
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
        untranslated: The tensors by the file's own names where those are torchvision's and were
            translated, without the classifier's.
    """

    state: dict[str, Tensor]
    origin: str
    path: Path
    versions: dict[str, dict[str, int]] = field(default_factory=dict)
    untranslated: dict[str, Tensor] = field(default_factory=dict)

    def state_for(self, model_names: Collection[str]) -> dict[str, Tensor]:
        """Return the tensors by the names that a model knows them by.

        Args:
            model_names: Of the model's ``state_dict``. A backbone of torchvision keeps
                torchvision's names.
        """
        is_torchvision = any(
            f"{TORCHVISION_BODY}{name}" in model_names for name in self.untranslated
        )
        return self.untranslated if is_torchvision else self.state


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
    _check_is_file(path)
    try:
        return _load_file(path)
    except OSError as error:  # no permission, or a drive that has gone
        raise WeightsError(f"{path} cannot be read ({error.strerror or error})") from error


def _check_is_file(path: Path) -> None:
    if path.is_file():
        return
    if path.exists():  # reading a pipe or a device may never end
        raise WeightsError(f"{path} is not a file: give the path of a .pth or .pkl")
    raise MissingFileError(f"weights file {path} is not there: give the path of a .pth or .pkl")


def _load_file(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(64)
        if start.startswith(ZIP_MAGIC):
            check_archive(path)
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
    # A hostile file can give its tensors another ``detach``: ask the class.
    return Tensor.detach(value) if isinstance(value, Tensor) else None


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """Yield every tensor, however deep; each container is entered once."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting += dict.values(value) if isinstance(value, dict) else list(value)


def _check_tensors(content: Any, path: Path) -> None:
    """Refuse tensors that are not numbers in memory, or that would fill far more than the file.

    A tensor may claim any shape over a storage of one number, or a storage of any size.
    """
    limit = _MEMORY_FACTOR * path.stat().st_size + _MEMORY_SLACK
    claimed, storages = 0, {}
    for tensor in map(Tensor.detach, _tensors_in(content)):
        if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized:
            raise WeightsError(f"{path} holds a tensor that is not one of numbers in memory")
        claimed += tensor.numel() * tensor.element_size()
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    if max(claimed, sum(storages.values())) > limit:
        raise WeightsError(
            f"{path} asks for {max(claimed, sum(storages.values())):,} bytes of memory with "
            f"{path.stat().st_size:,} on the disk, as no weights do: nothing was loaded"
        )


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


def read_content(path: Path) -> dict[Any, Any]:
    """Read a file that holds a dictionary, whatever is in it; nothing that it holds is run.

    Returns:
        Its entries. Tensors are on the CPU and no larger than the file allows; the rest may be of
        any type that ``weights_only`` reading accepts.

    Raises:
        MissingFileError: If there is no such file.
        WeightsError: If the file is cut off, damaged, asks for code, or holds something else.
    """
    content = _load(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not tensors by name")
    _check_tensors(content, path)
    return content


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
    content = read_content(path)
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
    translated = layout in ("torchvision", "torchvision VGG16")
    untranslated = {
        name: tensor for name, tensor in state.items() if translated and not is_classifier(name)
    }
    return WeightsFile(to_detectron2_names(state), origin, path, versions, untranslated), rest


def read_weights(path: str | Path) -> WeightsFile:
    """Read the weights alone; see ``read_checkpoint``."""
    return read_checkpoint(path)[0]
