"""Files that are either whole or not there."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_CHUNK = 1 << 20  # bytes


@contextlib.contextmanager
def atomic_file(
    path: Path, verify: Callable[[Path], object] | None = None
) -> Iterator[io.BufferedRandom]:
    """Open a file for writing that takes its name only once it is whole and on the disk.

    A kill at any moment leaves the old content, or the new; at worst a ``.part`` file beside it,
    which the next write of the same name and ``remove_partials`` clear away.

    Args:
        path: Its folder must exist; what lies there is replaced.
        verify: Called with the temporary file, closed and on the disk; what it raises keeps the
            old content in place.
    """
    partial = partial_path(path)
    try:
        partial.unlink(missing_ok=True)  # never through a link that someone laid there
        with partial.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if verify is not None:
            verify(partial)
        os.replace(partial, path)
    except BaseException:  # also Ctrl-C: the half file goes, the reason stays
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; the copy takes its name once it was read back and is the same.

    Args:
        source: It may grow meanwhile: what was read is what the copy is compared with.
        target: Its folder must exist; what lies there is replaced.

    Raises:
        OSError: If one cannot be read or written, or what comes back is not what was written.
    """
    written = hashlib.sha256()
    size = 0

    def verify(partial: Path) -> None:
        with partial.open("rb") as copy:
            read = hashlib.file_digest(copy, "sha256")
        if partial.stat().st_size != size or read.digest() != written.digest():
            raise OSError(f"what {target.parent} gives back of {target.name} is not what it got")

    with source.open("rb") as original, atomic_file(target, verify) as file:
        while chunk := original.read(_CHUNK):
            file.write(chunk)
            written.update(chunk)
            size += len(chunk)


def partial_path(path: Path) -> Path:
    """Return where a file lies until it is whole."""
    return path.with_name(f".{path.name}.part")


def remove_partials(folder: Path, pattern: str) -> None:
    """Delete what kills have left of half-written files.

    Args:
        folder: Nobody else may be writing these files there.
        pattern: Of the names that the files would have got, such as ``model_*.pth``.
    """
    for partial in folder.glob(partial_path(Path(pattern)).name):
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Makes the new name survive a power cut. Network drives and Windows know no such call.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
