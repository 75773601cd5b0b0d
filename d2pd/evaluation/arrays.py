"""Labels and detections of a dataset as arrays: what every metric but COCO AP is computed from.

Images are numbered 0..N-1 in the order of the labels. Boxes are x, y, width, height in pixels of
the image file, as label files state them: a height of 55 stays 55.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from d2pd.errors import AnnotationError, ConfigError

logger = logging.getLogger(__name__)

UNKNOWN = -1
"""Occlusion of a label whose file does not state it."""

DECIMALS = 9
"""Of a label's size: the corners alone would make a little less than 55 px of 55 px from 9.1 on."""

LABEL_COLUMNS = ("image_index", "boxes_xywh", "classes", "is_ignore", "occlusion")
DETECTION_COLUMNS = ("image_index", "boxes_xywh", "scores", "classes")


@dataclass(frozen=True)
class LabelArrays:
    """The labels of N images, G boxes, K classes; in the order of the images.

    Attributes:
        image_ids: N ids, each once, as detections name them.
        image_names: N names, such as ``set06/V000/I00019``: what a split goes by.
        image_sizes: (N, 2) int64, height and width in pixels.
        image_index: (G,) int64, ascending.
        boxes_xywh: (G, 4) float64.
        classes: (G,) int64, 0..K-1, or -1 for a region to ignore that has no class.
        is_ignore: (G,) bool, flagged as a region to ignore by the file.
        occlusion: (G,) int64, 0 none, 1 partial, 2 heavy, or ``UNKNOWN``.
        class_names: K names.
    """

    image_ids: tuple[Any, ...]
    image_names: tuple[str, ...]
    image_sizes: np.ndarray
    image_index: np.ndarray
    boxes_xywh: np.ndarray
    classes: np.ndarray
    is_ignore: np.ndarray
    occlusion: np.ndarray
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class DetectionArrays:
    """D detections on the images of a ``LabelArrays``.

    In the order of the images; within one by descending score, ties by x, y, width, height, class:
    so the order of a file's lines changes nothing.

    Attributes:
        image_index: (D,) int64, ascending.
        boxes_xywh: (D, 4) float64.
        scores: (D,) float64, any real numbers.
        classes: (D,) int64, 0..K-1.
    """

    image_index: np.ndarray
    boxes_xywh: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def label_arrays(records: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> LabelArrays:
    """Collect the labels of records as they are; those with NaN or infinity are left out.

    Args:
        records: As a reader gives them, each ``image_id`` once; boxes XYXY in pixels.
        class_names: K names.

    Raises:
        AnnotationError: If an image_id is there twice.
    """
    ids = [record["image_id"] for record in records]
    if len(set(ids)) < len(ids):
        image_id, times = Counter(ids).most_common(1)[0]
        raise AnnotationError(
            f"image_id {image_id!r} is there {times} times; every image of a dataset needs an id "
            "of its own to be evaluated"
        )
    boxes = [[row for row in r.get("annotations", ()) if _is_finite(row["bbox"])] for r in records]
    found = [row for rows in boxes for row in rows]
    left_out = sum(len(record.get("annotations", ())) for record in records) - len(found)
    if left_out:
        logger.warning("%d labels are left out: their boxes are not finite numbers", left_out)
    corners = np.array([row["bbox"] for row in found], dtype=np.float64).reshape(-1, 4)
    return LabelArrays(
        image_ids=tuple(ids),
        image_names=tuple(_name(record) for record in records),
        image_sizes=np.array(
            [(record["height"], record["width"]) for record in records], dtype=np.int64
        ).reshape(-1, 2),
        image_index=np.repeat(np.arange(len(records)), [len(rows) for rows in boxes]),
        boxes_xywh=np.hstack([corners[:, :2], np.round(corners[:, 2:] - corners[:, :2], DECIMALS)]),
        classes=_column(found, "category_id", 0),
        is_ignore=(_column(found, "ignore", 0) | _column(found, "iscrowd", 0)).astype(bool),
        occlusion=_column(found, "occlusion", UNKNOWN),
        class_names=tuple(class_names),
    )


def detection_arrays(
    image_index: np.ndarray, boxes_xywh: np.ndarray, scores: np.ndarray, classes: np.ndarray
) -> DetectionArrays:
    """Bring detections into their order; see ``DetectionArrays`` for the arguments."""
    x, y, width, height = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4).T
    scores = np.asarray(scores, dtype=np.float64)
    order = np.lexsort((classes, height, width, y, x, -scores, image_index))
    return DetectionArrays(
        image_index=np.asarray(image_index, dtype=np.int64)[order],
        boxes_xywh=np.stack([x, y, width, height], axis=1)[order],
        scores=scores[order],
        classes=np.asarray(classes, dtype=np.int64)[order],
    )


def arrays_of_predictions(
    predictions: Sequence[Mapping[str, Any]], labels: LabelArrays
) -> DetectionArrays:
    """Collect the rows of a ``predictions.json``.

    Args:
        predictions: ``image_id``, ``category_id`` 0..K-1, ``bbox`` XYWH, ``score`` each.
        labels: Of the dataset that they were made on.

    Raises:
        AnnotationError: If an image or a class is not of the dataset, or a number is not finite.
    """
    numbers = {image_id: number for number, image_id in enumerate(labels.image_ids)}
    for position, row in enumerate(predictions):
        if row["image_id"] not in numbers:
            raise AnnotationError(
                f"detection {position} is on image {row['image_id']!r}, which is not in the "
                f"dataset of {len(numbers)} images; were the detections made on another one?"
            )
        if not 0 <= row["category_id"] < len(labels.class_names):
            raise AnnotationError(
                f"detection {position} (image {row['image_id']!r}) has class "
                f"{row['category_id']}; the dataset has {len(labels.class_names)}: "
                f"{', '.join(labels.class_names)}"
            )
    boxes = np.array([row["bbox"] for row in predictions], dtype=np.float64).reshape(-1, 4)
    scores = np.array([row["score"] for row in predictions], dtype=np.float64)
    is_sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1)
    is_sound &= np.isfinite(scores)
    if not is_sound.all():
        row = predictions[int(np.argmin(is_sound))]
        raise AnnotationError(
            f"detection {int(np.argmin(is_sound))} (image {row['image_id']!r}) is not finite, or "
            f"of negative size: {row['bbox']}, score {row['score']}"
        )
    index = np.array([numbers[row["image_id"]] for row in predictions], dtype=np.int64)
    return detection_arrays(index, boxes, scores, _column(predictions, "category_id", 0))


def of_class(
    labels: LabelArrays, detections: DetectionArrays, class_index: int
) -> tuple[LabelArrays, DetectionArrays]:
    """Keep one class, and the regions without a class, which stand for every one; all images stay.

    Raises:
        ValueError: If there is no such class.
    """
    if not 0 <= class_index < len(labels.class_names):
        raise ValueError(
            f"class_index must be 0..{len(labels.class_names) - 1}, got {class_index}; the classes "
            f"are {', '.join(labels.class_names)}"
        )
    is_kept = (labels.classes == class_index) | (labels.classes < 0)
    is_found = detections.classes == class_index
    return labels_where(labels, is_kept), detections_where(detections, is_found)


def labels_to_find(labels: LabelArrays, is_ignored: np.ndarray | None = None) -> np.ndarray:
    """Return which labels a detector is asked to find.

    Args:
        labels: G labels.
        is_ignored: (G,) bool, labels that are regions to ignore beside those of the file, as
            ``subsets.ignored`` gives them; None: no others.

    Returns:
        (G,) bool.

    Raises:
        ValueError: If there is not one value for each label.
    """
    is_object = ~labels.is_ignore & (labels.classes >= 0)
    if is_ignored is None:
        return is_object
    if np.shape(is_ignored) != is_object.shape:
        raise ValueError(
            f"is_ignored has shape {np.shape(is_ignored)} for {len(is_object)} labels; it needs "
            "one value for each label"
        )
    return is_object & ~np.asarray(is_ignored, dtype=bool)


def labels_where(labels: LabelArrays, is_chosen: np.ndarray) -> LabelArrays:
    """Keep the labels of which (G,) bool says so; all images stay."""
    return replace(labels, **{name: getattr(labels, name)[is_chosen] for name in LABEL_COLUMNS})


def detections_where(detections: DetectionArrays, is_chosen: np.ndarray) -> DetectionArrays:
    """Keep the detections of which (D,) bool says so."""
    chosen = {name: getattr(detections, name)[is_chosen] for name in DETECTION_COLUMNS}
    return replace(detections, **chosen)


def rank_in_image(detections: DetectionArrays) -> np.ndarray:
    """Return the place of each detection in its image, (D,) int64: 0 for the best score."""
    first = np.searchsorted(detections.image_index, detections.image_index)
    return np.arange(detections.scores.size) - first


def scored_from(detections: DetectionArrays, score_threshold: float) -> np.ndarray:
    """Return which detections have that score or a higher one: (D,) bool.

    Raises:
        ConfigError: If the threshold is NaN.
    """
    if math.isnan(score_threshold):
        raise ConfigError("the score threshold is NaN; give a number, such as 0.5")
    return detections.scores >= score_threshold


def _column(rows: Sequence[Mapping[str, Any]], key: str, default: int) -> np.ndarray:
    values = (row.get(key) for row in rows)
    return np.array([default if value is None else value for value in values], dtype=np.int64)


def _is_finite(box: Sequence[float]) -> bool:
    return all(map(math.isfinite, box))


def _name(record: Mapping[str, Any]) -> str:
    return str(record.get("im_name") or PurePath(record["file_name"]).as_posix())
