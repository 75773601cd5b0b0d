"""Where the drawing of each source goes, and that nothing of the user's lies there."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from d2pd.errors import ConfigError
from d2pd.inference.predict.names import UniqueNames, picture_name, video_name
from d2pd.inference.predict.pairing import Source

PICTURE_FOLDER = "pictures"


def choose_targets(sources: Sequence[Source], folder: Path) -> dict[Source, Path]:
    """Return the file that each source is drawn into; no two are the same.

    Args:
        sources: Pictures go into ``pictures``, with their folders, videos beside it.
        folder: Of all results.
    """
    pictures, videos = UniqueNames(), UniqueNames()
    targets = {}
    for source in sources:
        if source.is_video:
            targets[source] = folder / videos.claim(video_name(source.name))
        else:
            name = pictures.claim(picture_name(source.name))
            targets[source] = folder / PICTURE_FOLDER / name
    return targets


def check_no_input(targets: Mapping[Source, Path], sources: Iterable[Source]) -> None:
    """Refuse to draw over a file that is to be read.

    Raises:
        ConfigError: If a target is one, by whatever path.
    """
    paths = [path for source in sources for path in source.paths]
    inputs = {os.path.realpath(path) for path in paths}
    places = {place for path in paths if (place := _place(path)) is not None}
    for target in targets.values():
        if os.path.realpath(target) in inputs or _place(target) in places:
            raise ConfigError(
                f"{target}: this is one of the files to read; name another folder with --output DIR"
            )


def _place(path: str | Path) -> tuple[int, int] | None:
    """Return what two names of one file have in common; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
