"""The ``.json`` forms of detections: a COCO result list, and d2pd's own ``predictions.json``."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from d2pd.errors import ResultFileError
from d2pd.evaluation.result_files.raw_detections import RawDetections

EXPECTED = "a list of {image_id, category_id, bbox [x, y, w, h], score} is expected"
NUMBERS = {int, float}
IDENTIFIERS = {int, float, str}


def parse_json(content: bytes, path: Path) -> RawDetections:
    """Read a list of detections, or the object that d2pd writes around one.

    Args:
        content: Of the file.
        path: Its name, for messages.

    Raises:
        ResultFileError: If it is not JSON, or a detection lacks a value or has one of another
            type; the message names the detection, counted from 0.
    """
    loaded = _load(content, path)
    class_names = None
    if isinstance(loaded, dict):
        loaded, class_names = _unwrap(loaded, path)
    if not isinstance(loaded, list):
        raise ResultFileError(f"{path}: {EXPECTED}, got {type(loaded).__name__}")
    if not loaded:
        raise ResultFileError(f"{path}: the list of detections is empty; was the detector run?")
    columns = _columns(loaded)
    if columns is None:
        number, fault = next((n, text) for n, row in enumerate(loaded) if (text := _fault(row)))
        raise ResultFileError(f"{_where(path, number)}: {fault}; {EXPECTED}")
    image_ids, numbers = columns
    categories = [row.get("category_id") for row in loaded]
    return RawDetections(
        path=path,
        image_ids=image_ids,
        id_offset=0,
        numbers=numbers,
        categories=None if set(categories) == {None} else categories,
        class_names=class_names,
        where=partial(_where, path),
    )


def _load(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ResultFileError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); the file "
            "may be cut off or of another format: write it again"
        ) from error
    except UnicodeDecodeError as error:
        raise ResultFileError(
            f"{path}: byte {error.start} is not {error.encoding.upper()} text; {EXPECTED}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ResultFileError(f"{path}: cannot be read as JSON ({error})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = ", ".join(key for key, _ in pairs)
        raise ValueError(f"an object has a key twice: {_short(keys)}")
    return found


def _unwrap(content: Mapping[str, Any], path: Path) -> tuple[Any, tuple[str, ...]]:
    names = content.get("class_names")
    is_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if names and is_names and "predictions" in content:
        if len(set(names)) < len(names):
            raise ResultFileError(f"{path}: class_names holds a name twice: {_short(names)}")
        return content["predictions"], tuple(names)
    found = ", ".join(sorted(map(str, content))[:6]) or "nothing"
    hint = "; this looks like a label file" if "annotations" in content else ""
    raise ResultFileError(
        f"{path}: {EXPECTED}, or an object with class_names and predictions; found {found}{hint}"
    )


def _columns(rows: Sequence[Any]) -> tuple[list[Any], np.ndarray] | None:
    """Give image ids and (D, 5) numbers; None if any detection has a fault."""
    try:
        image_ids = [row["image_id"] for row in rows]
        boxes = [row["bbox"] for row in rows]
        scores = [row["score"] for row in rows]
        categories = [row.get("category_id") for row in rows]
        values = [*chain.from_iterable(boxes), *scores]
        is_sound = (
            set(map(type, rows)) == {dict}
            and set(map(type, image_ids)) <= IDENTIFIERS
            and set(map(type, categories)) <= IDENTIFIERS | {type(None)}
            and set(map(type, boxes)) == {list}
            and set(map(len, boxes)) == {4}
            and set(map(type, values)) <= NUMBERS
        )
        numbers = np.array(values, dtype=np.float64) if is_sound else None
    except (TypeError, KeyError, AttributeError, OverflowError):
        return None
    if numbers is None:
        return None
    return image_ids, np.column_stack([numbers[: -len(rows)].reshape(-1, 4), numbers[-len(rows) :]])


def _fault(row: Any) -> str | None:
    """Say what makes a detection unusable, by the rules of ``_columns``."""
    if not isinstance(row, dict):
        return f"got {_short(row)}"
    for key in ("image_id", "bbox", "score"):
        if key not in row:
            return f"there is no {key} (found {_short(', '.join(map(str, row)))})"
    for key in ("image_id", "category_id"):
        if row.get(key, 0) is not None and type(row.get(key, 0)) not in IDENTIFIERS:
            return f"{key} must be a whole number or a name, got {_short(row[key])}"
    if row["image_id"] is None:
        return "image_id must be a whole number or a name, got null"
    box = row["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox must be four numbers x, y, width, height, got {_short(box)}"
    if not _is_number(row["score"]):
        return f"score must be a number, got {_short(row['score'])}"
    return None


def _is_number(value: Any) -> bool:
    try:
        return type(value) in NUMBERS and float(value) is not None
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _where(path: Path, number: int) -> str:
    return f"{path}, detection {number} (counted from 0)"
