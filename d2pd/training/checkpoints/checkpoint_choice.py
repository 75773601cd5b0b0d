"""Which checkpoint a run goes on from: the newest that is whole, here or in the mirror."""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from d2pd.atomic_file import copy_file
from d2pd.errors import MissingFileError, UserError, WeightsError
from d2pd.training.checkpoints.checkpoint_folder import (
    BEST_PATTERN,
    FINAL,
    TAG,
    find_checkpoints,
    iteration_in_name,
    read_tag,
    write_tag,
)
from d2pd.training.checkpoints.training_state import iteration_of, read_training
from d2pd.training.weights.numpy_pickle import WAY_OUT

logger = logging.getLogger(__name__)

RESTORED = ("metrics.json", "results.json", "run.log", "wandb_id")
"""What a run goes on writing or reading; it comes back from the mirror where it is gone."""


@dataclass(frozen=True)
class Choice:
    """The checkpoint to go on from.

    Attributes:
        path: The file, in the folder of the run or in the mirror.
        iteration: The last one that was trained; -1 where a file of weights alone does not say.
        is_pending: Whether its evaluation is still to be done.
        is_in_mirror: Whether it has to be copied back first.
        run: What ``run_identity.describe_run`` gave when it was saved; None where it does not say.
        passed_over: What is wrong with those that would have come before it.
    """

    path: Path
    iteration: int
    is_pending: bool
    is_in_mirror: bool
    run: dict[str, Any] | None
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f" in the mirror {self.path.parent}" if self.is_in_mirror else ""
        state = f"iteration {self.iteration}" if self.iteration >= 0 else "of unknown iteration"
        pending = ", whose evaluation is still to be done" if self.is_pending else ""
        going_on = f"going on from {self.path.name}{place}, {state}{pending}"
        return f"{'; '.join(self.passed_over)}: {going_on}" if self.passed_over else going_on


def choose_checkpoint(
    folder: str | Path, mirror: str | Path = "", *, needs: Sequence[str] = ("trainer",)
) -> Choice:
    """Choose the newest checkpoint that is whole; nothing is written and no model is needed.

    Newest is by iteration, which ``model_final.pth`` holds inside. At the same iteration one whose
    evaluation is done comes first, then one in ``folder`` before one in ``mirror``. What
    ``last_checkpoint`` says does not matter: a kill may have come before it was written.

    Args:
        folder: ``OUTPUT_DIR``; need not be there.
        mirror: ``CHECKPOINT.MIRROR_DIR``; empty for none.
        needs: Keys that a checkpoint must hold; none for the weights alone.

    Raises:
        MissingFileError: If there is none in either place.
        WeightsError: If none of those that are there can be used, with the fault of each.
    """
    search = _Search(needs)
    candidates = search.list_candidates(folder, mirror)
    choice = search.newest(candidates)
    if choice is not None:
        return choice
    places = f"OUTPUT_DIR {folder}" + (f" or CHECKPOINT.MIRROR_DIR {mirror}" if mirror else "")
    if not candidates and not search.faults:
        gone = [str(place) for place in (folder, mirror) if str(place) and not Path(place).is_dir()]
        note = f" ({' and '.join(gone)}: no such folder)" if gone else ""
        raise MissingFileError(
            f"cannot resume: no model_<iteration>.pth or {FINAL} in {places}{note}: set OUTPUT_DIR "
            "to the folder of the run, or start one without --resume"
        )
    raise WeightsError(
        f"cannot resume: nothing in {places} can be gone on from: {'; '.join(search.faults)}. Put "
        "a whole checkpoint there, or start a new run in another OUTPUT_DIR"
    )


def log_choice(choice: Choice, folder: str | Path) -> None:
    """Log what is taken and why, and that ``last_checkpoint`` says something else."""
    level = logging.WARNING if choice.passed_over else logging.INFO
    logger.log(level, "%s", choice)
    named = read_tag(folder)
    if named and named != choice.path.name:
        logger.info(
            "%s names %s, and the newest whole checkpoint is taken: to go back to another one, "
            "move the newer ones away",
            *(TAG, named),
        )


def restore(choice: Choice, folder: str | Path) -> Path:
    """Copy a checkpoint back from the mirror, with what else of the run is gone from its folder.

    Args:
        choice: One that is in the mirror.
        folder: ``OUTPUT_DIR``; made if it is not there. ``metrics.json``, the best models and the
            like are copied only where they are missing.

    Returns:
        The checkpoint in ``folder``.

    Raises:
        UserError: If it cannot be copied.
    """
    folder, mirror = Path(folder), choice.path.parent
    target = folder / choice.path.name
    others = [mirror / name for name in RESTORED] + sorted(mirror.glob(BEST_PATTERN))
    missing = [path for path in others if path.is_file() and not (folder / path.name).exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in (*missing, choice.path):
            copy_file(source, folder / source.name)
        write_tag(folder, target.name)
    except OSError as error:
        raise UserError(
            f"cannot copy {choice.path} back to OUTPUT_DIR {folder} ({error}): make room there, or "
            "choose another OUTPUT_DIR"
        ) from error
    names = ", ".join(path.name for path in (choice.path, *missing))
    logger.info("Copied back from the mirror %s: %s", mirror, names)
    return target


@dataclass(frozen=True)
class _Candidate:
    path: Path
    is_in_mirror: bool

    def __str__(self) -> str:
        return f"the mirror's {self.path.name}" if self.is_in_mirror else self.path.name


class _Search:
    """Reads candidates, each at most once, and keeps what is wrong with them."""

    def __init__(self, needs: Sequence[str]) -> None:
        self.needs = needs
        self.faults: list[str] = []
        self._read: dict[_Candidate, Choice | None] = {}

    def list_candidates(self, folder: str | Path, mirror: str | Path) -> list[_Candidate]:
        """Return those of the folder, then those of the mirror; the final model first in each."""
        candidates: list[_Candidate] = []
        for place, is_in_mirror in ((folder, False), (mirror, True)):
            try:
                candidates += [_Candidate(path, is_in_mirror) for path in find_checkpoints(place)]
            except OSError as error:  # such as a drive that has gone
                self.faults.append(f"{place} cannot be read ({error.strerror or error})")
        return candidates

    def newest(self, candidates: Sequence[_Candidate]) -> Choice | None:
        """Return the choice; of numbered candidates only as many are read as it takes."""
        of_iteration: dict[float, list[_Candidate]] = defaultdict(list)
        for candidate in candidates:
            iteration: float | None = iteration_in_name(candidate.path.name)
            if iteration is None:
                found = self.read(candidate)  # only the file itself says
                if found is None:
                    continue
                iteration = found.iteration if found.iteration >= 0 else math.inf
            of_iteration[iteration].append(candidate)
        for iteration in sorted(of_iteration, reverse=True):
            chosen = self._decided_first(of_iteration[iteration])
            if chosen is not None:
                return replace(chosen, passed_over=tuple(self.faults))
        return None

    def _decided_first(self, candidates: Sequence[_Candidate]) -> Choice | None:
        pending: Choice | None = None
        for candidate in candidates:
            found = self.read(candidate)
            if found is not None and not found.is_pending:
                return found
            pending = pending or found
        return pending

    def read(self, candidate: _Candidate) -> Choice | None:
        """Return what a candidate is; None if it cannot be used, which is kept among the faults."""
        if candidate not in self._read:
            self._read[candidate] = self._inspect(candidate)
        return self._read[candidate]

    def _inspect(self, candidate: _Candidate) -> Choice | None:
        path = candidate.path
        try:
            _, rest = read_training(path, self.needs)
        except (WeightsError, MissingFileError) as error:
            fault = str(error).removeprefix("weights file ").removeprefix(str(path)).strip()
            self.faults.append(f"{candidate} {fault.removesuffix(f': {WAY_OUT}')}")
            return None
        iteration, run = iteration_of(rest), rest.get("run")
        if iteration is None:
            iteration = iteration_in_name(path.name)
        return Choice(
            path,
            -1 if iteration is None else iteration,
            is_pending=rest.get("pending") is True,
            is_in_mirror=candidate.is_in_mirror,
            run=run if isinstance(run, dict) else None,
        )
