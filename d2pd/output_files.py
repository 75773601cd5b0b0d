"""Files that a command writes: where it may, and how."""

import os
from collections.abc import Sequence
from pathlib import Path

from d2pd.atomic_file import atomic_file, partial_path
from d2pd.errors import ConfigError, UserError


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
        for other in inputs:  # what lies where a file is until it is whole would go too
            if _is_same(path, other) or _is_same(partial_path(path), other):
                raise ConfigError(f"{path}: this is one of the files to read; write to another")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise ConfigError(f"{path}: {folder} is a file, not a folder; write to another")


def check_free(outputs: Sequence[Path], *, force: bool) -> None:
    """Refuse to replace files unasked.

    Args:
        outputs: Files to write.
        force: Whether files there may be replaced.

    Raises:
        ConfigError: If one is there, a link to nowhere too.
    """
    for path in outputs:
        if os.path.lexists(path) and not force:
            raise ConfigError(f"{path} exists; name another file, or add --force to replace it")


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all; folders are made.

    Args:
        path: What lies there is replaced, once the new file is whole.
        content: Text becomes UTF-8; half a character, as a name may hold, an escape of it.

    Raises:
        UserError: If it cannot be written: the disk is full, or a folder has the name.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): make room there, or choose another "
            "folder"
        ) from error


def real_path(path: Path) -> Path:
    """Return a path without links; one of links that lead to themselves is kept."""
    return Path(os.path.realpath(path))  # resolve() raises for those


def _is_same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return real_path(path) == real_path(other)
