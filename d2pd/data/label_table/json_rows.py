"""The rows of KAIST JSON and COCO JSON as a table; a row that cannot be read is listed."""

import contextlib
import gc
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from d2pd.data.annotations.coco import choose_categories, file_name, log_left_out, stated_size
from d2pd.data.annotations.json_tables import LEFT_OUT, JsonTables, parse_tables
from d2pd.data.annotations.json_values import box_values, image_of, new_image_id
from d2pd.data.annotations.kaist import category_targets, frame_name, frame_size
from d2pd.data.annotations.labels import IGNORE_REGION, shown
from d2pd.data.label_table.table import (
    NOT_STATED,
    UNKNOWN_CATEGORY,
    LabelTable,
    MalformedRow,
)
from d2pd.errors import AnnotationError

OUT_OF_PLACE = -1
"""Index of an image whose own row cannot be read."""


@dataclass
class _Images:
    """Images read so far; ``index`` gives that of an id, ``OUT_OF_PLACE`` for a malformed row."""

    names: list[str] = field(default_factory=list)
    ids: list[int | str] = field(default_factory=list)
    rows: array = field(default_factory=lambda: array("q"))
    heights: array = field(default_factory=lambda: array("d"))
    widths: array = field(default_factory=lambda: array("d"))
    index: dict[int | str, int] = field(default_factory=dict)


@dataclass
class _Boxes:
    """Boxes read so far, as in ``LabelTable``; four coordinates of each, one after the other."""

    images: array = field(default_factory=lambda: array("q"))
    coordinates: array = field(default_factory=lambda: array("d"))
    rows: array = field(default_factory=lambda: array("q"))
    categories: array = field(default_factory=lambda: array("q"))
    words: dict[int, str] = field(default_factory=dict)
    is_region: array = field(default_factory=lambda: array("b"))
    occlusion: array = field(default_factory=lambda: array("b"))


def read_json_rows(
    content: bytes, path: Path, format: str, classes: Sequence[str] | None
) -> LabelTable:
    """Read KAIST JSON or COCO JSON.

    Args:
        content: Of the file.
        path: Its name.
        format: ``kaist``, ``coco``, or ``auto``: KAIST if any image has ``im_name``.
        classes: Names of class 0, 1, ...; None takes ``person`` of KAIST, all of COCO. Boxes of
            other categories are regions to ignore in KAIST, and left out of COCO.

    Raises:
        AnnotationError: If the file cannot be split into rows, is of the other format, or a class
            is none of its categories.
    """
    with _no_garbage_collection():
        tables = parse_tables(content, path)
        found = tables.format
        if format not in ("auto", found) and tables.images:
            raise AnnotationError(
                f"{path}: this looks like {found}, not {format}: its images have "
                f"{'im_name' if found == 'kaist' else 'no im_name'}; use --format {found} or auto"
            )
        return _table(tables, found if format == "auto" else format, classes)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # Looking for cycles among the millions of values of a large file takes longer than reading it.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _table(tables: JsonTables, format: str, classes: Sequence[str] | None) -> LabelTable:
    if format == "kaist":
        class_names = tuple(classes or ("person",))
        targets = category_targets(tables, class_names)
    else:
        class_names, targets = choose_categories(tables, classes)
        log_left_out(tables, targets)
    malformed: list[MalformedRow] = []
    images = _read_images(tables, format, malformed)
    boxes = _read_boxes(tables, images, {IGNORE_REGION: IGNORE_REGION, **targets}, malformed)
    return LabelTable(
        path=tables.path,
        format=format,
        box_format="xywh",
        image_names=images.names,
        image_ids=images.ids,
        image_rows=np.array(images.rows, dtype=np.int64),
        heights=np.array(images.heights, dtype=np.float64),
        widths=np.array(images.widths, dtype=np.float64),
        box_images=np.array(boxes.images, dtype=np.int64),
        boxes_xyxy=np.array(boxes.coordinates, dtype=np.float64).reshape(-1, 4),
        box_rows=np.array(boxes.rows, dtype=np.int64),
        categories=np.array(boxes.categories, dtype=np.int64),
        class_names=class_names,
        category_words=boxes.words,
        is_region=np.array(boxes.is_region, dtype=bool),
        occlusion=np.array(boxes.occlusion, dtype=np.int8),
        malformed=malformed,
        repeated={},
    )


def _read_images(tables: JsonTables, format: str, malformed: list[MalformedRow]) -> _Images:
    images = _Images()
    positions: dict[int | str, int] = {}
    name_of, size_of = (frame_name, frame_size) if format == "kaist" else (file_name, stated_size)
    for position, row in enumerate(tables.images):
        try:
            _check_object(row)
            image_id = new_image_id(row, positions)
            positions[image_id] = position
            images.index[image_id] = OUT_OF_PLACE
            name, size = name_of(row), size_of(row)
        except AnnotationError as error:
            message = f"image {position}: {error}"
            malformed.append(MalformedRow(position, "image", message, _said_name(row)))
            continue
        images.index[image_id] = len(images.names)
        images.names.append(name)
        images.ids.append(image_id)
        images.rows.append(position)
        images.heights.append(size.get("height", 0))
        images.widths.append(size.get("width", 0))
    return images


def _read_boxes(
    tables: JsonTables,
    images: _Images,
    targets: Mapping[int | str, int],
    malformed: list[MalformedRow],
) -> _Boxes:
    boxes = _Boxes()
    index = images.index
    for position, row in enumerate(tables.annotations):
        image = OUT_OF_PLACE
        try:
            _check_object(row)
            image = image_of(row, index)
            category = _category(row, targets)
            if category == LEFT_OUT:
                continue
            if image == OUT_OF_PLACE:
                raise AnnotationError(
                    f"the row of its image, id {shown(row['image_id'])}, cannot be read; mend that "
                    "one"
                )
            bbox_xyxy, is_flagged, occlusion = box_values(row)
        except AnnotationError as error:
            name = images.names[image] if image != OUT_OF_PLACE else None
            message = f"annotation {position}: {error}"
            malformed.append(MalformedRow(position, "annotation", message, name))
            continue
        if category is None:
            category = UNKNOWN_CATEGORY
            boxes.words[position] = _category_word(row)
        boxes.images.append(image)
        boxes.coordinates.extend(bbox_xyxy)
        boxes.rows.append(position)
        boxes.categories.append(category)
        boxes.is_region.append(is_flagged or category == IGNORE_REGION)
        boxes.occlusion.append(NOT_STATED if occlusion is None else occlusion)
    return boxes


def _check_object(row: Any) -> None:
    if not isinstance(row, dict):
        raise AnnotationError(f"it must be an object, got {shown(row)}")


def _category(row: Mapping[str, Any], targets: Mapping[int | str, int]) -> int | None:
    """Give the class of a row, ``IGNORE_REGION``, ``LEFT_OUT``, or None if it is unknown."""
    category_id = row.get("category_id")
    if isinstance(category_id, int | str) and not isinstance(category_id, bool):
        return targets.get(category_id)
    return None


def _category_word(row: Mapping[str, Any]) -> str:
    if "category_id" not in row:
        return "none"
    value = row["category_id"]
    return value if isinstance(value, str) else shown(value)


def _said_name(row: Any) -> str | None:
    names = (row.get(key) for key in ("im_name", "file_name")) if isinstance(row, dict) else ()
    return next((name for name in names if isinstance(name, str)), None)
