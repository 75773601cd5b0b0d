"""Archives as ``torch.save`` writes them, sealed, so that one wrong byte anywhere is found.

A zip file has a checksum for each of its entries, and none for its headers, its directory and the
padding between. The seal is a digest of the whole file in the comment at its end, which torch and
Detectron2 pass over.
"""

import hashlib
import io
import os
import struct
import zipfile
from pathlib import Path

from d2pd.errors import WeightsError
from d2pd.training.weights.numpy_pickle import WAY_OUT

ZIP_MAGIC = b"PK\x03\x04"
_END_MAGIC = b"PK\x05\x06"
_END_SIZE = 22  # bytes of the last record; its last two are the length of the comment
_MARK = b"d2pd sha256 "
_DIGEST_SIZE = 64  # hexadecimal digits
_SEAL_SIZE = len(_MARK) + _DIGEST_SIZE
_CHUNK = 1 << 20  # bytes


def seal_archive(file: io.BufferedRandom) -> None:
    """Append the digest of a finished archive to it.

    Args:
        file: An archive without a comment, opened for reading and writing.

    Raises:
        ValueError: If it is something else.
    """
    file.seek(-_END_SIZE, os.SEEK_END)
    end = file.read()
    if not end.startswith(_END_MAGIC) or end[-2:] != b"\0\0":
        raise ValueError("not an archive without a comment")
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", _SEAL_SIZE) + _MARK)
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256")
    file.seek(0, os.SEEK_END)
    file.write(digest.hexdigest().encode())


def read_seal(path: Path) -> bytes | None:
    """Return the digest that a file ends with; None for a whole archive without one.

    Two sealed files of one digest and size hold the same.

    Raises:
        WeightsError: If the file ends as no archive does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END_SIZE - _SEAL_SIZE))
        tail = file.read(_END_SIZE + _SEAL_SIZE)
    end, seal = tail[:_END_SIZE], tail[_END_SIZE:]
    is_noted = end.startswith(_END_MAGIC) and end[-2:] == struct.pack("<H", _SEAL_SIZE)
    if is_noted and seal.startswith(_MARK):
        return seal.removeprefix(_MARK)
    if tail[-_END_SIZE:].startswith(_END_MAGIC) and tail[-2:] == b"\0\0":
        return None
    raise WeightsError(
        f"{path} is cut off or damaged ({size:,} bytes; no archive ends so): {WAY_OUT}"
    )


def check_archive(path: Path) -> None:
    """Compare every checksum, which torch does not: it accepts a file with a flipped byte.

    Raises:
        WeightsError: If a byte is wrong, or the archive is not one that ``torch.save`` wrote.
    """
    seal = read_seal(path)
    is_plain, damaged = _test_entries(path)
    if damaged is not None:
        entry = damaged.partition("/")[2] or damaged
        raise WeightsError(f"{path} is damaged (checksum of {entry} differs): {WAY_OUT}")
    if seal is not None and _digest_without_itself(path) != seal:
        raise WeightsError(f"{path} is damaged (checksum of the whole file differs): {WAY_OUT}")
    if not is_plain:
        raise WeightsError(f"{path} is a compressed archive, which torch.save does not write")


def _test_entries(path: Path) -> tuple[bool, str | None]:
    """Tell whether all entries lie there uncompressed, and if so, which has a wrong checksum."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            is_stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            # Entries that overlap could take days to read.
            is_plain = is_stored and sum(entry.file_size for entry in entries) <= size
            return is_plain, archive.testzip() if is_plain else None
    except Exception as error:  # zipfile raises nearly anything on damaged headers
        raise WeightsError(
            f"{path} is cut off or damaged ({size:,} bytes; {error}): {WAY_OUT}"
        ) from error


def _digest_without_itself(path: Path) -> bytes:
    left = path.stat().st_size - _DIGEST_SIZE
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(min(_CHUNK, left)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest().encode()
