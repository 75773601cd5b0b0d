"""COCO average precision of boxes, with ignore regions.

A *prediction* is one row of a COCO result file: ``image_id`` (of its record), ``category_id``
(0..K-1, in the order of the class names), ``bbox`` [x, y, width, height] in pixels of the image
file, ``score``.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from d2pd.errors import AnnotationError
from d2pd.evaluation.arrays import arrays_of_predictions, label_arrays

LARGEST_AREA = 1e10
"""Square pixels; COCO counts no object above."""
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
AREA_RANGES = {
    "APs": ("under 32x32 px", 0.0, 32.0**2),
    "APm": ("between 32x32 and 96x96 px", 32.0**2, 96.0**2),
    "APl": ("over 96x96 px", 96.0**2, LARGEST_AREA),
}
"""What each size means in words, and its least and largest area in square pixels, both included."""


def coco_results(
    image_id: Any, boxes_xyxy: np.ndarray, scores: np.ndarray, classes: np.ndarray
) -> list[dict[str, Any]]:
    """Turn the detections on one image into COCO results.

    Args:
        image_id: Of the image.
        boxes_xyxy: (N, 4).
        scores: (N,).
        classes: (N,) 0..K-1.

    Returns:
        N rows: ``image_id``, ``category_id`` 0..K-1, ``bbox`` XYWH, ``score``.
    """
    corners = boxes_xyxy.astype(np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {"image_id": image_id, "category_id": category, "bbox": bbox, "score": score}
        for category, bbox, score in zip(
            classes.tolist(), boxes.tolist(), scores.tolist(), strict=True
        )
    ]


def evaluate_boxes(
    records: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
) -> dict[str, float]:
    """Compute COCO AP over all images of a dataset.

    An annotation with ``ignore`` or ``iscrowd`` is neither to be found nor a mistake to find: a
    detection on it is not counted. One without a class (``category_id`` -1) stands for every
    class. At most the 100 best detections of an image and class count.

    Args:
        records: The dataset, each ``image_id`` once; boxes XYXY in pixels.
        predictions: Detections, as the module describes them; images may have none.
        class_names: K names.

    Returns:
        ``AP`` (mean over IoU 0.50:0.95), ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl`` and
        ``AP-<class>``, in 0..100; NaN where the dataset holds no object to find, see
        ``explain_nan``. Without a single detection they are 0.

    Raises:
        AnnotationError: If an image_id is there twice, a detection is on an image that is not in
            the dataset or is not finite, a label is not finite or has a negative size, or a class
            id is out of range.

    Source: Lin et al., Microsoft COCO, ECCV 2014; the rules of pycocotools' COCOeval.
    """
    labels = label_arrays(records, class_names)
    arrays_of_predictions(predictions, labels)  # raises where they do not fit the labels
    # Numbered from 1: COCO tools take integers only, and some take 0 for nothing.
    ids = {image_id: number for number, image_id in enumerate(labels.image_ids, start=1)}
    truth = COCO(_ground_truth(records, ids, class_names))
    found = truth.loadRes(
        [
            {
                "image_id": ids[row["image_id"]],
                "category_id": row["category_id"] + 1,
                "bbox": [float(value) for value in row["bbox"]],
                "score": float(row["score"]),
            }
            for row in predictions
        ]
    )
    evaluation = COCOeval_faster(truth, found, iouType="bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return _results(evaluation, class_names)


def explain_nan(
    results: Mapping[str, float],
    records: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
) -> dict[str, str]:
    """Say for each metric that is NaN why it could not be computed.

    Args:
        results: What ``evaluate_boxes`` returned.
        records: What it was given.
        class_names: What it was given.

    Returns:
        metric -> reason, for the metrics that are NaN.
    """
    annotations = [row for record in records for row in record.get("annotations", [])]
    objects = [row for row in annotations if not _is_ignore(row)]
    counted = [row for row in objects if _area(row) <= LARGEST_AREA]
    limit = f" of up to {LARGEST_AREA:g} square px" if len(counted) < len(objects) else ""
    regions = Counter(row["category_id"] for row in annotations if _is_ignore(row))
    reasons = {}
    for name in (name for name, value in results.items() if math.isnan(value)):
        if not counted:
            what = f"labels of these {len(records)} images hold no object{limit}"
            reasons[name] = f"the {what}{_only_regions(regions.total())}"
        elif name in AREA_RANGES:
            reasons[name] = f"the labels hold no object {AREA_RANGES[name][0]}"
        else:
            class_name = name.removeprefix("AP-")
            num_regions = regions[class_names.index(class_name)]
            reasons[name] = f"the labels hold no {class_name}{limit}{_only_regions(num_regions)}"
    return reasons


def _only_regions(count: int) -> str:
    return f", only {count} {'region' if count == 1 else 'regions'} to ignore" if count else ""


def _ground_truth(
    records: Sequence[Mapping[str, Any]], ids: Mapping[Any, int], class_names: Sequence[str]
) -> dict[str, Any]:
    """Return the records as a COCO dataset, classes numbered from 1."""
    annotations = [
        row | {"image_id": ids[record["image_id"]]}
        for record in records
        for annotation in record.get("annotations", [])
        for row in _coco_rows(annotation, class_names, str(record["file_name"]))
    ]
    for number, row in enumerate(annotations, start=1):
        row["id"] = number
    return {
        "info": {},
        "images": [
            {"id": ids[record["image_id"]], "height": record["height"], "width": record["width"]}
            for record in records
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for n, name in enumerate(class_names, start=1)],
    }


def _coco_rows(
    annotation: Mapping[str, Any], class_names: Sequence[str], file_name: str
) -> Iterator[dict[str, Any]]:
    """Yield one COCO annotation, or one of every class for an ignore region without a class."""
    x1, y1, x2, y2 = (float(value) for value in annotation["bbox"])
    if not (math.isfinite(x1 + y1 + x2 + y2) and x2 >= x1 and y2 >= y1):
        raise AnnotationError(
            f"{file_name}: a label has the corners {x1:g}, {y1:g}, {x2:g}, {y2:g}; they must be "
            "finite numbers, the second corner right of and below the first"
        )
    category, is_ignore = annotation["category_id"], _is_ignore(annotation)
    if not (0 <= category < len(class_names) or (category == -1 and is_ignore)):
        raise AnnotationError(
            f"{file_name}: a label has class {category}; the dataset has {len(class_names)}: "
            f"{', '.join(class_names)}"
        )
    for index in range(len(class_names)) if category == -1 else [category]:
        yield {
            "category_id": index + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": _area(annotation),
            "iscrowd": int(is_ignore),
        }


def _area(annotation: Mapping[str, Any]) -> float:
    x1, y1, x2, y2 = (float(value) for value in annotation["bbox"])
    return (x2 - x1) * (y2 - y1)


def _is_ignore(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("ignore", 0) or annotation.get("iscrowd", 0))


def _results(evaluation: COCOeval_faster, class_names: Sequence[str]) -> dict[str, float]:
    results = {
        name: _percent(value)
        for name, value in zip(METRICS, evaluation.stats[: len(METRICS)], strict=True)
    }
    # Dimensions: IoU threshold, recall, class, area range (0: all), number of detections (-1: 100).
    precision = evaluation.eval["precision"]
    for index, name in enumerate(class_names):
        results[f"AP-{name}"] = _mean_precision(precision[:, :, index, 0, -1])
    return results


def _mean_precision(precision: np.ndarray) -> float:
    computed = precision[precision > -1]
    return _percent(float(np.mean(computed))) if computed.size else math.nan


def _percent(value: float) -> float:
    """Turn 0..1 into 0..100, and the -1 that stands for nothing to find into NaN."""
    return float(value) * 100 if value >= 0 else math.nan


def _silent(*_words: object) -> None:
    """Take what the library would print."""
