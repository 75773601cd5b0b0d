"""Writes one checkpoint, whole or not at all."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from d2pd.atomic_file import atomic_file, remove_partials
from d2pd.errors import UserError, WeightsError
from d2pd.training.checkpoints.archive import seal_archive
from d2pd.training.checkpoints.checkpoint_folder import PATTERN, write_tag
from d2pd.training.checkpoints.plain_data import plain
from d2pd.training.checkpoints.training_state import read_training
from d2pd.training.weights.numpy_pickle import WAY_OUT

logger = logging.getLogger(__name__)


def write_checkpoint(
    path: Path,
    model_state: Mapping[str, Any],
    rest: Mapping[str, Any],
    *,
    needs: Sequence[str] = (),
    tag: bool = False,
) -> None:
    """Write a checkpoint, read it back, and only then give it its name.

    Args:
        path: Its folder is made if it is not there. What lies there stays until the end.
        model_state: The weights, stored under ``model``.
        rest: What else it holds, by keys; becomes plain data.
        needs: Keys of ``rest`` without which a training could not go on from it.
        tag: Whether ``last_checkpoint`` is to name it.

    Raises:
        UserError: If it cannot be written, or is not whole when read back; what lay there before
            is still there.
        TypeError: If ``rest`` holds something that could not be read again.
    """
    content = {key: plain(value, key) for key, value in rest.items()}
    logger.info("Saving checkpoint to %s", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partials(path.parent, PATTERN)
        with atomic_file(path, lambda partial: _verify(partial, path, needs)) as file:
            torch.save({"model": model_state, **content}, file)
            seal_archive(file)
        if tag:
            write_tag(path.parent, path.name)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot write the checkpoint {path} ({_reason(error)}): make room or choose another "
            "OUTPUT_DIR; the checkpoint before it is still whole"
        ) from error


def _verify(partial: Path, path: Path, needs: Sequence[str]) -> None:
    try:
        read_training(partial, needs)
    except WeightsError as error:
        fault = str(error).removeprefix(str(partial)).removesuffix(f": {WAY_OUT}").strip()
        raise UserError(
            f"the checkpoint {path} is not kept, because what was written {fault}; the checkpoint "
            "before it is still whole"
        ) from error


def _reason(error: Exception) -> object:
    # torch's writer turns a full disk into a RuntimeError about positions.
    return error.__context__ if isinstance(error.__context__, OSError) else error
