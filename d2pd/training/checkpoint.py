"""Saves and loads checkpoints in Detectron2's format: whole, safely and by name."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from d2pd.d2 import DetectionCheckpointer
from d2pd.errors import MissingFileError, UserError, WeightsError
from d2pd.training.atomic_file import atomic_file
from d2pd.training.optimizer_state import track_parameter_names
from d2pd.training.weights import (
    Match,
    WeightsFile,
    match_weights,
    read_checkpoint,
    resolve_weights,
)

logger = logging.getLogger(__name__)

TAG = "last_checkpoint"
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with its names and files; runs no code and leaves no half file.

    A checkpoint is ``torch.save`` of ``{"model": ..., <checkpointable>: ..., <extra>: ...}``, as
    Detectron2 reads and writes it; ``last_checkpoint`` beside it names the newest. Everything
    but the model is stored as plain data, so that ``weights_only`` reading accepts it.

    Args:
        model: What the weights are for; a wrapped one is unwrapped.
        save_dir: Folder of the checkpoints.
        save_to_disk: By default, on the main process only.
        checkpointables: Objects with ``state_dict`` and ``load_state_dict``. The state of an
            optimizer, one of these or the ``optimizer`` of one, is matched by parameter names.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        for entry in checkpointables.values():
            optimizer = entry if isinstance(entry, Optimizer) else getattr(entry, "optimizer", None)
            if isinstance(optimizer, Optimizer):
                track_parameter_names(optimizer, self.model)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<name>.pth`` and then name it in ``last_checkpoint``.

        Args:
            name: File name without its suffix.
            kwargs: Further plain data, such as ``iteration``.

        Raises:
            UserError: If it cannot be written: the disk is full, or the folder is read-only.
            TypeError: If an entry is not plain data and could not be read again.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        rest = {key: entry.state_dict() for key, entry in self.checkpointables.items()}
        rest = {key: plain(value, key) for key, value in {**rest, **kwargs}.items()}
        path = Path(self.save_dir) / f"{name}.pth"
        logger.info("Saving checkpoint to %s", path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                torch.save({"model": self.model.state_dict(), **rest}, file)
            self.tag_last_checkpoint(path.name)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into the latter
            raise UserError(
                f"cannot write the checkpoint {path} ({error}): make room or choose another "
                "OUTPUT_DIR; the checkpoint before it is still whole"
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the newest checkpoint in ``last_checkpoint``."""
        with atomic_file(Path(self.save_dir) / TAG) as file:
            file.write(last_filename_basename.encode())

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights, and of the checkpointables those that the file holds.

        Args:
            path: Anything ``resolve_weights`` takes; empty loads nothing.
            checkpointables: Names to load; None for all, an empty list for the weights alone.

        Returns:
            What else the file holds.

        Raises:
            MissingFileError: If the file is not there or cannot be fetched.
            WeightsError: If it is damaged, asks for code, or does not fit the model.
        """
        if not path:
            logger.info("No weights given: the model keeps its initial values")
            return {}
        file, rest = read_checkpoint(resolve_weights(path))
        load_weights(self.model, file)
        self._load_checkpointables(rest, checkpointables)
        return rest

    def _load_checkpointables(self, rest: dict[str, Any], names: list[str] | None) -> None:
        for name in self.checkpointables if names is None else names:
            if name in rest:
                self.checkpointables[name].load_state_dict(rest.pop(name))

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from ``last_checkpoint`` where there is one, else load the weights of ``path``.

        Args:
            path: Weights for a run that starts.
            resume: Whether to look for a checkpoint in ``save_dir``.

        Returns:
            What else the file holds.

        Raises:
            WeightsError: Besides what ``load`` raises: if the newest checkpoint is damaged, of
                another model or without the state of the training, or if there are checkpoints and
                nothing says which one is the newest. Names an older one to go on from.
        """
        if not resume:
            return self.load(path, checkpointables=[])
        name = self._tagged()
        if name:
            return self._resume(Path(self.save_dir) / name)
        if self._saved():
            raise WeightsError(
                f"cannot resume: {self.save_dir} holds checkpoints, but no {TAG} that names the "
                f"newest; {self._advice(None)}"
            )
        logger.info("No checkpoint in %s to resume from", self.save_dir or "''")
        return self.load(path, checkpointables=[])

    def has_checkpoint(self) -> bool:
        """Tell whether ``last_checkpoint`` names a checkpoint."""
        return bool(self._tagged())

    def _tagged(self) -> str:
        """Return the name in ``last_checkpoint``; empty where there is none.

        Raises:
            WeightsError: If it is not the name of a file in the folder.
        """
        tagged = Path(self.save_dir) / TAG
        name = tagged.read_bytes().decode(errors="replace").strip() if tagged.is_file() else ""
        if name and (not name.isprintable() or "\\" in name or name != Path(name).name):
            raise WeightsError(
                f"cannot resume: {tagged} holds {name[:60]!r}, which is not the name of a file in "
                f"{self.save_dir}; {self._advice(None)}"
            )
        return name

    def _resume(self, path: Path) -> dict[str, Any]:
        try:
            file, rest = read_checkpoint(path)
        except (WeightsError, MissingFileError) as error:
            raise WeightsError(f"cannot resume: {error}; {self._advice(path)}") from error
        absent = [name for name in self.checkpointables if name not in rest]
        if absent:
            raise WeightsError(
                f"cannot resume: {path} holds weights without the state of a training "
                f"({', '.join(absent)}); to start a run from them: MODEL.WEIGHTS {path}, without "
                "--resume"
            )
        newer = [other.name for other in self._saved() if _age(other) > _age(path)]
        if newer:
            logger.warning("%s names %s, though %s is newer", TAG, path.name, ", ".join(newer))
        match = load_weights(self.model, file)
        if match.renewed or match.missing:
            names = [entry.name for entry in match.renewed] + match.missing
            raise WeightsError(
                f"cannot resume: {path} is of another model: {len(names)} parameters differ, such "
                f"as {names[0]}. Resume with the configuration of the run, or start a new one in "
                "another OUTPUT_DIR"
            )
        self._load_checkpointables(rest, None)
        return rest

    def _saved(self) -> list[Path]:
        """Return the periodic and final checkpoints of the folder, the newest first."""
        if not self.save_dir:
            return []
        found = [p for p in Path(self.save_dir).glob("model_*.pth") if _is_of_a_run(p)]
        return sorted(found, key=_age, reverse=True)

    def _advice(self, broken: Path | None) -> str:
        """Name the newest checkpoint that is whole, and how to go on from it."""
        for path in self._saved():
            if path == broken:
                continue
            try:
                _, rest = read_checkpoint(path)
            except WeightsError:
                continue  # the next older one may be whole; all are tried
            if all(name in rest for name in self.checkpointables):
                after = f" (iteration {rest['iteration']})" if "iteration" in rest else ""
                return (
                    f"{path.name}{after} is whole: to go on from it, write that name into "
                    f"{path.with_name(TAG)}"
                )
        return f"no other checkpoint in {self.save_dir} is whole: start anew, without --resume"


def _is_of_a_run(path: Path) -> bool:
    number = path.stem.removeprefix("model_")
    return number.isdigit() or number == "final"


def _age(path: Path) -> float:
    return path.stat().st_mtime


def load_weights(model: nn.Module, file: WeightsFile) -> Match:
    """Copy the weights that fit into a model, and log what starts anew and what is left over.

    Raises:
        WeightsError: If the file does not fit the model; nothing is then changed.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    match = match_weights(file.state, shapes, source=str(file.path))
    chosen = OrderedDict((name, file.state[found]) for name, found in match.loaded.items())
    if file.versions:
        chosen._metadata = OrderedDict(file.versions)  # type: ignore[attr-defined]
    model.load_state_dict(chosen, strict=False)
    _log_match(match, file)
    _warn_of_pixels(model, file)
    return match


def _log_match(match: Match, file: WeightsFile) -> None:
    part = match.scope.rstrip(".") or "the model"
    logger.info(
        "Loaded %s (%s): %.0f%% of the parameters of %s",
        *(file.path, file.origin, 100 * match.matched_fraction, part),
    )
    if match.scope:
        logger.info("Everything outside %s starts anew", part)
    if match.renewed:
        named = ", ".join(str(entry) for entry in match.renewed)
        logger.warning("These start anew, as their shape is another one: %s", named)
    if match.missing:
        logger.warning("These are not in %s: %s", file.path.name, ", ".join(match.missing))
    if match.unused:
        logger.info("The model has no place for: %s", ", ".join(match.unused))


def _warn_of_pixels(model: nn.Module, file: WeightsFile) -> None:
    std = getattr(model, "pixel_std", None)
    if "torchvision" in file.origin and isinstance(std, Tensor) and bool((std == 1).all()):
        logger.warning(
            "%s was trained on RGB pixels scaled by their deviation: set INPUT.FORMAT RGB, "
            "MODEL.PIXEL_MEAN [123.675,116.28,103.53], MODEL.PIXEL_STD [58.395,57.12,57.375] and "
            "MODEL.RESNETS.STRIDE_IN_1X1 False",
            file.path.name,
        )


def plain(value: Any, where: str) -> Any:
    """Turn the state of a training into data that ``weights_only`` reading accepts.

    Args:
        value: Containers, tensors and numbers; numpy's numbers become Python's, paths strings.
        where: The keys that lead to it, for messages.

    Raises:
        TypeError: If something else is in it.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    # The type itself: an enum is an int too, and would be stored as a class.
    if isinstance(value, Tensor) or type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {plain(k, where): plain(entry, f"{where}.{k}") for k, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    if isinstance(value, tuple):
        return tuple(plain(entry, f"{where}[{i}]") for i, entry in enumerate(value))
    raise TypeError(
        f"{where} is a {type(value).__name__}, which a checkpoint cannot hold: turn it into "
        "numbers, strings, lists, dictionaries or tensors"
    )
