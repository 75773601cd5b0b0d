"""The tables that KAIST JSON and COCO JSON share: images, annotations, categories."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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

_NUMBERS = {int, float}  # which bool is not


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


class BoxValues(NamedTuple):
    """What a row of ``annotations`` says of its box: XYXY in pixels, flag to ignore, occlusion."""

    bbox_xyxy: list[float]
    is_flagged: bool
    occlusion: int | None


def new_image_id(row: Mapping[str, Any], taken: Mapping[int | str, int]) -> int | str:
    """Give the id of an image.

    Args:
        row: Of ``images``.
        taken: Position of the image of each id met so far.

    Raises:
        AnnotationError: If there is none, or another image has it; the place is not named.
    """
    image_id = _identifier(row, "id")
    if image_id in taken:
        raise AnnotationError(
            f"id {image_id!r} is already that of image {taken[image_id]}; give every image an id "
            "of its own"
        )
    return image_id


def image_of(row: Mapping[str, Any], positions: Mapping[int | str, int]) -> int:
    """Give the position of the image that a row of ``annotations`` belongs to.

    Raises:
        AnnotationError: If it belongs to none; the place is not named.
    """
    image_id = _identifier(row, "image_id")
    if image_id not in positions:
        raise AnnotationError(
            f"image_id {image_id!r} is not the id of any image of the file; add the image or "
            "remove the annotation"
        )
    return positions[image_id]


def box_values(row: Mapping[str, Any]) -> BoxValues:
    """Read what a row of ``annotations`` says of its box.

    Raises:
        AnnotationError: If a value cannot be used; the place is not named.
    """
    is_flagged = False
    for key in ("ignore", "iscrowd", "is_crowd"):
        value = row.get(key)
        if value is not None and value not in (0, 1):
            raise AnnotationError(f"{key} must be 0 or 1, got {shown(value)}")
        is_flagged |= bool(value)
    return BoxValues(_box(row), is_flagged, _occlusion(row))


def whole_number(row: Mapping[str, Any], key: str) -> int:
    """Give a size in pixels that a row states.

    Raises:
        AnnotationError: If the value is not a whole number above 0; the place is not named.
    """
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise AnnotationError(f"{key} must be a number of pixels, got {shown(value)}")
    if value != int(value):
        raise AnnotationError(f"{key} must be a whole number of pixels, got {value!r}")
    return int(value)


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
    category_id = _identifier(row, "id")
    if category_id in names:
        raise AnnotationError(
            f"id {category_id!r} is already that of {names[category_id]!r}; give every category "
            "an id of its own"
        )
    if not isinstance(row.get("name"), str):
        raise AnnotationError("there is no name; give the category one")
    return category_id


def _identifier(row: Mapping[str, Any], key: str) -> int | str:
    value = row.get(key)
    if isinstance(value, int | str) and not isinstance(value, bool):
        return value
    got = shown(value) if key in row else "none"
    raise AnnotationError(f"{key} must be a whole number or a name, got {got}")


def _category(
    row: Mapping[str, Any], contiguous: Mapping[int | str, int], tables: JsonTables
) -> int:
    category_id = _identifier(row, "category_id")
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


def _occlusion(row: Mapping[str, Any]) -> int | None:
    value = row.get("occlusion")
    if value is None or value in (0, 1, 2):
        return None if value is None else int(value)
    raise AnnotationError(
        f"occlusion must be 0 (none), 1 (partial) or 2 (heavy), got {shown(value)}"
    )


def _box(row: Mapping[str, Any]) -> list[float]:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
        got = shown(box) if "bbox" in row else "none"
        raise AnnotationError(
            f"bbox must be four numbers x, y, width, height, got {got}; mend the file"
        )
    try:
        x, y, width, height = map(float, box)
    except OverflowError:
        return [float("inf")] * 4
    return [x, y, x + width, y + height]
