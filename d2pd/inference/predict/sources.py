"""The files that words of a command line stand for: pictures, videos, folders, patterns."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from d2pd.errors import ConfigError, MissingFileError
from d2pd.output_files import real_path

PICTURES = (
    ".avif", ".bmp", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
VIDEOS = (
    ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
"""Suffixes that tell what a file is; a GIF is a video of one frame or more."""


@dataclass(frozen=True)
class Found:
    """A picture or video that was named, or found in a folder.

    Attributes:
        path: The file, as the command line leads to it.
        name: Path under what all inputs have in common: what its drawing is called by.
        group: Which word of the command line it comes from.
        is_named: Whether that word is the file itself.
        within: Path under the folder or the pattern's fixed part; its file name where it is named.
    """

    path: str
    name: str
    group: int
    is_named: bool
    within: str


@dataclass(frozen=True)
class Inputs:
    """All that the words of a command line stand for.

    Attributes:
        files: In the order of the words, sorted within each; none twice.
        unreadable: What could not be looked into, and why.
    """

    files: list[Found]
    unreadable: list[str]


def is_video(path: str) -> bool:
    """Tell a video by its suffix."""
    return PurePath(path).suffix.lower() in VIDEOS


def find_inputs(words: Sequence[str], output: Path) -> Inputs:
    """Find the files that words stand for.

    Args:
        words: Files, folders (searched to their depth; hidden files are passed over) and patterns.
        output: Folder of results: what lies in it is no input, unless it is named.

    Raises:
        MissingFileError: If one is not there, matches nothing or holds no picture and no video.
        ConfigError: If a file is neither by its suffix, or a folder is ``output`` itself.
    """
    search = _Search(output)
    found: list[tuple[int, str, str, bool]] = []
    roots = []
    for group, word in enumerate(words):
        root, paths, is_named = search.look(word)
        roots.append(os.path.abspath(root))
        found += [(group, root, path, is_named) for path in paths]
    shared = _shared_folder(roots)
    files: dict[str, Found] = {}
    for group, root, path, is_named in found:
        name = os.path.relpath(os.path.abspath(path), shared or os.path.abspath(root))
        within = os.path.relpath(path, root)
        files.setdefault(os.path.realpath(path), Found(path, name, group, is_named, within))
    return Inputs(list(files.values()), search.unreadable)


def _shared_folder(roots: Sequence[str]) -> str | None:
    try:
        return os.path.commonpath(roots)
    except ValueError:  # drives of Windows have nothing in common
        return None


class _Search:
    """Finds pictures and videos, and remembers what it could not look into."""

    def __init__(self, output: Path) -> None:
        self._output = real_path(output)
        self.unreadable: list[str] = []

    def look(self, word: str) -> tuple[str, list[str], bool]:
        """Return where a word's files are found, the files, and whether it names one itself."""
        if os.path.isdir(word):
            return word, self._files_of(word), False
        if os.path.lexists(word):
            return os.path.dirname(word) or ".", [_named_file(word)], True
        if glob.has_magic(word):
            return self._matches(word)
        raise MissingFileError(f"{word}: no such file or folder (looked from {Path.cwd()})")

    def _matches(self, pattern: str) -> tuple[str, list[str], bool]:
        fixed = pattern[: next(at for at, sign in enumerate(pattern) if sign in "*?[")]
        paths: list[str] = []
        for match in sorted(glob.glob(pattern, recursive=True)):
            if os.path.isdir(match):
                if "**" not in pattern:  # which matches what is in the folder too
                    paths += self._walk(match)
            elif _is_known(match) and not self._is_result(match):
                paths.append(match)
        if not paths:
            raise MissingFileError(
                f"{pattern}: matches no picture and no video (looked from {Path.cwd()}); ** stands "
                "for folders of any depth"
            )
        return os.path.dirname(fixed) or ".", paths, False

    def _files_of(self, folder: str) -> list[str]:
        if real_path(Path(folder)) == self._output:
            raise ConfigError(
                f"{folder}: results would be written among what is to be read; name another folder "
                "with --output DIR"
            )
        paths = list(self._walk(folder))
        if not paths:
            reason = f"; {self.unreadable[0]}" if self.unreadable else ""
            raise MissingFileError(f"{folder}: there is no picture and no video in it{reason}")
        return paths

    def _walk(self, folder: str) -> Iterator[str]:
        """Yield the files below a folder; links are followed, each real folder is seen once."""
        seen: set[str] = set()
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            real = os.path.realpath(here)
            if real in seen or real == str(self._output):
                continue
            seen.add(real)
            try:
                names = sorted(name for name in os.listdir(here) if not name.startswith("."))
            except OSError as error:
                self.unreadable.append(f"{here}: cannot be looked into ({error.strerror})")
                continue
            paths = [os.path.join(here, name) for name in names]
            yield from (path for path in paths if _is_known(path) and not os.path.isdir(path))
            waiting += [path for path in reversed(paths) if os.path.isdir(path)]

    def _is_result(self, path: str) -> bool:
        return self._output in real_path(Path(path)).parents


def _is_known(path: str) -> bool:
    return PurePath(path).suffix.lower() in PICTURES + VIDEOS


def _named_file(path: str) -> str:
    if not os.path.exists(path):
        raise MissingFileError(f"{path}: a link that leads to no file; mend it")
    if not os.path.isfile(path):
        raise MissingFileError(f"{path}: a pipe or device; save it to a file")
    if not _is_known(path):
        known = " ".join(PICTURES + VIDEOS)
        raise ConfigError(
            f"{path}: neither a picture nor a video by its name; such names end in {known}"
        )
    return path
