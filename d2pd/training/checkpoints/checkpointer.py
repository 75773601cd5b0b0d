"""Saves and loads checkpoints in Detectron2's format: whole, safely and by name."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from d2pd.d2 import DetectionCheckpointer, comm
from d2pd.errors import UserError, WeightsError
from d2pd.training.checkpoints.checkpoint_choice import (
    Choice,
    choose_checkpoint,
    log_choice,
    restore,
)
from d2pd.training.checkpoints.checkpoint_file import write_checkpoint
from d2pd.training.checkpoints.checkpoint_folder import (
    FINAL,
    checkpoint_name,
    find_checkpoints,
    iteration_in_name,
    prune,
    write_tag,
)
from d2pd.training.checkpoints.mirror import Mirror
from d2pd.training.checkpoints.optimizer_state import track_parameter_names
from d2pd.training.checkpoints.training_state import read_training
from d2pd.training.weights.matching import read_checkpoint, resolve_weights
from d2pd.training.weights.weights_loading import load_weights

logger = logging.getLogger(__name__)

_STATE_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_BEST_NAME = re.compile(r"model_best[\w.-]*", re.ASCII)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with its names and files; runs no code and leaves no half file.

    A checkpoint is ``torch.save`` of ``{"model": ..., <checkpointable>: ..., <extra>: ...}``, as
    Detectron2 reads and writes it, and sealed; ``last_checkpoint`` beside it names the newest.
    Everything but the model is stored as plain data, so that ``weights_only`` reading accepts it.
    A file takes its name once it was read back and found whole.

    Args:
        model: What the weights are for; a wrapped one is unwrapped.
        save_dir: Folder of the checkpoints.
        save_to_disk: By default, on the main process only.
        keep: Number of numbered checkpoints that ``save_iteration`` leaves; 0 for all.
        mirror_dir: A second folder that gets a copy; empty for none.
        run: What the run is, for a later comparison; see ``run_identity.describe_run``.
        checkpointables: Objects with ``state_dict`` and ``load_state_dict``. The state of an
            optimizer, one of these or the ``optimizer`` of one, is matched by parameter names.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        keep: int = 0,
        mirror_dir: str = "",
        run: Mapping[str, Any] | None = None,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.keep = keep
        self.mirror = Mirror(mirror_dir, save_dir, keep) if mirror_dir and save_dir else None
        self.run = run
        for entry in checkpointables.values():
            optimizer = entry if isinstance(entry, Optimizer) else getattr(entry, "optimizer", None)
            if isinstance(optimizer, Optimizer):
                track_parameter_names(optimizer, self.model)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<name>.pth``, and name it in ``last_checkpoint`` unless it is a best model.

        Args:
            name: File name without its suffix.
            kwargs: Further plain data, such as ``iteration``.

        Raises:
            UserError: If it cannot be written whole: the disk is full, or the folder is read-only.
            TypeError: If an entry is not plain data and could not be read again.
        """
        if not self._is_saving():
            return
        is_best = _BEST_NAME.fullmatch(name) is not None
        self._write_training(f"{name}.pth", kwargs, tag=not is_best)
        self._follow(None if is_best else f"{name}.pth", iteration_in_name(f"{name}.pth") or 0)

    def save_iteration(self, iteration: int, *, pending: bool) -> None:
        """Write the numbered checkpoint of an iteration, prune the old ones, then mirror.

        Args:
            iteration: The last one that was trained, from 0.
            pending: Whether the evaluation of this iteration is still to be done.

        Raises:
            UserError: As ``save``; what was there before is still whole.
        """
        self._save_training(checkpoint_name(iteration), iteration, pending)

    def save_final(self, iteration: int) -> None:
        """Write ``model_final.pth``, with all that a longer training goes on from.

        Raises:
            UserError: As ``save``.
        """
        self._save_training(FINAL, iteration, pending=False)

    def save_best(
        self, name: str, *, iteration: int, metric: str, value: float, mode: str, config_text: str
    ) -> None:
        """Write the model's weights and why they are kept; ``last_checkpoint`` stays as it is.

        Args:
            name: ``model_best``, or that and more letters.
            iteration: The last one that was trained.
            metric: Name of the metric that chose it.
            value: Its value.
            mode: ``min`` or ``max``: which values of it are better.
            config_text: The configuration as YAML.

        Raises:
            UserError: As ``save``.
            ValueError: If ``name`` is of another checkpoint.
        """
        if not _BEST_NAME.fullmatch(name):
            raise ValueError(f"a best model is called model_best..., got {name!r}")
        if not self._is_saving():
            return
        facts: dict[str, Any] = {"metric": {"name": metric, "value": value, "mode": mode}}
        facts |= {"iteration": iteration, "config": config_text}
        facts |= {} if self.run is None else {"run": self.run}
        path = Path(self.save_dir) / f"{name}.pth"
        write_checkpoint(path, self.model.state_dict(), facts)
        self._follow(None, 0)

    def update_mirror(self) -> None:
        """Bring the mirror up to date when a run is over; say what it lacks if that fails."""
        if self._is_saving() and self.mirror is not None:
            self.mirror.finish()

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the newest checkpoint in ``last_checkpoint``."""
        write_tag(Path(self.save_dir), last_filename_basename)

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
        self._load_checkpointables(rest, checkpointables, file.path)
        return rest

    def resume(self, choice: Choice | None = None) -> dict[str, Any]:
        """Go on from the newest checkpoint that is whole, in the folder or in the mirror.

        With several processes the main one chooses and copies back, and all load the same file.

        Args:
            choice: What ``choose_checkpoint`` gave, where it was asked already.

        Returns:
            What else the file holds: ``iteration``, ``pending``, ``run``.

        Raises:
            MissingFileError: If there is none.
            WeightsError: If none is whole, or the chosen one is of another model.
            UserError: If it cannot be copied back from the mirror.
        """
        path = self._agree_on_file(choice)
        file, rest = read_training(path, tuple(self.checkpointables))
        match = load_weights(self.model, file)
        changed = match.adapted + match.renewed
        if changed or match.missing:
            names = [entry.name for entry in changed] + match.missing
            raise WeightsError(
                f"cannot resume: {path} is of another model: {len(names)} parameters differ, such "
                f"as {names[0]}. Resume with the configuration of the run, or start a new one in "
                "another OUTPUT_DIR"
            )
        self._load_checkpointables(rest, None, path)
        return rest

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from the newest checkpoint, or load the weights of ``path``.

        Args:
            path: Weights for a run that starts; also for an evaluation where there is none.
            resume: Whether to look for a checkpoint in ``save_dir``.

        Returns:
            What else the file holds.

        Raises:
            MissingFileError: If a training is to be resumed and there is no checkpoint.
            WeightsError: Besides what ``load`` raises: as ``resume``.
        """
        if resume and (self.checkpointables or self.has_checkpoint()):
            return self.resume()
        return self.load(path, checkpointables=[])

    def has_checkpoint(self) -> bool:
        """Tell whether the folder holds a checkpoint to go on from."""
        return bool(find_checkpoints(self.save_dir))

    def _is_saving(self) -> bool:
        return bool(self.save_dir) and self.save_to_disk

    def _save_training(self, name: str, iteration: int, pending: bool) -> None:
        if not self._is_saving():
            return
        facts = {"iteration": iteration, "pending": pending}
        self._write_training(name, facts if self.run is None else {**facts, "run": self.run})
        try:
            prune(Path(self.save_dir), self.keep, iteration)
        except OSError as error:
            logger.warning("An old checkpoint cannot be deleted (%s); training goes on", error)
        self._follow(name, iteration)

    def _write_training(self, name: str, facts: Mapping[str, Any], *, tag: bool = True) -> None:
        states = {key: entry.state_dict() for key, entry in self.checkpointables.items()}
        write_checkpoint(
            Path(self.save_dir) / name,
            self.model.state_dict(),
            {**states, **facts},
            needs=tuple(self.checkpointables),
            tag=tag,
        )

    def _follow(self, newest: str | None, iteration: int) -> None:
        if self.mirror is not None:
            self.mirror.follow(newest, iteration)

    def _agree_on_file(self, choice: Choice | None) -> Path:
        """Return the file that the main process chooses; every process raises what it raises."""
        answer: str | UserError = ""
        if comm.is_main_process():
            try:
                answer = str(self._choose(choice))
            except UserError as error:
                answer = error
        answer = comm.all_gather(answer)[0]
        if isinstance(answer, UserError):
            raise answer
        return Path(answer)

    def _choose(self, choice: Choice | None) -> Path:
        mirror = self.mirror.folder if self.mirror is not None else ""
        if choice is None:
            choice = choose_checkpoint(self.save_dir, mirror, needs=tuple(self.checkpointables))
        log_choice(choice, self.save_dir)
        return restore(choice, self.save_dir) if choice.is_in_mirror else choice.path

    def _load_checkpointables(
        self, rest: dict[str, Any], names: list[str] | None, path: Path
    ) -> None:
        for name in self.checkpointables if names is None else names:
            if name not in rest:
                continue
            try:
                self.checkpointables[name].load_state_dict(rest.pop(name))
            except UserError:
                raise
            except _STATE_ERRORS as error:
                logger.debug("%s of %s cannot be taken up", name, path, exc_info=True)
                what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                raise WeightsError(
                    f"{path} holds a state of the {name} that this one cannot take up ({what}): "
                    "move it away to go on from the one before, or start a run from its weights"
                ) from error
