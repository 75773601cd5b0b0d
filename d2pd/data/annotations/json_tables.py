"""The tables that KAIST JSON and COCO JSON share: images, annotations, categories."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.data.annotations.labels import (
    IGNORE_REGION,
    Annotation,
    PathLike,
    make_annotation,
    read_label_file,
)
from d2pd.errors import AnnotationError

LEFT_OUT = -2
"""Target of a category whose boxes the reader passes over."""


@dataclass(frozen=True)
class JsonTables:
    """The parts of a label file, each row known to be an object.

    Attributes:
        path: The file, for messages.
        images: Rows of ``images``.
        annotations: Rows of ``annotations``.
        categories: Name of each category id, in file order; None if the file has no such table.
    """

    path: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int | str, str] | None

    def image_position(self) -> dict[int | str, int]:
        """Map each image id to the position of its row.

        Raises:
            AnnotationError: If an image has no id, or one that another image has.
        """
        positions: dict[int | str, int] = {}
        for position, row in enumerate(self.images):
            image_id = _identifier(row, "id", f"{self.path}, image {position}")
            if image_id in positions:
                raise AnnotationError(
                    f"{self.path}, image {position}: id {image_id!r} is already that of image "
                    f"{positions[image_id]}; give every image an id of its own"
                )
            positions[image_id] = position
        return positions


def read_tables(path: PathLike) -> JsonTables:
    """Read a JSON label file and check that its tables are there.

    Raises:
        MissingFileError: If there is no such file.
        AnnotationError: If it is not JSON, or has no ``images`` or ``annotations``.
    """
    path = Path(path)
    content = _load(path)
    if not isinstance(content, dict):
        raise AnnotationError(
            f"{path}: expected an object with images and annotations, got "
            f"{type(content).__name__}; KAIST and COCO label files have both lists"
        )
    images, annotations = _table(content, "images", path), _table(content, "annotations", path)
    return JsonTables(path, images, annotations, _categories(content, path))


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
        where = f"{tables.path}, annotation {index}"
        image_id = _identifier(row, "image_id", where)
        if image_id not in positions:
            raise AnnotationError(
                f"{where}: image_id {image_id!r} is not the id of any image of the file; add the "
                "image or remove the annotation"
            )
        category_id = _category(row, contiguous, tables, where)
        if category_id != LEFT_OUT:
            is_ignored = category_id == IGNORE_REGION or any(
                _flag(row, key, where) for key in ("ignore", "iscrowd", "is_crowd")
            )
            annotation = make_annotation(
                _box(row, where), category_id, is_ignored, index, _occlusion(row, where)
            )
            grouped[positions[image_id]].append(annotation)
    return grouped


def whole_number(row: Mapping[str, Any], key: str, where: str) -> int:
    """Give a size in pixels that a row states.

    Raises:
        AnnotationError: If the value is not a whole number above 0.
    """
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise AnnotationError(f"{where}: {key} must be a number of pixels, got {value!r}")
    if value != int(value):
        raise AnnotationError(f"{where}: {key} must be a whole number of pixels, got {value!r}")
    return int(value)


def _load(path: Path) -> Any:
    content = read_label_file(path)
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); the file "
            "may be cut off or of another format: download or export it again"
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path}: byte {error.start} is not {error.encoding.upper()} text; save the file as "
            "UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: cannot be read as JSON ({error})") from error


def _table(content: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    if not isinstance(content.get(key), list):
        found = ", ".join(sorted(content)) or "nothing"
        raise AnnotationError(
            f"{path}: there is no list {key!r} (found: {found}); KAIST and COCO label files have "
            "images and annotations"
        )
    for index, row in enumerate(content[key]):
        if not isinstance(row, dict):
            raise AnnotationError(f"{path}: {key}[{index}] must be an object, got {row!r}")
    return content[key]


def _categories(content: Mapping[str, Any], path: Path) -> dict[int | str, str] | None:
    if "categories" not in content:
        return None
    names: dict[int | str, str] = {}
    for index, row in enumerate(_table(content, "categories", path)):
        where = f"{path}, category {index}"
        category_id = _identifier(row, "id", where)
        if category_id in names:
            raise AnnotationError(
                f"{where}: id {category_id!r} is already that of {names[category_id]!r}; give "
                "every category an id of its own"
            )
        if not isinstance(row.get("name"), str):
            raise AnnotationError(f"{where}: there is no name; give the category one")
        names[category_id] = row["name"]
    return names


def _identifier(row: Mapping[str, Any], key: str, where: str) -> int | str:
    value = row.get(key)
    if isinstance(value, int | str) and not isinstance(value, bool):
        return value
    got = repr(value) if key in row else "none"
    raise AnnotationError(f"{where}: {key} must be a whole number or a name, got {got}")


def _category(
    row: Mapping[str, Any], contiguous: Mapping[int | str, int], tables: JsonTables, where: str
) -> int:
    category_id = _identifier(row, "category_id", where)
    if category_id in contiguous:
        return contiguous[category_id]
    if category_id == IGNORE_REGION:
        return IGNORE_REGION
    known = ", ".join(
        f"{key} {tables.categories[key]}" if tables.categories else f"{key}" for key in contiguous
    )
    raise AnnotationError(
        f"{where}: category_id {category_id!r} is not among the categories ({known}); add it to "
        "the file's categories or mend the annotation"
    )


def _flag(row: Mapping[str, Any], key: str, where: str) -> bool:
    value = row.get(key)
    if value is None or value in (0, 1):
        return bool(value)
    raise AnnotationError(f"{where}: {key} must be 0 or 1, got {value!r}")


def _occlusion(row: Mapping[str, Any], where: str) -> int | None:
    value = row.get("occlusion")
    if value is None or value in (0, 1, 2):
        return None if value is None else int(value)
    raise AnnotationError(
        f"{where}: occlusion must be 0 (none), 1 (partial) or 2 (heavy), got {value!r}"
    )


def _box(row: Mapping[str, Any], where: str) -> list[float]:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        got = repr(box) if "bbox" in row else "none"
        raise AnnotationError(
            f"{where}: bbox must be four numbers x, y, width, height, got {got}; mend the file"
        )
    try:
        x, y, width, height = map(float, box)
    except OverflowError:
        return [float("inf")] * 4
    return [x, y, x + width, y + height]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
