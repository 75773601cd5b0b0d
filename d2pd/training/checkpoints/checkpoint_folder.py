"""The checkpoints of a folder: their names, their order, and which ones go."""

import re
from collections.abc import Iterable
from pathlib import Path

from d2pd.atomic_file import atomic_file

TAG = "last_checkpoint"
FINAL = "model_final.pth"
PATTERN = "model_*.pth"
BEST_PATTERN = "model_best*.pth"
_NUMBERED = re.compile(r"model_([0-9]+)\.pth")
_LONGEST_NAME = 255  # bytes, of what the usual file systems allow


def checkpoint_name(iteration: int) -> str:
    """Return the name of the checkpoint after an iteration, as Detectron2 has it."""
    return f"model_{iteration:07d}.pth"


def iteration_in_name(name: str) -> int | None:
    """Return the iteration of a numbered checkpoint; None for any other name."""
    match = _NUMBERED.fullmatch(name)
    return int(match[1]) if match else None


def find_checkpoints(folder: str | Path) -> list[Path]:
    """Return what a training could go on from: numbered checkpoints, newest first, and the final.

    Args:
        folder: One that is not there, or is empty text, holds none.

    Raises:
        OSError: If it cannot be listed.
    """
    if not str(folder) or not Path(folder).is_dir():
        return []
    paths = list(Path(folder).glob(PATTERN))
    numbered = sorted(_numbered(paths), key=lambda entry: entry[0], reverse=True)
    return [path for path in paths if path.name == FINAL] + [path for _, path in numbered]


def write_tag(folder: Path, name: str) -> None:
    """Name the newest checkpoint in ``last_checkpoint``, which Detectron2 goes on from."""
    with atomic_file(folder / TAG) as file:
        file.write(name.encode())


def read_tag(folder: str | Path) -> str:
    """Return the name in ``last_checkpoint``; empty where there is none, or no name in it."""
    path = Path(folder) / TAG
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            name = file.read(_LONGEST_NAME + 1).decode(errors="replace").strip()
    except OSError:
        return ""
    is_name = name.isprintable() and name == Path(name).name and "\\" not in name
    return name if is_name and len(name) <= _LONGEST_NAME else ""


def prune(folder: Path, keep: int, newest: int) -> None:
    """Delete old numbered checkpoints.

    Args:
        folder: The final model, the best ones and all other files stay.
        keep: Number of checkpoints that stay; 0 for all.
        newest: Iteration of the checkpoint just written. Those of later iterations, which a resume
            has passed over, neither count nor go.

    Raises:
        OSError: If one cannot be deleted.
    """
    if not keep:
        return
    numbered = [entry for entry in _numbered(folder.glob(PATTERN)) if entry[0] <= newest]
    for _, path in sorted(numbered, key=lambda entry: entry[0], reverse=True)[keep:]:
        path.unlink(missing_ok=True)


def _numbered(paths: Iterable[Path]) -> list[tuple[int, Path]]:
    pairs = ((iteration_in_name(path.name), path) for path in paths)
    return [(iteration, path) for iteration, path in pairs if iteration is not None]
