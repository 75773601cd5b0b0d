"""Where the pictures of a label file lie, and how large they are."""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from d2pd.data.annotations.labels import PathLike
from d2pd.errors import AnnotationError, MissingFileError

EXIF_ORIENTATION = 0x0112
TURNED_A_QUARTER = (5, 6, 7, 8)
"""EXIF orientations under which height and width change places; OpenCV applies them on reading."""


class FolderListing:
    """Remembers what folders hold, so that each is listed once and no file is asked for alone."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, str]] = {}

    def files(self, folder: PathLike) -> dict[str, str]:
        """Map the names in a folder to their paths; empty where there is no such folder."""
        key = str(folder)
        if key not in self._files:
            try:
                with os.scandir(key) as entries:
                    self._files[key] = {entry.name: entry.path for entry in entries}
            except (OSError, ValueError):  # not there, not readable, or no possible name
                self._files[key] = {}
        return self._files[key]

    def find(self, root: Path, name: str) -> str | None:
        """Give the path of a file under a folder, None where it is not there.

        Args:
            root: Folder that names are relative to.
            name: Path under ``root``, or an absolute one; backslashes count as slashes where
                there is no file of that very name.
        """
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            path = root / spelling
            found = self.files(path.parent).get(path.name)
            if found is not None:
                return found
        return None


def existing_folder(images: PathLike) -> Path:
    """Give the folder of images as a path.

    Raises:
        MissingFileError: If it is not there or is no folder.
    """
    folder = Path(images)
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder}: no such folder of images; correct IMAGES or the dataset root"
        )
    return folder


def find_images(names: Sequence[str], images: PathLike, annotations: PathLike) -> list[str]:
    """Give the path of every image that a label file names.

    Args:
        names: As in the file, relative to ``images`` or absolute.
        images: The folder of images.
        annotations: The label file, for the message.

    Raises:
        MissingFileError: If the folder, or any of the images, is not there.
    """
    root, listing = existing_folder(images), FolderListing()
    paths = [listing.find(root, name) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        raise missing_images(missing, len(names), annotations, str(root))
    return [path for path in paths if path is not None]


def missing_images(
    missing: Sequence[str], total: int, annotations: PathLike, looked_in: str
) -> MissingFileError:
    """Make the error for images that are not there: the first three, the count and the place."""
    first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return MissingFileError(
        f"{len(missing)} of {total} images of {annotations} are not under {looked_in}: {first}; "
        "correct IMAGES or put the files there"
    )


def image_size(path: PathLike) -> tuple[int, int]:
    """Read (height, width) in pixels from the picture's header, as OpenCV will load it.

    Raises:
        AnnotationError: If the file is not a picture.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(EXIF_ORIENTATION)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise AnnotationError(
            f"{path}: cannot be read as a picture; replace the file or remove its labels"
        ) from error
    return (width, height) if orientation in TURNED_A_QUARTER else (height, width)
