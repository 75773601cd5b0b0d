"""Weighted boxes fusion of result files: detections of several methods become those of one.

A file that has nothing on an image counts there as a source without detections, so what the others
see keeps a part of its score only: a result file cannot tell "not run" from "nothing found".
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from d2pd.errors import ConfigError, ResultFileError
from d2pd.evaluation.arrays import DECIMALS
from d2pd.evaluation.coco import coco_results
from d2pd.evaluation.result_files.raw_detections import RawDetections
from d2pd.evaluation.result_files.result_file import read_raw_detections, refuse, whole_id
from d2pd.inference.fusion import Source, fuse
from d2pd.json_file import write_json
from d2pd.output_files import check_outputs, real_path

ImageId: TypeAlias = int | str

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Categories:
    """What the detections of all files may be of.

    Attributes:
        names: Of category 0, 1, ..., as a ``predictions.json`` states them; else None.
        spelled: Each category as the files spell it, the position is its number; empty where
            no file states any.
    """

    names: tuple[str, ...] | None
    spelled: tuple[Any, ...]


def write_fused(paths: Sequence[str | Path], output: Path) -> None:
    """Fuse result files into one; see ``fuse_files``.

    Args:
        paths: Two or more files.
        output: What lies there is replaced; its name must end in ``.json`` to be read again.

    Raises:
        UserError: If a file cannot be used, or the output not be written.
    """
    check_outputs([output], [Path(path) for path in paths])
    write_json(output, fuse_files(paths))


def fuse_files(paths: Sequence[str | Path]) -> dict[str, Any] | list[dict[str, Any]]:
    """Fuse result files image by image; see ``fusion.fuse``.

    Args:
        paths: Two or more of the forms that ``evaluation.result_files`` knows. Those that name
            classes must name the same; one that states none, as a ``.txt`` does, goes with files
            of a single class.

    Returns:
        As ``predictions.json`` holds it: ``class_names`` and ``predictions``; where no file names
        its classes, the predictions alone, by the category ids of the files. In the order of the
        image ids.

    Raises:
        MissingFileError: If a file is not there.
        ConfigError: If there are not two, or one is given twice.
        ResultFileError: If one cannot be used, a score is not in [0, 1], or the classes differ.
    """
    _check_paths(paths)
    files = [read_raw_detections(path) for path in paths]
    for raw in files:
        _check_scores(raw)
    categories = _categories(files)
    classes = [_class_numbers(raw, categories) for raw in files]
    rows_of = [_rows_by_image(raw) for raw in files]
    if not set.intersection(*map(set, rows_of)):
        logger.warning(
            "no image is in all of %s: were they made on other images, or are the ids of one off "
            "by one?",
            ", ".join(str(raw.path) for raw in files),
        )
    predictions = []
    for image_id in sorted(set().union(*rows_of), key=_order):
        sources = [
            _source(raw, numbers, rows.get(image_id, []))
            for raw, numbers, rows in zip(files, classes, rows_of, strict=True)
        ]
        predictions += _spelled(coco_results(image_id, *fuse(sources)), categories)
    if categories.names is None:
        return predictions
    return {"class_names": list(categories.names), "predictions": predictions}


def _check_paths(paths: Sequence[str | Path]) -> None:
    if len(paths) < 2:
        raise ConfigError(
            f"{len(paths)} result files to fuse ({', '.join(map(str, paths)) or 'none'}); "
            "name two or more"
        )
    file, times = Counter(real_path(Path(path)) for path in paths).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"{file}: this result file is given {times} times; name it once")


def _check_scores(raw: RawDetections) -> None:
    scores = raw.numbers[:, 4]
    refuse(
        raw,
        (scores < 0) | (scores > 1),
        "x, y, w, h, score = {}: fusion takes the mean of scores, which must be in [0, 1]; bring "
        "those of this file there first, such as by a logistic function",
    )


def _categories(files: Sequence[RawDetections]) -> Categories:
    """Find the categories that all files agree on."""
    stating = [raw for raw in files if raw.class_names or raw.categories is not None]
    for other in stating[1:]:
        if other.class_names != stating[0].class_names:
            raise ResultFileError(
                f"{stating[0].path} and {other.path} cannot be fused: the classes of the one are "
                f"{_listed(stating[0])}, of the other {_listed(other)}; fuse files of the same "
                'classes, such as {"class_names": [...], "predictions": [...]} with category_id '
                "0, 1, ..."
            )
    names = stating[0].class_names if stating else None
    stated = {category for raw in stating for category in raw.categories or ()} - {None}
    spelled = tuple(range(len(names))) if names else tuple(sorted(stated, key=_order))
    for raw in files:
        if raw.categories is None and len(spelled) > 1:
            raise ResultFileError(
                f"{raw.path}: the file does not say of which class its detections are, and "
                f"{stating[0].path} has {len(spelled)} ({_listed(stating[0])}); write a .json "
                "with category_id"
            )
    return Categories(names, spelled)


def _listed(raw: RawDetections) -> str:
    if raw.class_names:
        return ", ".join(raw.class_names)
    stated = sorted(set(raw.categories or ()) - {None}, key=_order)
    return f"not named (category_id {', '.join(map(repr, stated))})"


def _class_numbers(raw: RawDetections, categories: Categories) -> np.ndarray:
    """Give the class of each detection, (D,) int64."""
    if raw.categories is None:
        return np.zeros(len(raw.numbers), dtype=np.int64)
    positions = {spelled: number for number, spelled in enumerate(categories.spelled)}
    numbers = np.array([positions.get(category, -1) for category in raw.categories])
    if (numbers < 0).any():
        row = int(np.argmax(numbers < 0))
        raise ResultFileError(
            f"{raw.where(row)}: category_id {raw.categories[row]!r} is not one of "
            f"{', '.join(map(repr, categories.spelled))}"
        )
    return numbers


def _rows_by_image(raw: RawDetections) -> dict[ImageId, list[int]]:
    """Give the detections of each image, by its id in the label file."""
    rows: dict[ImageId, list[int]] = defaultdict(list)
    spelled = raw.image_ids.tolist() if isinstance(raw.image_ids, np.ndarray) else raw.image_ids
    for row, value in enumerate(spelled):
        image_id = value if isinstance(value, int | str) else whole_id(value, raw.id_offset)
        if image_id is None:
            raise ResultFileError(
                f"{raw.where(row)}: image_id {value!r} is neither a whole number nor a name; "
                "write the ids of the label file"
            )
        rows[image_id].append(row)
    return rows


def _source(raw: RawDetections, classes: np.ndarray, rows: Sequence[int]) -> Source:
    boxes = raw.numbers[rows, :4]
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    return corners, raw.numbers[rows, 4], classes[rows]


def _spelled(rows: list[dict[str, Any]], categories: Categories) -> list[dict[str, Any]]:
    """Write categories as the files spell them, none where they state none, and round sizes."""
    for row in rows:
        row["bbox"] = [round(number, DECIMALS) for number in row["bbox"]]
        number = row.pop("category_id")
        if categories.spelled:
            row["category_id"] = categories.spelled[number]
    return rows


def _order(value: Any) -> tuple[bool, Any]:
    """Sort numbers first, then names."""
    return isinstance(value, str), value
