"""Reader of COCO JSON."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2pd.data.annotations.image_files import find_images, image_size
from d2pd.data.annotations.json_tables import (
    LEFT_OUT,
    JsonTables,
    group_annotations,
    read_tables,
)
from d2pd.data.annotations.json_values import whole_number
from d2pd.data.annotations.labels import Labels, PathLike, Record, Select
from d2pd.errors import AnnotationError

logger = logging.getLogger(__name__)


def read_coco_json(
    annotations: PathLike,
    images: PathLike | None,
    *,
    class_names: Sequence[str] | None = None,
    select: Select | None = None,
) -> Labels:
    """Read a COCO detection file; ``ignore`` and ``iscrowd`` both make a region to ignore.

    Args:
        annotations: The file; its category ids may be any numbers or names.
        images: Folder that ``file_name`` is relative to; None reads the labels alone.
        class_names: The categories wanted, in the order of their new ids; boxes of others are
            left out. None takes every category in file order.
        select: Chooses some of the images; None takes all.

    Raises:
        MissingFileError: If the file, the folder or an image is not there.
        AnnotationError: If the content cannot be used; the message names the row.
    """
    tables = read_tables(annotations)
    names = _file_names(tables)
    chosen, contiguous = choose_categories(tables, class_names)
    log_left_out(tables, contiguous)
    grouped = group_annotations(tables, contiguous)
    chosen_rows = range(len(names)) if select is None else select(names)
    names = [names[position] for position in chosen_rows]
    paths = names if images is None else find_images(names, images, tables.path)
    records: list[Record] = []
    for position, path in zip(chosen_rows, paths, strict=True):
        row = tables.images[position]
        record: Record = {"file_name": path, "image_id": row["id"]}
        try:
            record |= stated_size(row)
        except AnnotationError as error:
            raise AnnotationError(f"{tables.path}, image {position}: {error}") from error
        if "height" not in record and images is not None:
            record["height"], record["width"] = image_size(Path(path))
        records.append(record | {"annotations": grouped[position]})
    return Labels(records, chosen)


def _file_names(tables: JsonTables) -> list[str]:
    names = []
    for position, row in enumerate(tables.images):
        try:
            names.append(file_name(row))
        except AnnotationError as error:
            raise AnnotationError(f"{tables.path}, image {position}: {error}") from error
    return names


def file_name(row: Mapping[str, Any]) -> str:
    """Give the name of an image.

    Raises:
        AnnotationError: If it has none; the place is not named.
    """
    if not isinstance(row.get("file_name"), str):
        hint = "it has im_name: use FORMAT kaist" if "im_name" in row else "add it"
        raise AnnotationError(f"there is no file_name; {hint}")
    return row["file_name"]


def stated_size(row: Mapping[str, Any]) -> dict[str, int]:
    """Give height and width in pixels where a row of ``images`` states both, else nothing.

    Raises:
        AnnotationError: If one is no whole number above 0; the place is not named.
    """
    if row.get("height") is None or row.get("width") is None:
        return {}
    return {key: whole_number(row, key) for key in ("height", "width")}


def choose_categories(
    tables: JsonTables, class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Give the names of the classes, and the class or ``LEFT_OUT`` of each category id.

    Raises:
        AnnotationError: If the file lists no categories, or not one for each class wanted.
    """
    if not tables.categories:
        raise AnnotationError(
            f"{tables.path}: there is no list 'categories'; add it, with id and name of each class"
        )
    in_file = [name for key, name in tables.categories.items() if key != -1]
    chosen = tuple(class_names) if class_names else tuple(in_file)
    for name in chosen:
        if in_file.count(name) != 1:
            how = "not a category" if name not in in_file else "the name of two categories"
            raise AnnotationError(
                f"{tables.path}: class {name!r} is {how} of the file ({', '.join(in_file)}); "
                "correct CLASSES or the file"
            )
    contiguous = {
        key: chosen.index(name) if name in chosen else LEFT_OUT
        for key, name in tables.categories.items()
        if key != -1
    }
    return chosen, contiguous


def log_left_out(tables: JsonTables, contiguous: dict[int | str, int]) -> None:
    """Log how many boxes of which categories are ``LEFT_OUT``."""
    unwanted = {key for key, target in contiguous.items() if target == LEFT_OUT}
    counts = Counter(
        row["category_id"]
        for row in tables.annotations
        if isinstance(row, dict)
        and isinstance(row.get("category_id"), int | str)
        and row["category_id"] in unwanted
    )
    if counts and tables.categories:
        listed = ", ".join(f"{tables.categories[key]} {n}" for key, n in counts.most_common())
        logger.info("%s: boxes of classes not wanted, left out: %s", tables.path.name, listed)
