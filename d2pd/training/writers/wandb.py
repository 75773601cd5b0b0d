"""Weights & Biases: the numbers and pictures of a run on its server, where that is wanted."""

import importlib
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d2pd.atomic_file import atomic_file
from d2pd.d2 import CfgNode, EventWriter, get_event_storage
from d2pd.errors import ConfigError
from d2pd.training.writers.appended_file import cannot_write
from d2pd.training.writers.new_scalars import new_scalars

logger = logging.getLogger(__name__)

ID_FILE = "wandb_id"
FINISH_TIMEOUT = "120"
"""Seconds that the end of a run waits for uploads; what is left can be sent by `wandb sync`."""


def check_wandb(cfg: CfgNode) -> None:
    """Check that the package is there where ``WANDB.ENABLED`` asks for it.

    Raises:
        ConfigError: If it is not.
    """
    if cfg.WANDB.ENABLED:
        import_wandb()


def import_wandb() -> Any:
    """Import the package late: it is optional, and costs time.

    Raises:
        ConfigError: If it is not installed, or cannot be imported.
    """
    try:
        module = importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(f"WANDB.ENABLED is True, but {error}: {_WAYS_OUT}") from error
    if not hasattr(module, "init"):  # the folder that runs leave behind is importable, and empty
        raise ConfigError(
            f"WANDB.ENABLED is True, but {next(iter(module.__path__))} is a folder of "
            f"results and hides the package: {_WAYS_OUT}"
        )
    return module


_WAYS_OUT = "pip install wandb, or set WANDB.ENABLED False"


class WandbWriter(EventWriter):
    """Sends scalars and pictures to Weights & Biases, by iteration.

    A failing network never stops the training: where no run can be opened, what would be sent is
    kept in ``<folder>/wandb`` for ``wandb sync``. A resume goes on with the run whose id is in
    ``<folder>/wandb_id``; what the server has of later iterations stays, as it cannot be taken
    back. Comes before TensorBoard's writer, which clears the pictures.

    Args:
        folder: Output folder of the training.
        project: Of Weights & Biases.
        name: Of the run there; empty lets the server choose.
        config: Shown with the run.
        keep_through: Last iteration that was sent before a resume; None for a run that starts.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        project: str,
        name: str,
        config: Mapping[str, Any],
        keep_through: int | None,
    ) -> None:
        self._wandb = import_wandb()
        self._last_write = -1 if keep_through is None else keep_through
        self._has_warned = False
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", FINISH_TIMEOUT)
        settings = {
            "project": project,
            "name": name or None,
            "id": run_id(Path(folder), is_resumed=keep_through is not None),
            "resume": "allow",
            "dir": str(folder),
            "config": dict(config),
        }
        self._run = self._open(settings)
        if self._run is not None:
            # The server takes no step twice; what it has is what would be sent again.
            self._last_write = max(self._last_write, (self._run.step or 0) - 1)

    def write(self) -> None:
        """Send the scalars that are newer than the last ones, and all pictures."""
        storage = get_event_storage()
        rows: dict[int, dict[str, Any]] = dict(new_scalars(storage, self._last_write))
        if self._run is None:
            return
        for name, image, iteration in storage._vis_data:
            if iteration > self._last_write:
                pixels = np.asarray(image).transpose(1, 2, 0)
                rows.setdefault(iteration, {})[name] = self._wandb.Image(pixels)
        for iteration, row in sorted(rows.items()):
            try:
                self._run.log(row, step=iteration)
            except Exception as error:  # whatever it is, training goes on
                self._warn(error)
        self._last_write = max(rows, default=self._last_write)

    def close(self) -> None:
        """Send what is left."""
        if self._run is not None:
            try:
                self._run.finish()
            except Exception as error:  # whatever it is, the training is done
                self._warn(error)

    def _open(self, settings: dict[str, Any]) -> Any:
        try:
            return self._wandb.init(**settings)
        except Exception as error:  # no network, no key: the training is worth more
            logger.warning(
                "Weights & Biases cannot be reached (%s): what it would get is kept in %s; send "
                "it with `wandb login` and `wandb sync`",
                *(_one_line(error), Path(settings["dir"]) / "wandb"),
            )
        try:
            self._wandb.teardown()  # else the id counts as in use
            return self._wandb.init(**settings, mode="offline")
        except Exception as error:
            self._warn(error)
            return None

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            logger.warning("Weights & Biases does not get everything: %s", _one_line(error))
            self._has_warned = True


def run_id(folder: Path, *, is_resumed: bool) -> str:
    """Return the id of the run in a folder; a new one, kept there, for a run that starts.

    Raises:
        UserError: If it cannot be written.
    """
    path = folder / ID_FILE
    if is_resumed and path.is_file():
        known = path.read_text(encoding="utf-8").strip()
        if known:
            return known
    new = secrets.token_hex(4)
    try:
        with atomic_file(path) as file:
            file.write(new.encode())
    except OSError as error:
        raise cannot_write(path, error) from error
    return new


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
