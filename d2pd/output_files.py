"""Where a command may write, seen before anything is computed."""

import os
from collections.abc import Sequence
from pathlib import Path

from d2pd.errors import ConfigError


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuse files that cannot be written, or that are to be read.

    Args:
        outputs: Files to write; their folders need not exist.
        inputs: Files that stay as they are.

    Raises:
        ConfigError: If an output is a folder, lies below a file, or is an input by whatever path.
    """
    for path in outputs:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: this is no file that could be replaced; name another")
        if any(_is_same(path, other) for other in inputs):
            raise ConfigError(f"{path}: this is one of the files to read; write to another")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise ConfigError(f"{path}: {folder} is a file, not a folder; write to another")


def real_path(path: Path) -> Path:
    """Return a path without links; one of links that lead to themselves is kept."""
    return Path(os.path.realpath(path))  # resolve() raises for those


def _is_same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return real_path(path) == real_path(other)
