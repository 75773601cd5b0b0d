"""Evaluators as Detectron2 runs them, over d2pd's own metrics."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from d2pd.d2 import DatasetEvaluator, Instances, MetadataCatalog, comm
from d2pd.data.records import load_records
from d2pd.evaluation.coco import evaluate_boxes, explain_nan
from d2pd.json_file import write_json

logger = logging.getLogger(__name__)


class CocoEvaluator(DatasetEvaluator):
    """COCO AP of what a model detects on a registered dataset.

    The labels are read anew for each evaluation and nothing is cached, so that it never runs on
    labels of yesterday.
    """

    def __init__(self, dataset_name: str, output_dir: str | Path | None = None) -> None:
        """Name the dataset.

        Args:
            dataset_name: Registered, with ``thing_classes`` in its metadata.
            output_dir: ``predictions.json``, the detections as COCO results with class ids
                0..K-1, is written here; None for nowhere.
        """
        self.dataset_name = dataset_name
        self.output_dir = Path(output_dir) if output_dir else None
        self.reset()

    def reset(self) -> None:
        """Forget all detections."""
        self.predictions: list[dict[str, Any]] = []
        self.seen: set[Any] = set()

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in the detections of some images.

        Args:
            inputs: Samples, with ``image_id``.
            outputs: ``{"instances": Instances}`` each, in pixels of the image file:
                ``pred_boxes``, ``scores``, ``pred_classes``.
        """
        for sample, output in zip(inputs, outputs, strict=True):
            self.seen.add(sample["image_id"])
            self.predictions += coco_rows(output["instances"], sample["image_id"])

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compute the metrics over the whole dataset, and write the detections.

        Returns:
            ``{"bbox": {metric: 0..100 or NaN}}``; see ``evaluation.coco.evaluate_boxes``.
        """
        records = load_records(self.dataset_name)
        class_names = list(MetadataCatalog.get(self.dataset_name).thing_classes)
        if len(self.seen) < len(records):
            logger.warning(
                "%s: the model saw %d of %d images; the others count as images without a detection",
                self.dataset_name,
                len(self.seen),
                len(records),
            )
        results = evaluate_boxes(records, self.predictions, class_names)
        self._log(results, explain_nan(results, records, class_names))
        if self.output_dir and comm.is_main_process():
            write_json(self.output_dir / "predictions.json", self.predictions)
        return {"bbox": results}

    def _log(self, results: Mapping[str, float], reasons: Mapping[str, str]) -> None:
        if not self.predictions:
            logger.warning("%s: not a single detection, so AP is 0", self.dataset_name)
        for metric, reason in reasons.items():
            logger.warning("%s: %s is NaN: %s", self.dataset_name, metric, reason)
        line = "  ".join(f"{metric} {value:.2f}" for metric, value in results.items())
        logger.info("%s: %s", self.dataset_name, line)


class StopBetweenImages(DatasetEvaluator):
    """Lets a request to stop leave an evaluation between two images; evaluates nothing."""

    def __init__(self, check_stop: Callable[[], None]) -> None:
        """Keep the function, which raises if a stop is asked for."""
        self._check_stop = check_stop

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Ask after each image."""
        self._check_stop()


def coco_rows(instances: Instances, image_id: Any) -> list[dict[str, Any]]:
    """Turn the detections on one image into COCO results.

    Args:
        instances: ``pred_boxes`` (N, 4) XYXY, ``scores`` (N,), ``pred_classes`` (N,), on any
            device.
        image_id: Of the image.

    Returns:
        N rows: ``image_id``, ``category_id`` 0..K-1, ``bbox`` XYWH, ``score``.
    """
    corners = instances.pred_boxes.tensor.detach().cpu().double()
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    return [
        {"image_id": image_id, "category_id": category, "bbox": bbox, "score": score}
        for category, bbox, score in zip(
            instances.pred_classes.tolist(), boxes.tolist(), instances.scores.tolist(), strict=True
        )
    ]
