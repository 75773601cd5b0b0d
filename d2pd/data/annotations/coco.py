"""Reader of COCO JSON."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from d2pd.data.annotations.image_files import find_images, image_size
from d2pd.data.annotations.json_tables import (
    LEFT_OUT,
    JsonTables,
    group_annotations,
    read_tables,
    whole_number,
)
from d2pd.data.annotations.labels import Labels, PathLike, Record
from d2pd.errors import AnnotationError

logger = logging.getLogger(__name__)


def read_coco_json(
    annotations: PathLike,
    images: PathLike | None,
    *,
    class_names: Sequence[str] | None = None,
) -> Labels:
    """Read a COCO detection file; ``ignore`` and ``iscrowd`` both make a region to ignore.

    Args:
        annotations: The file; its category ids may be any numbers or names.
        images: Folder that ``file_name`` is relative to; None reads the labels alone.
        class_names: The categories wanted, in the order of their new ids; boxes of others are
            left out. None takes every category in file order.

    Raises:
        MissingFileError: If the file, the folder or an image is not there.
        AnnotationError: If the content cannot be used; the message names the row.
    """
    tables = read_tables(annotations)
    names = _file_names(tables)
    chosen, contiguous = _choose_categories(tables, class_names)
    _log_left_out(tables, contiguous)
    grouped = group_annotations(tables, contiguous)
    paths = names if images is None else find_images(names, images, tables.path)
    records: list[Record] = []
    for position, (row, path) in enumerate(zip(tables.images, paths, strict=True)):
        record: Record = {"file_name": path, "image_id": row["id"]}
        record |= _size(row, path, f"{tables.path}, image {position}", images is not None)
        records.append(record | {"annotations": grouped[position]})
    return Labels(records, chosen)


def _file_names(tables: JsonTables) -> list[str]:
    for position, row in enumerate(tables.images):
        if not isinstance(row.get("file_name"), str):
            hint = "it has im_name: use FORMAT kaist" if "im_name" in row else "add it"
            raise AnnotationError(f"{tables.path}, image {position}: there is no file_name; {hint}")
    return [row["file_name"] for row in tables.images]


def _choose_categories(
    tables: JsonTables, class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[int | str, int]]:
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


def _log_left_out(tables: JsonTables, contiguous: dict[int | str, int]) -> None:
    unwanted = {key for key, target in contiguous.items() if target == LEFT_OUT}
    counts = Counter(
        row["category_id"]
        for row in tables.annotations
        if isinstance(row.get("category_id"), int | str) and row["category_id"] in unwanted
    )
    if counts and tables.categories:
        listed = ", ".join(f"{tables.categories[key]} {n}" for key, n in counts.most_common())
        logger.info("%s: boxes of classes not wanted, left out: %s", tables.path.name, listed)


def _size(row: Record, path: str, where: str, has_picture: bool) -> dict[str, int]:
    if row.get("height") is not None and row.get("width") is not None:
        return {key: whole_number(row, key, where) for key in ("height", "width")}
    if not has_picture:
        return {}
    height, width = image_size(Path(path))
    return {"height": height, "width": width}
