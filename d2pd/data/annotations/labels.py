"""What every reader returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.errors import AnnotationError, MissingFileError

Record = dict[str, Any]
"""One image: ``file_name``, ``image_id``, ``height``, ``width``, ``annotations`` and, for KAIST,
``lwir_file_name`` and ``im_name``."""

Annotation = dict[str, Any]
"""One box: ``bbox`` [x1, y1, x2, y2] in pixels, ``bbox_mode`` 0, ``category_id``, ``iscrowd``,
``ignore``, ``row`` and, where known, ``occlusion``; where labels are one file a frame ``extras``:
what else they say, by name."""

XYXY_ABS = 0
"""Value of ``BoxMode.XYXY_ABS``, written as a number so that readers need no engine."""

FARTHEST = 1e9
"""Pixels; no image reaches as far, and areas of larger numbers overflow."""

IGNORE_REGION = -1
"""``category_id`` of a region that is neither reward nor penalty for any class."""

LONGEST_SHOWN = 80
"""Characters of a value in a message."""

PathLike = str | Path

Select = Callable[[Sequence[str]], Sequence[int]]
"""Takes the image names of a file, as written; gives the positions of those that are wanted."""


@dataclass(frozen=True)
class Labels:
    """The content of one label file.

    Attributes:
        records: One per image, in the order of the file.
        class_names: Name of category 0, 1, ...; ignore regions are not among them.
    """

    records: list[Record]
    class_names: tuple[str, ...]


def read_label_file(path: Path) -> bytes:
    """Read a label file that must hold something.

    Raises:
        MissingFileError: If there is no such file, or it may not be read.
        AnnotationError: If it is empty.
    """
    if not path.is_file():
        why = (
            why_no_file(path) or "no such annotation file; correct ANNOTATIONS or the dataset root"
        )
        raise MissingFileError(f"{path}: {why}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingFileError(
            f"{path}: cannot be read ({error.strerror}); mend its permissions or copy it again"
        ) from error
    if not content.strip():
        raise AnnotationError(f"{path}: the file is empty; download or export it again")
    return content


def why_no_file(path: Path) -> str | None:
    """Say what is in the place of a label file, and the way out; None if nothing is."""
    if path.is_dir():
        return "this is a folder; name the label file"
    if path.exists():
        return "a pipe or device; save it to a file"
    return "a link that leads to no file; mend it" if path.is_symlink() else None


def shown(value: Any) -> str:
    """Write a value of a file for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def make_annotation(
    bbox_xyxy: list[float], category_id: int, is_ignored: bool, row: int, occlusion: int | None
) -> Annotation:
    """Put one box into the form of the records.

    Args:
        bbox_xyxy: x1, y1, x2, y2 in pixels, as the file says, faults included.
        category_id: 0..K-1, or ``IGNORE_REGION``.
        is_ignored: Whether the box is a region to ignore.
        row: Where the box stands in its file: line of a CSV, position in a JSON list.
        occlusion: 0 none, 1 partial, 2 heavy, None where the file does not say.
    """
    flag = int(is_ignored)
    annotation: Annotation = {
        "bbox": bbox_xyxy,
        "bbox_mode": XYXY_ABS,
        "category_id": category_id,
        "iscrowd": flag,
        "ignore": flag,
        "row": row,
    }
    if occlusion is not None:
        annotation["occlusion"] = occlusion
    return annotation
