"""Result files of any detector: what published miss rates are computed from.

Forms: ``.txt`` with ``image_id,x,y,w,h,score`` a line, where ``image_id`` is that of the label file
+ 1; ``.json`` with a list of ``{image_id, category_id, bbox [x, y, w, h], score}`` by the ids of
the label file; and the ``predictions.json`` that d2pd writes, which names its classes.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d2pd.data.annotations.labels import FARTHEST
from d2pd.errors import MissingFileError, ResultFileError
from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, detection_arrays
from d2pd.evaluation.result_files.raw_detections import RawDetections
from d2pd.evaluation.result_files.result_json import parse_json
from d2pd.evaluation.result_files.result_lines import parse_lines
from d2pd.evaluation.result_files.shifted_ids import find_shift

logger = logging.getLogger(__name__)

FORMS = {".txt": parse_lines, ".json": parse_json}

LEFT_OUT = -1
"""Class of a detection whose category the label file has, but not as one to be found."""

Identifier = int | str


def read_result_file(
    path: str | Path,
    labels: LabelArrays,
    category_ids: Mapping[Identifier, int] | None = None,
) -> DetectionArrays:
    """Read the detections of one method; the log says what was left out or looks odd.

    Args:
        path: ``.txt`` or ``.json``.
        labels: What they are measured on.
        category_ids: Class 0..K-1, or a negative number, of each category id of the label file;
            None where its ids are 0..K-1.

    Raises:
        MissingFileError: If there is no such file, or it may not be read.
        ResultFileError: If it is empty or any detection cannot be used; the message names file and
            line, or detection counted from 0.
    """
    raw = read_raw_detections(path)
    image_index = _image_index(raw, labels)
    classes = _classes(raw, labels, category_ids)
    is_kept = classes != LEFT_OUT
    detections = detection_arrays(
        image_index[is_kept], raw.numbers[is_kept, :4], raw.numbers[is_kept, 4], classes[is_kept]
    )
    _warn_of_oddities(detections, raw.path)
    shift = find_shift(labels, detections, 1 if raw.id_offset else -1)
    if shift:
        logger.warning(
            "%s: the image ids seem to be off by one: the detections %s", raw.path, shift
        )
    return detections


def read_raw_detections(path: str | Path) -> RawDetections:
    """Read the detections of one method as the file states them, without labels.

    Args:
        path: ``.txt`` or ``.json``.

    Raises:
        MissingFileError: If there is no such file, or it may not be read.
        ResultFileError: If it is empty, or a detection lacks a value or has one that no image
            could give; which images and classes there are is not asked.
    """
    path = Path(path)
    content = _read(path)
    raw = FORMS[path.suffix.lower()](content, path)
    _check_numbers(raw)
    return raw


def whole_id(value: float, offset: int) -> int | None:
    """Return the id in the label file of an image that a ``.txt`` names; None if it is no id."""
    return int(value) - offset if value.is_integer() and abs(value) < 2**53 else None


def refuse(raw: RawDetections, is_bad: np.ndarray, message: str) -> None:
    """Refuse a file for some of its detections.

    Args:
        raw: What it holds.
        is_bad: (D,) bool.
        message: What is wrong; ``{}`` in it becomes the numbers of the first of them.

    Raises:
        ResultFileError: If any is bad; the message names the first.
    """
    if is_bad.any():
        row = int(np.argmax(is_bad))
        values = ", ".join(f"{value:.10g}" for value in raw.numbers[row])
        raise ResultFileError(f"{raw.where(row)}: {message.format(values)}{_like_it(is_bad)}")


def count_repeated(detections: DetectionArrays) -> int:
    """Count the detections that are there already: same image, class, box and score."""
    count = 0
    for class_index in np.unique(detections.classes):
        rows = np.column_stack([detections.image_index, detections.scores, detections.boxes_xywh])[
            detections.classes == class_index
        ]
        count += int((rows[1:] == rows[:-1]).all(axis=1).sum())
    return count


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ResultFileError(f"{path}: this is a folder; name its result files one by one")
    if not path.is_file():
        what = "a pipe or device; save it to a file" if path.exists() else "no such result file"
        raise MissingFileError(f"{path}: {what} (looked from {Path.cwd()})")
    if path.suffix.lower() not in FORMS:
        raise ResultFileError(
            f"{path}: a result file ends in {' or '.join(FORMS)}; rename it if it has that form"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingFileError(
            f"{path}: cannot be read ({error.strerror}); mend its permissions or copy it again"
        ) from error
    if not content.removeprefix(b"\xef\xbb\xbf").strip():
        raise ResultFileError(
            f"{path}: the file is empty; a miss rate of no detections would say nothing: was the "
            "detector run, and the file copied whole?"
        )
    return content


def _check_numbers(raw: RawDetections) -> None:
    is_finite = np.isfinite(raw.numbers).all(axis=1)
    refuse(raw, ~is_finite, "x, y, w, h, score = {} must be finite numbers")
    refuse(
        raw,
        np.any(np.abs(raw.numbers[:, :4]) > FARTHEST, axis=1),
        "x, y, w, h of x, y, w, h, score = {} must be pixels of an image",
    )
    refuse(
        raw,
        np.any(raw.numbers[:, 2:4] < 0, axis=1),
        "w, h of x, y, w, h, score = {} must not be negative",
    )


def _like_it(is_bad: np.ndarray) -> str:
    return f" ({is_bad.sum():,} of {is_bad.size:,} are like it)" if is_bad.sum() > 1 else ""


def _image_index(raw: RawDetections, labels: LabelArrays) -> np.ndarray:
    """Give the image of each detection, (D,) int64."""
    positions = {image_id: number for number, image_id in enumerate(labels.image_ids)}
    if isinstance(raw.image_ids, np.ndarray):
        spelled, which = np.unique(raw.image_ids, return_inverse=True)
        known = [positions.get(whole_id(value, raw.id_offset), -1) for value in spelled.tolist()]
        index = np.array(known, dtype=np.int64)[which]
    else:
        index = np.array([positions.get(value, -1) for value in raw.image_ids], dtype=np.int64)
    if (index < 0).any():
        raise ResultFileError(_unknown_images(raw, labels, index < 0))
    return index


def _unknown_images(raw: RawDetections, labels: LabelArrays, is_unknown: np.ndarray) -> str:
    row = int(np.argmax(is_unknown))
    spelled = raw.image_ids[row]
    spelled = f"{spelled:.15g}" if isinstance(spelled, float) else repr(spelled)
    return (
        f"{raw.where(row)}: image_id {spelled} is not in the label file, which has "
        f"{_describe_ids(labels, raw.id_offset)}{_like_it(is_unknown)}; {_id_hint(raw, labels)}"
    )


def _describe_ids(labels: LabelArrays, offset: int) -> str:
    ids = labels.image_ids
    if not ids:
        return "no image at all"
    if not all(isinstance(image_id, int) for image_id in ids):
        return f"{len(ids):,} images with ids such as {ids[0]!r}"
    written = f", written {min(ids) + offset} to {max(ids) + offset} in a .txt" if offset else ""
    return f"{len(ids):,} images with ids {min(ids)} to {max(ids)}{written}"


def _id_hint(raw: RawDetections, labels: LabelArrays) -> str:
    """Say what the ids look like instead."""
    known: set[Any] = set(labels.image_ids)
    ids = set(np.asarray(raw.image_ids).tolist()) if raw.id_offset else set(raw.image_ids)
    if raw.id_offset and not any(isinstance(image_id, int) for image_id in known):
        return "a .txt cannot name such images: write a .json"
    if raw.id_offset and 0 in ids:
        return (
            "a .txt names an image by its id in the label file + 1, and this one seems to count "
            "from 0: add 1 to every image_id"
        )
    if raw.id_offset and ids <= known:
        return "these are the ids as the label file has them: a .txt needs them + 1"
    if not raw.id_offset and all(_is_int(image_id) and image_id - 1 in known for image_id in ids):
        return "all would be known if 1 less: a .json needs the ids as the label file has them"
    return "were the detections made on another list of images?"


def _is_int(value: object) -> bool:
    return isinstance(value, int)


def _classes(
    raw: RawDetections, labels: LabelArrays, category_ids: Mapping[Identifier, int] | None
) -> np.ndarray:
    """Give the class of each detection, (D,) int64, or ``LEFT_OUT``."""
    names = labels.class_names
    count = len(raw.numbers)
    if raw.categories is None:
        if len(names) == 1:
            return np.zeros(count, dtype=np.int64)
        raise ResultFileError(
            f"{raw.path}: the file names no classes, and the labels have {len(names)} "
            f"({', '.join(names)}); write a .json with category_id"
        )
    targets = _targets(raw, labels, category_ids)
    try:
        classes = [targets[category] for category in raw.categories]
    except KeyError:
        row = next(n for n, category in enumerate(raw.categories) if category not in targets)
        raise ResultFileError(
            f"{raw.where(row)}: category_id {raw.categories[row]!r} is not one of "
            f"{_listed(targets, names)}"
        ) from None
    return _leave_out(raw, np.array(classes, dtype=np.int64), targets, names)


def _targets(
    raw: RawDetections, labels: LabelArrays, category_ids: Mapping[Identifier, int] | None
) -> dict[Identifier, int]:
    names = labels.class_names
    if raw.class_names is not None:
        if len(names) == len(raw.class_names) == 1:
            _warn_of_other_name(raw.class_names[0], names[0], raw.path)
            return {0: 0}
        return {
            number: names.index(name) if name in names else LEFT_OUT
            for number, name in enumerate(raw.class_names)
        }
    ids = {number: number for number in range(len(names))} if category_ids is None else category_ids
    return {key: max(number, LEFT_OUT) for key, number in ids.items()}


def _warn_of_other_name(theirs: str, ours: str, path: Path) -> None:
    if theirs != ours:
        logger.warning("%s: its only class, %r, is taken for the labels' %r", path, theirs, ours)


def _leave_out(
    raw: RawDetections,
    classes: np.ndarray,
    targets: Mapping[Identifier, int],
    names: tuple[str, ...],
) -> np.ndarray:
    """Warn of detections of what is not to be found, and raise if nothing else is there."""
    if (classes == LEFT_OUT).any():
        pairs = zip(raw.categories or (), classes, strict=True)
        spelled = [category for category, number in pairs if number == LEFT_OUT]
        listed = ", ".join(f"{category!r}: {n:,}" for category, n in Counter(spelled).most_common())
        text = (
            f"{raw.path}: {len(spelled):,} of {len(classes):,} detections are of a category that "
            f"is not to be found (category_id {listed}); to be found: {_listed(targets, names)}"
        )
        if len(spelled) == len(classes):
            raise ResultFileError(f"{text}; write the category ids of the label file")
        logger.warning("%s; they are left out", text)
    return classes


def _listed(targets: Mapping[Identifier, int], names: tuple[str, ...]) -> str:
    return ", ".join(f"{key!r} {names[number]}" for key, number in targets.items() if number >= 0)


def _warn_of_oddities(detections: DetectionArrays, path: Path) -> None:
    repeated = count_repeated(detections)
    if repeated:
        logger.warning(
            "%s: %s detections are there more than once, with the same score; each counts, as the "
            "protocol has it",
            path,
            f"{repeated:,}",
        )
    empty = int((detections.boxes_xywh[:, 2:] == 0).any(axis=1).sum())
    if empty:
        logger.warning(
            "%s: %s detections have no width or no height; they can find nothing and count as "
            "false positives",
            path,
            f"{empty:,}",
        )
