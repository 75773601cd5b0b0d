"""The weights that a run has left: which file is what, and what it says of its training."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.errors import MissingFileError, UserError
from d2pd.training.checkpoints.checkpoint_choice import choose_checkpoint
from d2pd.training.checkpoints.checkpoint_folder import BEST_PATTERN
from d2pd.training.checkpoints.training_state import read_training

DIGITS = 12
"""Of a SHA-256, which tell files apart."""


_BEST_NAME = re.compile(r"model_best[\w.-]*\.pth", re.ASCII)
"""What a run calls its best models; whatever else has such a name is not of it."""


@dataclass(frozen=True)
class SavedWeights:
    """A file of weights.

    Attributes:
        name: Of the file.
        num_bytes: Its size.
        sha256: First digits of its SHA-256.
        iteration: The last one that was trained, from 0; None where the file does not say.
        metric: What chose it, and its value; None where nothing did.
        run: What ``describe_run`` gave when it was saved; empty where the file does not say.
    """

    name: str
    num_bytes: int
    sha256: str
    iteration: int | None = None
    metric: tuple[str, float] | None = None
    run: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Weights:
    """All weights that one may want of a run.

    Attributes:
        last: Where the training ended, or is; None where there are none that can be read.
        best: Those that a metric has chosen.
        faults: What is wrong with others, a sentence each.
    """

    last: SavedWeights | None = None
    best: tuple[SavedWeights, ...] = ()
    faults: tuple[str, ...] = ()

    def of_iteration(self, iteration: int | None) -> SavedWeights | None:
        """Return the file of the weights after an iteration; the last before the best."""
        files = [self.last, *self.best] if self.last else [*self.best]
        return next(
            (file for file in files if iteration is not None and file.iteration == iteration), None
        )


def read_saved_weights(output_dir: Path) -> Weights:
    """Read what the newest whole checkpoint and the best models say; nothing in them is run."""
    faults: list[str] = []
    last = None
    try:
        choice = choose_checkpoint(output_dir, needs=())
        faults += choice.passed_over
        iteration = choice.iteration if choice.iteration >= 0 else None
        last = SavedWeights(*_file(choice.path), iteration, None, choice.run)
    except MissingFileError:
        faults.append("no model_final.pth and no checkpoint is in this folder")
    except UserError as error:
        faults.append(str(error).removeprefix("cannot resume: "))
    best = []
    for path in filter(_is_best, sorted(output_dir.glob(BEST_PATTERN))):
        try:
            _, rest = read_training(path, ())
        except UserError as error:
            faults.append(f"{path.name}: {error}")
            continue
        run = rest.get("run")
        best.append(
            SavedWeights(
                *_file(path),
                rest.get("iteration"),
                _metric(rest.get("metric")),
                run if isinstance(run, Mapping) else None,
            )
        )
    return Weights(last, tuple(best), tuple(faults))


def _is_best(path: Path) -> bool:
    return _BEST_NAME.fullmatch(path.name) is not None


def _file(path: Path) -> tuple[str, int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.name, path.stat().st_size, digest[:DIGITS]


def _metric(found: Any) -> tuple[str, float] | None:
    if not isinstance(found, Mapping) or not isinstance(found.get("value"), float):
        return None
    return str(found.get("name")), found["value"]
