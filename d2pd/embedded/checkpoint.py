"""Saves and loads a model together with what else makes up a run."""

from pathlib import Path
from typing import Any

import torch
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from d2pd.embedded import comm
from d2pd.errors import MissingFileError, WeightsError


class DetectionCheckpointer(Checkpointer):
    """fvcore's checkpointer that writes on the main process only and never unpickles freely.

    Reads torch files, ``{"model": state_dict, ...}`` or a plain state_dict. Files of other makes
    are for ``d2pd.training.checkpoints.checkpointer``.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        """Set up.

        Args:
            model: Saved under ``model``.
            save_dir: Folder of the checkpoints and of ``last_checkpoint``.
            save_to_disk: None writes on the main process only.
            checkpointables: Objects with ``state_dict`` and ``load_state_dict``, saved by name.
        """
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a file into the model and the checkpointables.

        Args:
            path: File or URL; empty loads nothing.
            checkpointables: Names to load; None for all.

        Returns:
            What else the file holds, such as ``iteration``.

        Raises:
            MissingFileError: If the file is not there.
            WeightsError: If it cannot be read.
        """
        if path and "://" not in path and not Path(path).is_file():
            raise MissingFileError(f"checkpoint {path} does not exist")
        return super().load(path, checkpointables)

    def _load_file(self, f: str) -> dict[str, Any]:
        try:
            loaded = torch.load(f, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a file that is not its own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(
                f"{f} is not a torch file that can be read safely: {reason}"
            ) from error
        return loaded if "model" in loaded else {"model": loaded}

    def _load_model(self, checkpoint: Any) -> Any:
        incompatible = super()._load_model(checkpoint)
        # Buffers that a model computes itself: older files have or lack them.
        for key in list(incompatible.missing_keys):
            if key in ("pixel_mean", "pixel_std"):
                incompatible.missing_keys.remove(key)
        for key in list(incompatible.unexpected_keys):
            if "anchor_generator.cell_anchors" in key:
                incompatible.unexpected_keys.remove(key)
        return incompatible
