"""The labels and stored detections of a run's datasets."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.cleaning import clean_records
from d2pd.data.dataset_source import DatasetSource
from d2pd.data.records import Record, load_records
from d2pd.errors import MissingFileError, UserError
from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, arrays_of_predictions, label_arrays
from d2pd.evaluation.build import has_miss_rate, miss_rate_protocol
from d2pd.evaluation.coco import evaluate_boxes, explain_nan
from d2pd.evaluation.comparison import notes_on
from d2pd.evaluation.label_convention import explain_low_ap
from d2pd.evaluation.result_files.result_file import read_result_file
from d2pd.reporting.report.measured import Evaluated

WHERE_DATA_LIE = (
    "Do this in the folder where the training ran, or name the folder of the datasets in "
    "D2PD_DATASETS."
)


@dataclass(frozen=True)
class Records:
    """The records of a dataset.

    Attributes:
        uncleaned: Boxes as the file has them: what miss rates are computed from.
        cleaned: What AP is computed from.
        trouble: Why they are without pictures; empty where they have them.
    """

    uncleaned: list[Record]
    cleaned: list[Record]
    trouble: str = ""


def read_records(name: str) -> Records:
    """Read a dataset that need not have its pictures any more.

    Raises:
        UserError: If its labels cannot be read, or not without the pictures.
    """
    if name not in DatasetCatalog:
        raise MissingFileError(
            f"no dataset {name!r} is registered: config.yaml does not name it in DATASETS.REGISTER"
        )
    source = MetadataCatalog.get(name).get("source")
    if source is not None and source.drawing is not None and not source.annotations.is_file():
        raise MissingFileError(f"{source.annotations}: no such file. {WHERE_DATA_LIE}")
    try:
        return Records(load_records(name, cleaned=False), load_records(name, quiet=True))
    except UserError as error:
        if source is None:
            raise
        records = _without_pictures(source, error)
        cleaned, _ = clean_records(records, min_size=source.min_box_size)
        return Records(records, cleaned, f"No pictures: {error}. {WHERE_DATA_LIE}")


def _without_pictures(source: DatasetSource, error: UserError) -> list[Record]:
    try:
        records = source.read(None).records
    except UserError as worse:
        raise MissingFileError(f"{worse}. {WHERE_DATA_LIE}") from worse
    if any("height" not in record for record in records):
        raise MissingFileError(f"{error}. {WHERE_DATA_LIE}") from error
    return records


def evaluated(cfg: CfgNode, name: str, path: Path, records: Records) -> Evaluated:
    """Read the detections of a dataset, and say how they are to be judged.

    Raises:
        UserError: If labels or detections cannot be used.
    """
    class_names = list(MetadataCatalog.get(name).thing_classes)
    labels = label_arrays(records.uncleaned, class_names)
    detections = read_predictions(path, labels)
    precision = evaluate_boxes(records.cleaned, _rows(detections, labels), class_names)
    protocol = miss_rate_protocol(cfg) if has_miss_rate(cfg, name) else None
    warnings = [records.trouble, explain_low_ap(labels, detections, precision)]
    if protocol is not None:
        warnings += notes_on(labels, protocol)
    return Evaluated(
        name=name,
        labels=labels,
        detections=detections,
        precision=precision,
        reasons=explain_nan(precision, records.cleaned, class_names),
        protocol=protocol,
        mode=cfg.MISS_RATE.MODE,
        iou_threshold=cfg.MISS_RATE.IOU_THRESHOLD,
        warnings=[words for words in warnings if words],
    )


def read_predictions(path: Path, labels: LabelArrays) -> DetectionArrays:
    """Read what an evaluation has stored; a file without a single detection is one of these.

    Raises:
        ResultFileError: If it cannot be used.
    """
    try:
        content: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        content = None  # the reader says what is wrong with it
    rows = content.get("predictions") if isinstance(content, dict) else content
    return arrays_of_predictions([], labels) if rows == [] else read_result_file(path, labels)


def _rows(detections: DetectionArrays, labels: LabelArrays) -> list[dict[str, Any]]:
    columns = zip(
        detections.image_index.tolist(),
        detections.classes.tolist(),
        detections.boxes_xywh.tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    return [
        {"image_id": labels.image_ids[image], "category_id": index, "bbox": box, "score": score}
        for image, index, box, score in columns
    ]
