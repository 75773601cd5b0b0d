"""Which file is the picture of an image, and what lies there in its place."""

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from d2pd.data.annotations.image_files import FolderListing, existing_folder, missing_images
from d2pd.data.annotations.kaist import MODALITIES, find_frame
from d2pd.data.audit.findings import Finding
from d2pd.data.label_table.table import LabelTable

Paths = Mapping[str, str]
"""Camera -> file."""


def find_picture_files(table: LabelTable, images: Path) -> list[Paths]:
    """Find the pictures of all images.

    Args:
        table: The labels.
        images: Folder that names are relative to; of KAIST that of the sets.

    Returns:
        (I,) the files of each image, those not there left out. The only camera is ``visible``, but
        for KAIST.

    Raises:
        MissingFileError: If there is no such folder, or none of the pictures is there.
    """
    root, listing = existing_folder(images), FolderListing()
    found = [picture_files_of(listing, root, name, table.format) for name in table.image_names]
    if table.image_names and not any(found):
        looked_in = str(root)
        if table.format == "kaist":
            looked_in += f"/setXX/[setXX/]VYYY/{'|'.join(MODALITIES)}/ (jpg or png)"
        raise missing_images(table.image_names, table.num_images, table.path, looked_in)
    return found


def find_missing_pictures(table: LabelTable, images: Path, files: list[Paths]) -> Iterator[Finding]:
    """Give the images without a picture, and those that one of the cameras lacks.

    A camera of which no picture exists counts as not downloaded.

    Args:
        table: The labels.
        images: The folder.
        files: As ``find_picture_files`` has found them.
    """
    cameras = [camera for camera in MODALITIES if any(camera in paths for paths in files)]
    near = NearNames(images)
    for index, paths in enumerate(files):
        name, row = table.image_names[index], int(table.image_rows[index])
        lacking = [camera for camera in cameras if camera not in paths]
        if not lacking:
            continue
        expected = [_expected(name, camera, table.format) for camera in lacking]
        hint = next((f"; there is {found}" for word in expected if (found := near.find(word))), "")
        if paths:
            message = f"has no {lacking[0]} picture{hint}"
            yield Finding("missing_modality", name, row, None, None, message)
        else:
            yield Finding("missing_image", name, row, None, None, f"is not there{hint}")


class NearNames:
    """Finds files whose names differ in case, suffix or Unicode spelling alone.

    Args:
        root: Folder that names are relative to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listing = FolderListing()
        self._names: dict[tuple[Path, bool], dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """Return the path under the root of a file that is nearly of this name, None without one.

        Args:
            name: Relative to the root, or absolute.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[-1] in ("/", ".."):
            return None
        folder = self._root
        for position, part in enumerate(parts):
            is_file = position == len(parts) - 1
            if part in ("/", ".."):
                folder = folder / part
                continue
            is_there = not is_file and part in self._listing.files(folder)
            near = part if is_there else self._look(folder, is_file).get(_plain(part, is_file))
            if near is None:
                return None
            folder = folder / near
        return str(folder.relative_to(self._root) if self._root in folder.parents else folder)

    def _look(self, folder: Path, is_file: bool) -> dict[str, str]:
        key = (folder, is_file)
        if key not in self._names:
            names = sorted(self._listing.files(folder), reverse=True)  # the first one wins
            self._names[key] = {_plain(name, is_file): name for name in names}
        return self._names[key]


def picture_files_of(listing: FolderListing, root: Path, name: str, table_format: str) -> Paths:
    """Return the files of one image by camera, those not there left out.

    Args:
        listing: Remembers folders.
        root: Folder that names are relative to; of KAIST that of the sets.
        name: As the label file has it.
        table_format: ``kaist``, or another format, where all pictures count as ``visible``.
    """
    if table_format != "kaist":
        path = listing.find(root, name)
        return {} if path is None else {"visible": path}
    paths = {camera: find_frame(listing, root, name, camera) for camera in MODALITIES}
    return {camera: path for camera, path in paths.items() if path is not None}


def _expected(name: str, camera: str, table_format: str) -> str:
    if table_format != "kaist":
        return name
    set_name, video, frame = name.split("/")
    return f"{set_name}/{video}/{camera}/{frame}"


def _plain(name: str, is_file: bool) -> str:
    """Reduce a name to what near names have in common."""
    stem = PurePosixPath(name).stem if is_file else name
    # macOS writes letters and their accents apart; both spellings look the same.
    return unicodedata.normalize("NFC", stem).casefold()
