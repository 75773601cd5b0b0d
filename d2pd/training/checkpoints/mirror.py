"""A second folder that follows the first, such as a mounted Google Drive."""

import logging
import os
from pathlib import Path

from d2pd.atomic_file import copy_file, remove_partials
from d2pd.errors import ConfigError, WeightsError
from d2pd.training.checkpoints.archive import check_archive, read_seal
from d2pd.training.checkpoints.checkpoint_folder import BEST_PATTERN, PATTERN, prune, write_tag

logger = logging.getLogger(__name__)

SMALL_FILES = (
    "metrics.json",
    "results.json",
    "config.yaml",
    "run.log",
    "curves.png",
    "wandb_id",
)


class Mirror:
    """Copies the newest checkpoint and the best models, and never stops a training.

    A copy gets its name once it was read back. What goes wrong is one warning, and another one when
    the reason changes; each save tries again and brings all that is missing.

    Args:
        folder: Made if its parent is there, the first time only: a folder made where a drive was
            mounted would be a copy on the same disk.
        source: ``OUTPUT_DIR``.
        keep: Number of numbered checkpoints that stay; 0 for all.
    """

    def __init__(self, folder: str | Path, source: str | Path, keep: int) -> None:
        self.folder = Path(folder)
        self.source = Path(source)
        self.keep = keep
        self._newest: tuple[str, int] | None = None
        self._mount: Path | None = None
        self._failure = ""
        self._damaged: set[str] = set()

    def finish(self) -> None:
        """Bring the mirror to the state of the folder for the last time, and say if that fails."""
        if not self.follow():
            logger.warning(
                "The run is over, and the mirror %s lacks what came last: it is whole in %s, copy "
                "it by hand",
                *(self.folder, self.source),
            )

    def follow(self, newest: str | None = None, iteration: int = 0) -> bool:
        """Bring the mirror to the state of the folder.

        Args:
            newest: Name of the checkpoint just written; None after another file.
            iteration: That of ``newest``.

        Returns:
            Whether everything was copied.
        """
        if newest is not None:
            self._newest = (newest, iteration)
        try:
            self._check_folder()
            self._copy()
        except OSError as error:
            self._warn_of(error)
            return False
        if self._failure:
            logger.info("The mirror %s is up to date again", self.folder)
        self._failure = ""
        return True

    def _warn_of(self, error: OSError) -> None:
        reason = error.strerror or str(error)  # without the file, which is another one each time
        if reason != self._failure:
            logger.warning(
                "The mirror %s is not up to date (%s): training goes on, and each save tries again",
                *(self.folder, error),
            )
        self._failure = reason

    def _check_folder(self) -> None:
        if self._mount is None:
            if self.folder.exists() and not self.folder.is_dir():
                raise OSError("it is not a folder")
            self.folder.mkdir(exist_ok=True)
            self._mount = _mount_of(self.folder)
        if not self.folder.is_dir():
            raise OSError("there is no such folder")
        if _mount_of(self.folder) != self._mount:
            raise OSError(f"{self._mount} is not mounted")

    def _copy(self) -> None:
        remove_partials(self.folder, PATTERN)
        names = [] if self._newest is None else [self._newest[0]]
        names += [path.name for path in sorted(self.source.glob(BEST_PATTERN))]
        for name in names:
            if self._is_to_copy(name):
                copy_file(self.source / name, self.folder / name)
        if self._newest is not None:
            write_tag(self.folder, self._newest[0])
        for name in SMALL_FILES:
            if (self.source / name).is_file():
                copy_file(self.source / name, self.folder / name)
        if self._newest is not None:
            prune(self.folder, self.keep, self._newest[1])

    def _is_to_copy(self, name: str) -> bool:
        """Tell whether a checkpoint is whole and not in the mirror yet."""
        source = self.source / name
        try:
            seal = read_seal(source)
            if seal is not None and _has_seal(self.folder / name, seal, source.stat().st_size):
                return False
            check_archive(source)
        except WeightsError as error:
            if str(error) not in self._damaged:
                logger.warning("Not copied to the mirror: %s", error)
            self._damaged.add(str(error))
            return False
        return True


def check_mirror(folder: str | Path, source: str | Path) -> None:
    """Check before a run that a mirror is a folder of its own, and is there or can be made.

    Raises:
        ConfigError: If it is ``source`` itself, a file, or would lie in a folder that is not there.
    """
    mirror = Path(folder)
    if os.path.realpath(mirror) == os.path.realpath(source):  # which stands a loop of links
        raise ConfigError(f"CHECKPOINT.MIRROR_DIR {mirror} is OUTPUT_DIR itself: name another one")
    if os.path.lexists(mirror) and not mirror.is_dir():  # a link to nowhere is no folder either
        raise ConfigError(f"CHECKPOINT.MIRROR_DIR {mirror} is not a folder: name another one")
    if not mirror.exists() and not mirror.absolute().parent.is_dir():
        raise ConfigError(
            f"CHECKPOINT.MIRROR_DIR {mirror}: there is no folder {mirror.absolute().parent}; mount "
            "the drive, or make the folder, so that no copy goes to a disk that was not meant"
        )


def _mount_of(folder: Path) -> Path:
    """Return where the file system of a folder is mounted."""
    place = folder.resolve()
    return next(path for path in (place, *place.parents) if os.path.ismount(path))


def _has_seal(path: Path, seal: bytes, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size and read_seal(path) == seal
    except WeightsError:
        return False
