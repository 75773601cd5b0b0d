"""Text that is on the disk once it is appended."""

import os
from pathlib import Path

from d2pd.errors import UserError


def append_text(path: Path, text: str) -> None:
    """Append to a file and wait until the disk has it; the file is made if it is not there.

    Raises:
        UserError: If it cannot be written: the disk is full, or the folder is gone.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return what tells the user that a file of the log cannot be written, and what to do."""
    return UserError(
        f"cannot write {path} ({error.strerror or error}): make room there, then go on from the "
        "newest checkpoint with --resume"
    )
