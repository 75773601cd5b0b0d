"""Evaluators as Detectron2 runs them, over d2pd's own metrics."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from d2pd.d2 import DatasetEvaluator, Instances, MetadataCatalog, comm
from d2pd.data.records import load_records
from d2pd.evaluation.arrays import (
    arrays_of_predictions,
    label_arrays,
    of_class,
)
from d2pd.evaluation.coco import coco_results, evaluate_boxes, explain_nan
from d2pd.evaluation.comparison import notes_on, with_images
from d2pd.evaluation.label_convention import explain_low_ap
from d2pd.evaluation.miss_rate import RULES, differences, miss_rates
from d2pd.evaluation.subsets import KAIST, Protocol
from d2pd.json_file import write_json

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"


class DetectionEvaluator(DatasetEvaluator):
    """Collects what a model detects on a registered dataset.

    The labels are read anew for each evaluation and nothing is cached, so that it never runs on
    labels of yesterday.
    """

    def __init__(self, dataset_name: str) -> None:
        """Name the dataset: registered, with ``thing_classes`` in its metadata."""
        self.dataset_name = dataset_name
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

    def gather_on_main(self) -> bool:
        """Bring together what all processes have seen; tell whether this is the main one.

        Every process has to call it. The detections are then in the order of one process that has
        seen all images.
        """
        if comm.get_world_size() == 1:
            return True
        found = comm.gather((self.seen, self.predictions))
        if not found:
            return False
        self.seen = set().union(*(seen for seen, _ in found))
        records = load_records(self.dataset_name, cleaned=False)
        order = {record["image_id"]: number for number, record in enumerate(records)}
        self.predictions = sorted(
            (one for _, predictions in found for one in predictions),
            key=lambda one: order[one["image_id"]],
        )
        return True

    @property
    def class_names(self) -> list[str]:
        """Names of class 0, 1, ..."""
        return list(MetadataCatalog.get(self.dataset_name).thing_classes)


class CocoEvaluator(DetectionEvaluator):
    """COCO AP of what a model detects on a registered dataset; keeps the detections."""

    def __init__(self, dataset_name: str, output_dir: str | Path | None = None) -> None:
        """Name the dataset.

        Args:
            dataset_name: See ``DetectionEvaluator``.
            output_dir: ``predictions.json``, the detections with the names of their classes, is
                written here; None for nowhere. ``result_files`` reads it.
        """
        super().__init__(dataset_name)
        self.output_dir = Path(output_dir) if output_dir else None

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compute the metrics over the whole dataset, and write the detections.

        Returns:
            ``{"bbox": {metric: 0..100 or NaN}}``; see ``evaluation.coco.evaluate_boxes``. Empty
            on all processes but the main one.
        """
        if not self.gather_on_main():
            return {}
        records, class_names = load_records(self.dataset_name), self.class_names
        if len(self.seen) < len(records):
            logger.warning(
                "%s: the model saw %d of %d images; the others count as images without a detection",
                self.dataset_name,
                len(self.seen),
                len(records),
            )
        results = evaluate_boxes(records, self.predictions, class_names)
        self._log(results, explain_nan(results, records, class_names))
        labels = label_arrays(records, class_names)
        why = explain_low_ap(labels, arrays_of_predictions(self.predictions, labels), results)
        if why:
            logger.warning("%s: %s", self.dataset_name, why)
        if self.output_dir:
            content = {
                "dataset": self.dataset_name,
                "class_names": class_names,
                "predictions": self.predictions,
            }
            write_json(self.output_dir / PREDICTIONS, content)
        return {"bbox": results}

    def _log(self, results: Mapping[str, float], reasons: Mapping[str, str]) -> None:
        if not self.predictions:
            logger.warning("%s: not a single detection, so AP is 0", self.dataset_name)
        for metric, reason in reasons.items():
            logger.warning("%s: %s is NaN: %s", self.dataset_name, metric, reason)
        line = "  ".join(f"{metric} {value:.2f}" for metric, value in results.items())
        logger.info("%s: %s", self.dataset_name, line)


class MissRateEvaluator(DetectionEvaluator):
    """Log-average miss rate of what a model detects on a registered dataset.

    It goes by the labels as the file has them: what cleaning drops or clips for training is to be
    found, or ignored, all the same.
    """

    def __init__(
        self,
        dataset_name: str,
        protocol: Protocol = KAIST,
        *,
        mode: str = "strict",
        iou_threshold: float = 0.5,
    ) -> None:
        """Set up.

        Args:
            dataset_name: See ``DetectionEvaluator``.
            protocol: The subsets to measure.
            mode: Of the numbers returned; a key of ``miss_rate.RULES``.
            iou_threshold: Overlap from which a detection finds a label.
        """
        super().__init__(dataset_name)
        self.protocol = protocol
        self.mode = mode
        self.iou_threshold = iou_threshold

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compute the miss rate of every subset that has images.

        Returns:
            ``{"MR": {"reasonable/all": 0..100, ...}}``, NaN where a subset has no label to find;
            with several classes ``"person/reasonable/all"``. Empty on all processes but the main
            one.
        """
        if not self.gather_on_main():
            return {}
        records = load_records(self.dataset_name, cleaned=False)
        labels = label_arrays(records, self.class_names)
        for note in notes_on(labels, self.protocol):
            logger.info("%s: %s", self.dataset_name, note)
        detections = arrays_of_predictions(self.predictions, labels)
        protocol = with_images(labels, self.protocol)
        results: dict[str, float] = {}
        for index, class_name in enumerate(self.class_names):
            of_one = of_class(labels, detections, index)
            found = miss_rates(*of_one, protocol, RULES[self.mode], self.iou_threshold)
            prefix = f"{class_name}/" if len(self.class_names) > 1 else ""
            rates = {f"{prefix}{key}": rate.value for key, rate in found.items()}
            first = replace(protocol, settings=protocol.settings[:1])
            reasons = differences(*of_one, first, self.iou_threshold)
            self._log(rates, {f"{prefix}{key}": why for key, why in reasons.items()})
            results |= rates
        return {"MR": results}

    def _log(self, rates: Mapping[str, float], reasons: Mapping[str, str]) -> None:
        """Tell the rates of the first setting; the others are in ``run.log``."""
        number_of_splits = len(rates) // len(self.protocol.settings)
        told = list(rates.items())[:number_of_splits]
        line = "  ".join(f"{key} {value:.2f}" for key, value in told)
        logger.info("%s: miss rate (%s): %s", self.dataset_name, self.mode, line)
        for key, why in reasons.items():
            logger.info("%s: %s: %s", self.dataset_name, key, why)
        empty = [key for key, value in rates.items() if math.isnan(value)]
        if empty:
            logger.info(
                "%s: NaN, as there is no label to find: %s", self.dataset_name, ", ".join(empty)
            )


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
    boxes, scores, classes = (
        part.detach().cpu().numpy()
        for part in (instances.pred_boxes.tensor, instances.scores, instances.pred_classes)
    )
    return coco_results(image_id, boxes, scores, classes)
