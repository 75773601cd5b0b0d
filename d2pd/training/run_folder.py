"""What a run leaves in its folder, for those who start another one there."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from d2pd.atomic_file import partial_path
from d2pd.errors import UserError

TRACES = ("last_checkpoint", "metrics.json", "results.json", "model_*.pth")
WRITTEN = (
    *TRACES,
    "events.out.tfevents.*",
    "config.yaml",
    "log.txt*",
    "run.log",
    "wandb",
    "wandb_id",
    "curves.png",
    "detections_*.png",
    "report.html",
    "model_card.md",
    "train_batch.png",
    "inference",
    "non_finite",
)
LEFTOVERS = (*WRITTEN, *(partial_path(Path(pattern)).name for pattern in WRITTEN))
"""What a run has written, whole or, where it was killed, half."""


def held_run(folder: str | Path) -> str | None:
    """Return the name of a file by which a folder holds a run; None where it holds none."""
    return next(iter(held_traces(folder)), None)


def held_traces(folder: str | Path) -> list[str]:
    """Return the names of all files by which a folder holds a run.

    An empty file does not count: it is of a run that ended before its first line.
    """
    found = _matches(Path(folder), TRACES)
    return [path.name for path in found if path.is_file() and path.stat().st_size]


def is_of_run(path: str | Path, folder: str | Path, mirror: str | Path = "") -> bool:
    """Tell whether a file is one that ``remove_run`` deletes."""
    places = [Path(place) for place in (folder, mirror) if str(place)]
    return any(
        Path(os.path.realpath(path)).is_relative_to(os.path.realpath(match))
        for place in places
        for match in _matches(place, LEFTOVERS)
    )


def remove_run(folder: str | Path, mirror: str | Path = "") -> None:
    """Delete what a run has written into its folder and mirror, and nothing else there.

    Args:
        folder: ``OUTPUT_DIR``; need not be there.
        mirror: ``CHECKPOINT.MIRROR_DIR``; empty for none.

    Raises:
        UserError: If something cannot be deleted.
    """
    for place in (folder, *([mirror] if mirror else [])):
        try:
            for path in _matches(Path(place), LEFTOVERS):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            raise UserError(
                f"--overwrite cannot delete the run in {place} ({error}): choose another OUTPUT_DIR"
            ) from error


def _matches(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]
