"""Names of drawings: inside their folder, and none twice."""

import re
import unicodedata
from pathlib import PurePosixPath

MOST_BYTES = 150
"""Of a folder's or a file's name; systems take 255, and a number or a suffix may be added."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')

Key = tuple[str, ...]


def picture_name(name: str) -> PurePosixPath:
    """Return the relative path of a drawn picture; any but JPEG and PNG get ``.png`` added."""
    path = _inside(name)
    is_kept = path.suffix.lower() in (".jpg", ".jpeg", ".png")
    return path if is_kept else path.with_name(f"{path.name}.png")


def video_name(name: str) -> PurePosixPath:
    """Return the name of a drawn video."""
    return PurePosixPath(f"{_inside(name).stem}.mp4")


def _inside(name: str) -> PurePosixPath:
    """Return a path that stays below where it starts, of names that any system takes."""
    parts = name.replace("\\", "/").split("/")
    kept = [_safe(part) for part in parts if part not in ("", ".", "..")]
    return PurePosixPath(*(kept or ["_"]))


def _safe(part: str) -> str:
    """Return a name without odd characters; too long a one keeps its suffix."""
    part = _UNSAFE.sub("_", part).strip() or "_"
    part = part if part.strip(".") else "_"
    suffix = PurePosixPath(part).suffix
    suffix = suffix if len(suffix) <= 8 else ""
    stem = part.removesuffix(suffix)
    while len(f"{stem}{suffix}".encode(errors="surrogatepass")) > MOST_BYTES:
        stem = stem[:-1]
    return f"{stem}{suffix}"


class UniqueNames:
    """Gives each path that is asked for once, and a numbered one the next time.

    Names that differ in case or in Unicode spelling alone count as the same: some systems take
    them for the same.
    """

    def __init__(self) -> None:
        self._files: set[Key] = set()
        self._folders: set[Key] = set()
        self._numbers: dict[Key, int] = {}

    def claim(self, path: PurePosixPath) -> PurePosixPath:
        """Return this path, or one like it, that no earlier call has returned or lies below."""
        parts: list[str] = []
        for part in path.parts[:-1]:
            number = 2
            name = part
            while _key([*parts, name]) in self._files:
                name, number = _numbered(part, number), number + 1
            parts.append(name)
            self._folders.add(_key(parts))
        key = _key([*parts, path.name])
        number = self._numbers.get(key, 2)
        name = path.name
        while _key([*parts, name]) in self._files or _key([*parts, name]) in self._folders:
            name, number = _numbered(path.name, number), number + 1
        self._numbers[key] = number
        self._files.add(_key([*parts, name]))
        return PurePosixPath(*parts, name)


def _numbered(name: str, number: int) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}_{number}{path.suffix}"


def _key(parts: list[str]) -> Key:
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)
