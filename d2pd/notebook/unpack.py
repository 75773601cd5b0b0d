"""A zip file of Drive on the disk of the machine: reading many small files from Drive is slow."""

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from d2pd.errors import MissingFileError, UserError

CHUNK = 1 << 20  # bytes
RESERVE = 200 << 20  # bytes of disk that stay free

UNFINISHED = "upload it again, and wait until the upload is finished"


def unpack(zip_path: str | Path, folder: str | Path) -> Path:
    """Unpack a zip file, once: what is there already and the same is left.

    Every file is checked against its sum in the zip, and has its name only when it is whole.

    Args:
        zip_path: The file.
        folder: Made if it is not there; files of it that are not in the zip stay.

    Returns:
        ``folder``.

    Raises:
        MissingFileError: If there is no zip file.
        UserError: If it is damaged or encrypted, would write outside of the folder, would replace
            another file there, or does not fit on the disk. A second call goes on.
    """
    source, target = Path(zip_path), Path(folder)
    if not source.is_file():
        raise MissingFileError(f"{source}: no such zip file")
    try:
        with zipfile.ZipFile(source) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            mark = _mark(source, target)
            if mark.is_file() and mark.read_text(encoding="utf-8") == _sums(members):
                print(f"{source.name} is unpacked in {target} already: {len(members):,} files.")
                return target
            _check_names(source, members)
            _check_space(source, members, target)
            for member in tqdm(members, desc=f"unpacking {source.name}", unit="file"):
                _extract(archive, member, target / member.filename)
            mark.write_text(_sums(members), encoding="utf-8")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{source} is no whole zip file ({error}): {UNFINISHED}") from error
    except (NotImplementedError, RuntimeError) as error:  # a password, a rare compression
        raise UserError(f"{source} cannot be unpacked ({error}): pack it anew, plainly") from error
    except OSError as error:
        raise UserError(
            f"{source} cannot be unpacked into {target} ({error}): make room, or mount Drive anew, "
            "and call again: it goes on"
        ) from error
    print(f"Unpacked {source.name} into {target}: {len(members):,} files, each checked.")
    return target


def _mark(source: Path, target: Path) -> Path:
    """Return the file that says what is unpacked in a folder."""
    return target / f".{source.name}.unpacked"


def _sums(members: list[zipfile.ZipInfo]) -> str:
    sums = 0
    for member in members:
        sums = zlib.crc32(f"{member.filename} {member.file_size} {member.CRC}".encode(), sums)
    return f"{len(members)} files, {sums:08x}\n"


def _check_names(source: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise UserError(
                f"{source}: {member.filename!r} would be written outside of the folder; nothing "
                "was unpacked: pack the files anew, with names that start in one folder"
            )


def _check_space(source: Path, members: list[zipfile.ZipInfo], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    missing = [member for member in members if not (target / member.filename).exists()]
    needed = sum(member.file_size for member in missing) + RESERVE
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(
            f"{source} needs {needed / 2**30:.1f} GiB in {target} and {free / 2**30:.1f} GiB are "
            "free; nothing was unpacked: make room, or pack fewer files"
        )


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    if path.exists():
        if not path.is_file() or _crc(path) != member.CRC:
            raise UserError(
                f"{path} is there already and not the same as in {archive.filename}: unpack into "
                "another folder, or move it away"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    with archive.open(member) as packed, partial.open("wb") as file:
        shutil.copyfileobj(packed, file, CHUNK)  # raises at the end where the sum is another one
    partial.replace(path)


def _crc(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found = zlib.crc32(chunk, found)
    return found
