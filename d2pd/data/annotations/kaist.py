"""Reader of KAIST JSON: aligned visible and lwir frames, regions to ignore, video folders."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2pd.data.annotations.image_files import FolderListing, existing_folder, missing_images
from d2pd.data.annotations.json_tables import JsonTables, group_annotations, read_tables
from d2pd.data.annotations.json_values import whole_number
from d2pd.data.annotations.labels import IGNORE_REGION, Labels, PathLike, Record, Select, shown
from d2pd.errors import AnnotationError, MissingFileError

logger = logging.getLogger(__name__)

PUBLISHED_CATEGORIES: dict[int | str, str] = {
    0: "__ignore__",
    1: "person",
    2: "cyclist",
    3: "people",
    4: "person?",
}
"""Category ids of the published files, for a file that lists none."""

FRAME_SIZE = {"height": 512, "width": 640}
"""Pixels of a KAIST frame, for a file that states none."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MODALITIES = ("visible", "lwir")

_LOOKS_LIKE_A_NAME = re.compile(r"\w+/\w+/\w+")


def read_kaist_json(
    annotations: PathLike,
    images: PathLike | None,
    *,
    image_list: PathLike | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    class_names: Sequence[str] = ("person",),
    select: Select | None = None,
) -> Labels:
    """Read KAIST labels; category -1, ``ignore: 1`` and unwanted categories are regions to ignore.

    Args:
        annotations: The JSON file, ``im_name`` such as ``set00/V000/I01217``.
        images: Folder with ``set00/V000/visible/I01217.jpg`` and ``lwir`` beside it, or with the
            set folder doubled, jpg or png; None reads the labels alone.
        image_list: Text file of names, one a line, that selects and orders the images.
        include: Video prefixes such as ``set00/V003`` or ``set00``; if any, only these are kept.
        exclude: Video prefixes that are left out.
        class_names: Categories that are objects, in the order of their new ids.
        select: Chooses some of the images that are left by then; None takes all.

    Returns:
        Records with ``im_name``. ``lwir_file_name`` is there where the lwir frames are;
        ``file_name`` is the visible frame, or the lwir one where no visible frame exists.

    Raises:
        MissingFileError: If a file, the folder or an image is not there.
        AnnotationError: If the content cannot be used; the message names the row.
    """
    tables = read_tables(annotations)
    grouped = group_annotations(tables, category_targets(tables, class_names))
    records: list[Record] = []
    for position, row in enumerate(tables.images):
        try:
            name, size = frame_name(row), frame_size(row)
        except AnnotationError as error:
            raise AnnotationError(f"{tables.path}, image {position}: {error}") from error
        record: Record = {"file_name": name, "image_id": row["id"], **size, "im_name": name}
        records.append(record | {"annotations": grouped[position]})
    if image_list is not None:
        records = _select_listed(records, Path(image_list), tables.path)
    records = _select_videos(records, include, exclude, tables.path)
    if select is not None:
        records = [records[at] for at in select([record["im_name"] for record in records])]
    if images is not None:
        _add_paths(records, existing_folder(images), tables.path)
    return Labels(records, tuple(class_names))


def frame_name(row: Mapping[str, Any]) -> str:
    """Give the ``im_name`` of an image.

    Raises:
        AnnotationError: If it has none, or one that is not such as set00/V000/I01217; the place is
            not named.
    """
    name = row.get("im_name")
    if isinstance(name, str) and name.count("/") == 2:
        return name
    if name is None:
        hint = "it has file_name: use FORMAT coco" if "file_name" in row else "add it"
        raise AnnotationError(f"there is no im_name; {hint}")
    raise AnnotationError(f"im_name must be such as set00/V000/I01217, got {shown(name)}")


def frame_size(row: Mapping[str, Any]) -> dict[str, int]:
    """Give height and width in pixels, those of KAIST where the row states none.

    Raises:
        AnnotationError: If one is no whole number above 0; the place is not named.
    """
    return {
        key: default if row.get(key) is None else whole_number(row, key)
        for key, default in FRAME_SIZE.items()
    }


def category_targets(tables: JsonTables, class_names: Sequence[str]) -> dict[int | str, int]:
    """Give the class of each category id of the file; those not wanted are ``IGNORE_REGION``.

    Raises:
        AnnotationError: If a class is none of the file's categories.
    """
    names = tables.categories or PUBLISHED_CATEGORIES
    for name in class_names:
        if name not in names.values():
            raise AnnotationError(
                f"{tables.path}: class {name!r} is not a category of the file "
                f"({', '.join(names.values())}); correct CLASSES"
            )
    wanted = list(class_names)
    return {
        key: wanted.index(name) if name in wanted else IGNORE_REGION for key, name in names.items()
    }


def _select_listed(records: list[Record], image_list: Path, annotations: Path) -> list[Record]:
    """Keep the images of a list, in its order; the nth mention takes the nth row of that name."""
    names = _read_image_list(image_list)
    rows: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        rows[record["im_name"]].append(record)
    unknown = [name for name in names if name not in rows]
    if unknown:
        if not _LOOKS_LIKE_A_NAME.fullmatch(unknown[0]):  # and what it is may be a secret
            raise AnnotationError(
                f"{image_list}: an image list holds names such as set00/V000/I01217, and entry "
                f"{names.index(unknown[0]) + 1} is none; correct IMAGE_LIST"
            )
        first = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise AnnotationError(
            f"{len(unknown)} of {len(names)} images of {image_list} are not in {annotations}: "
            f"{first}; the list and the label file must belong together"
        )
    chosen: list[Record] = []
    mentions: Counter[str] = Counter()
    for name in names:
        if mentions[name] < len(rows[name]):
            chosen.append(rows[name][mentions[name]])
        else:
            logger.warning("%s lists %s once too often; it is used once", image_list, name)
        mentions[name] += 1
    return chosen


def _read_image_list(path: Path) -> list[str]:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such image list; correct IMAGE_LIST")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path}: byte {error.start} is not UTF-8 text; save the list as UTF-8"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise AnnotationError(f"{path}: the image list is empty; one name a line is expected")
    return [_without_modality(name) for name in names]


def _without_modality(name: str) -> str:
    """Turn ``set00/V000/visible/I00001.jpg``, as some lists spell it, into an ``im_name``."""
    for suffix in IMAGE_SUFFIXES:
        name = name.removesuffix(suffix)
    return "/".join(part for part in name.split("/") if part not in MODALITIES)


def _select_videos(
    records: list[Record], include: Sequence[str], exclude: Sequence[str], annotations: Path
) -> list[Record]:
    videos = sorted({record["im_name"].rsplit("/", 1)[0] for record in records})
    for prefix in (*include, *exclude):
        if not any(_is_under(video, prefix) for video in videos):
            logger.warning("%s: no image is in video %s", annotations.name, prefix)
    kept_videos = {
        video
        for video in videos
        if (not include or any(_is_under(video, prefix) for prefix in include))
        and not any(_is_under(video, prefix) for prefix in exclude)
    }
    kept = [record for record in records if record["im_name"].rsplit("/", 1)[0] in kept_videos]
    if records and not kept:
        listed = ", ".join(videos[:5]) + (", ..." if len(videos) > 5 else "")
        raise AnnotationError(
            f"{annotations}: no image is left by INCLUDE {list(include)} and EXCLUDE "
            f"{list(exclude)}; its videos are {listed}"
        )
    return kept


def _is_under(video: str, prefix: str) -> bool:
    return f"{video}/".startswith(prefix.rstrip("/") + "/")


def _add_paths(records: list[Record], root: Path, annotations: Path) -> None:
    """Write the path of each frame into its record.

    A modality of which no frame exists counts as not downloaded; one that exists must be whole.
    """
    listing = FolderListing()
    paths = {
        modality: [find_frame(listing, root, record["im_name"], modality) for record in records]
        for modality in MODALITIES
    }
    present = [modality for modality in MODALITIES if any(paths[modality])] or ["visible"]
    for modality in present:
        missing = [
            record["im_name"]
            for record, path in zip(records, paths[modality], strict=True)
            if path is None
        ]
        if missing:
            looked_in = f"{root}/setXX/[setXX/]VYYY/{modality}/ (jpg or png)"
            raise missing_images(missing, len(records), annotations, looked_in)
    if present == ["lwir"]:
        logger.warning("%s holds no visible frames; lwir frames take their place", root)
    for index, record in enumerate(records):
        record["file_name"] = paths[present[0]][index]
        if "lwir" in present:
            record["lwir_file_name"] = paths["lwir"][index]


def find_frame(listing: FolderListing, root: Path, im_name: str, modality: str) -> str | None:
    """Return the path of one camera's frame, None where it is not there.

    Args:
        listing: Remembers folders.
        root: Folder with ``set00/V000/visible/I01217.jpg``, or with the set folder doubled.
        im_name: Such as ``set00/V000/I01217``.
        modality: ``visible`` or ``lwir``.
    """
    set_name, video, frame = im_name.split("/")
    for folder in (root / set_name, root / set_name / set_name):
        files = listing.files(folder / video / modality)
        for suffix in IMAGE_SUFFIXES:
            for spelling in (suffix, suffix.upper()):
                if frame + spelling in files:
                    return files[frame + spelling]
    return None
