"""The tables that KAIST JSON and COCO JSON share: images, annotations, categories."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.data.annotations.json_values import box_values, identifier, image_of, new_image_id
from d2pd.data.annotations.labels import (
    IGNORE_REGION,
    Annotation,
    PathLike,
    make_annotation,
    read_label_file,
    shown,
)
from d2pd.errors import AnnotationError

LEFT_OUT = -2
"""Target of a category whose boxes the reader passes over."""


@dataclass(frozen=True)
class JsonTables:
    """The parts of a label file.

    Attributes:
        path: The file, for messages.
        images: Rows of ``images``; objects, if ``read_tables`` gave them.
        annotations: Rows of ``annotations``, likewise.
        categories: Name of each category id, in file order; None if the file has no such table.
    """

    path: Path
    images: list[Any]
    annotations: list[Any]
    categories: dict[int | str, str] | None

    @property
    def format(self) -> str:
        """``kaist`` if any image has ``im_name``, else ``coco``."""
        is_kaist = any(isinstance(row, dict) and "im_name" in row for row in self.images)
        return "kaist" if is_kaist else "coco"

    def image_position(self) -> dict[int | str, int]:
        """Map each image id to the position of its row.

        Raises:
            AnnotationError: If an image has no id, or one that another image has.
        """
        positions: dict[int | str, int] = {}
        for position, row in enumerate(self.images):
            try:
                positions[new_image_id(row, positions)] = position
            except AnnotationError as error:
                raise AnnotationError(f"{self.path}, image {position}: {error}") from error
        return positions


def read_tables(path: PathLike) -> JsonTables:
    """Read a JSON label file and check that its tables are there, with an object in every row.

    Raises:
        MissingFileError: If there is no such file.
        AnnotationError: If it is not JSON, or has no ``images`` or ``annotations``.
    """
    path = Path(path)
    tables = parse_tables(read_label_file(path), path)
    for key, rows in (("images", tables.images), ("annotations", tables.annotations)):
        _check_objects(rows, key, path)
    return tables


def parse_tables(content: bytes, path: Path) -> JsonTables:
    """Find the tables of a JSON label file; what their rows are is not checked.

    Args:
        content: Of the file.
        path: Its name, for messages.

    Raises:
        AnnotationError: If it is not JSON, or has no ``images`` or ``annotations``.
    """
    found = _parse(content, path)
    if not isinstance(found, dict):
        raise AnnotationError(
            f"{path}: expected an object with images and annotations, got "
            f"{type(found).__name__}; KAIST and COCO label files have both lists"
        )
    images, annotations = _table(found, "images", path), _table(found, "annotations", path)
    return JsonTables(path, images, annotations, _categories(found, path))


def group_annotations(
    tables: JsonTables, contiguous: Mapping[int | str, int]
) -> list[list[Annotation]]:
    """Collect the boxes of each image.

    Args:
        tables: The file; its boxes are x, y, width, height in pixels.
        contiguous: For each category id of the file 0..K-1, ``IGNORE_REGION`` or ``LEFT_OUT``.

    Returns:
        One list per row of ``tables.images``; boxes keep the order of the file.

    Raises:
        AnnotationError: If a box, a flag, an image id or a category cannot be used.
    """
    positions = tables.image_position()
    grouped: list[list[Annotation]] = [[] for _ in tables.images]
    for index, row in enumerate(tables.annotations):
        try:
            position = image_of(row, positions)
            category_id = _category(row, contiguous, tables)
            if category_id != LEFT_OUT:
                values = box_values(row)
        except AnnotationError as error:
            raise AnnotationError(f"{tables.path}, annotation {index}: {error}") from error
        if category_id != LEFT_OUT:
            is_ignored = category_id == IGNORE_REGION or values.is_flagged
            annotation = make_annotation(
                values.bbox_xyxy, category_id, is_ignored, index, values.occlusion
            )
            grouped[position].append(annotation)
    return grouped


def _parse(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); the file "
            "may be cut off or of another format: download or export it again"
        ) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise AnnotationError(
            f"{path}, line {line}: byte {error.start} is not {error.encoding.upper()} text; save "
            "the file as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: cannot be read as JSON ({error})") from error


def _table(content: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    if not isinstance(content.get(key), list):
        found = ", ".join(sorted(content)[:20]) or "nothing"
        raise AnnotationError(
            f"{path}: there is no list {key!r} (found: {shown(found)[1:-1]}); KAIST and COCO label "
            "files have images and annotations"
        )
    return content[key]


def _check_objects(rows: list[Any], key: str, path: Path) -> None:
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise AnnotationError(f"{path}: {key}[{index}] must be an object, got {shown(row)}")


def _categories(content: Mapping[str, Any], path: Path) -> dict[int | str, str] | None:
    if "categories" not in content:
        return None
    rows = _table(content, "categories", path)
    _check_objects(rows, "categories", path)
    names: dict[int | str, str] = {}
    for index, row in enumerate(rows):
        try:
            category_id = _new_category_id(row, names)
            names[category_id] = row["name"]
        except AnnotationError as error:
            raise AnnotationError(f"{path}, category {index}: {error}") from error
    return names


def _new_category_id(row: Mapping[str, Any], names: Mapping[int | str, str]) -> int | str:
    category_id = identifier(row, "id")
    if category_id in names:
        raise AnnotationError(
            f"id {category_id!r} is already that of {names[category_id]!r}; give every category "
            "an id of its own"
        )
    if not isinstance(row.get("name"), str):
        raise AnnotationError("there is no name; give the category one")
    return category_id


def _category(
    row: Mapping[str, Any], contiguous: Mapping[int | str, int], tables: JsonTables
) -> int:
    category_id = identifier(row, "category_id")
    if category_id in contiguous:
        return contiguous[category_id]
    if category_id == IGNORE_REGION:
        return IGNORE_REGION
    known = ", ".join(
        f"{key} {tables.categories[key]}" if tables.categories else f"{key}" for key in contiguous
    )
    raise AnnotationError(
        f"category_id {category_id!r} is not among the categories ({known}); add it to the file's "
        "categories or mend the annotation"
    )
