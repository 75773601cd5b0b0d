"""Look at the pictures of a label file: are they there, whole, and of the size that it states?"""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from d2pd.data.audit.findings import Finding
from d2pd.data.audit.picture_files import Paths, find_missing_pictures, find_picture_files
from d2pd.data.images import decode_image, read_encoded
from d2pd.data.label_table.table import LabelTable
from d2pd.errors import UserError

UNKNOWN_SIZE = (0, 0)

NOT_CHECKED = (Image.UnidentifiedImageError, Image.DecompressionBombError)
"""What PIL does not read, OpenCV has read all the same."""


@dataclass(frozen=True)
class PictureFindings:
    """What the pictures of I images have shown.

    Attributes:
        findings: Of ``missing_image``, ``unreadable_image``, ``size_mismatch`` and
            ``missing_modality``.
        sizes: (I, 2) int64, height and width of the picture as a training sees it, that of the
            visible camera first; 0 where it is missing or unreadable.
        paths: (I,) files by camera, unreadable ones too.
    """

    findings: list[Finding]
    sizes: np.ndarray
    paths: list[Paths]


@dataclass(frozen=True)
class Look:
    """One file: height and width in pixels, or ``UNKNOWN_SIZE`` and why."""

    size: tuple[int, int]
    trouble: str = ""


def look_at_pictures(
    table: LabelTable, images: Path, *, workers: int | None = None, quiet: bool | None = None
) -> PictureFindings:
    """Find and decode the pictures of all images, each file once, with a progress bar.

    Args:
        table: The labels.
        images: Folder that names are relative to; of KAIST that of the sets.
        workers: Pictures that are decoded at a time; None for one a core.
        quiet: No progress bar; None for none where nobody looks.

    Raises:
        MissingFileError: If there is no such folder, or none of the pictures is there.
    """
    paths = find_picture_files(table, images)
    looks = _look_at_all(paths, workers, quiet)
    findings = list(find_missing_pictures(table, images, paths))
    sizes = np.zeros((table.num_images, 2), dtype=np.int64)
    for index, files in enumerate(paths):
        seen = {camera: looks[path, camera] for camera, path in files.items()}
        findings += _judge(table, index, seen)
        sizes[index] = next((look.size for look in seen.values() if any(look.size)), UNKNOWN_SIZE)
    return PictureFindings(findings, sizes, paths)


def look_at_picture(path: str, camera: str) -> Look:
    """Decode a file as a training does, and see whether it is whole.

    Args:
        path: The file.
        camera: ``visible`` or ``lwir``.
    """
    try:
        encoded = read_encoded(path)
        height, width = decode_image(encoded, path, camera).shape[:2]
    except UserError as error:
        reason, _, _ = str(error).rpartition("; ")  # the way out is that of a training
        return Look(UNKNOWN_SIZE, reason)
    damage = damage_of(encoded)
    return Look(UNKNOWN_SIZE, f"{path}: {damage}") if damage else Look((height, width))


def damage_of(encoded: np.ndarray) -> str:
    """Say what is wrong with a file that OpenCV has decoded, which it may have done in part.

    Args:
        encoded: (N,) uint8, the file.

    Returns:
        "" where nothing is.

    OpenCV before 5 fills up a JPEG that is cut short with grey, without a word; a PNG it reads
    whole or not at all.
    """
    try:
        with Image.open(io.BytesIO(encoded.tobytes())) as image:
            if image.format != "PNG":
                image.draft("L", (1, 1))  # a JPEG is read to its end, but hardly computed
                image.load()
    except NOT_CHECKED:
        return ""
    except (OSError, SyntaxError, ValueError) as error:
        return f"cut short or damaged ({error})"
    return ""


def _look_at_all(
    paths: Sequence[Paths], workers: int | None, quiet: bool | None
) -> dict[tuple[str, str], Look]:
    files = list(dict.fromkeys((file, camera) for of in paths for camera, file in of.items()))
    # Threads: OpenCV and PIL let others run while they decode.
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        looks = pool.map(look_at_picture, *zip(*files, strict=True)) if files else iter(())
        try:
            bar = tqdm(looks, "Pictures", total=len(files), unit="picture", disable=quiet)
            return dict(zip(files, bar, strict=True))
        except BaseException:  # Ctrl-C: without this, all that are waiting would be decoded first
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _judge(table: LabelTable, index: int, seen: dict[str, Look]) -> Iterator[Finding]:
    """Give what is wrong with the pictures of an image, all that is of one rule in one finding."""
    troubles = [look.trouble for look in seen.values() if look.trouble]
    if troubles:
        yield _finding(table, index, "unreadable_image", "; ".join(troubles))
    sizes = {camera: look.size for camera, look in seen.items() if not look.trouble}
    stated = (int(table.heights[index]), int(table.widths[index]))
    if len(set(sizes.values())) > 1:
        words = ", ".join(f"{camera} is {_pixels(size)}" for camera, size in sizes.items())
        of_labels = f"; the labels are for {_pixels(stated)}" if all(stated) else ""
        yield _finding(table, index, "size_mismatch", words + of_labels)
    elif sizes and all(stated) and stated not in sizes.values():
        size = next(iter(sizes.values()))
        message = f"is {_pixels(size)}, its labels are for {_pixels(stated)}"
        yield _finding(table, index, "size_mismatch", message)


def _finding(table: LabelTable, index: int, rule: str, message: str) -> Finding:
    return Finding(
        rule, table.image_names[index], int(table.image_rows[index]), None, None, message
    )


def _pixels(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width} x {height} px"
