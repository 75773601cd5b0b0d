"""How far detections in picture files are from those of stock Detectron2, and what makes it so.

The same weights, from the file to the boxes: ``d2pd.load(...).predict(...)`` against
``DefaultPredictor``; then d2pd's model on the pixels as Detectron2 resizes them. Needs Detectron2;
``D2PD_ENGINE=embedded`` makes d2pd's model the embedded one.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import get_cfg as stock_get_cfg
from detectron2.engine import DefaultPredictor
from torchvision.ops import box_iou

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # d2pd need not be installed

import d2pd
from d2pd.d2 import ENGINE, CfgNode
from d2pd.data.images import read_image
from d2pd.inference.detections import Detections
from d2pd.inference.predictor import Predictor, Prepared
from d2pd.markdown_table import markdown_table

MATCHED_IOU = 0.9


@dataclass
class Distance:
    """How far two sets of detections are apart; those of one class at IoU > .9 are pairs.

    Attributes:
        counts: Detections of either.
        boxes: Of each pair the largest difference of a coordinate, px of the picture.
        scores: Of each pair the difference.
    """

    counts: tuple[int, int]
    boxes: list[float]
    scores: list[float]

    def __add__(self, other: "Distance") -> "Distance":
        counts = (self.counts[0] + other.counts[0], self.counts[1] + other.counts[1])
        return Distance(counts, self.boxes + other.boxes, self.scores + other.scores)

    def row(self) -> list[str]:
        """Return counts, pairs, and largest and median differences as text."""
        figures = [
            f"{float(function(values)):.2g}" if values else "-"
            for values in (self.boxes, self.scores)
            for function in (np.max, np.median)
        ]
        return [str(self.counts[0]), str(self.counts[1]), str(len(self.boxes)), *figures]


HEADER = ["compared", "d2pd", "stock", "pairs"]
HEADER += ["box, largest px", "median px", "score, largest", "median"]


def stock_config(cfg: CfgNode) -> Any:
    """Return Detectron2's own configuration with the values that d2pd's has under the same keys."""
    stock = stock_get_cfg()

    def take(ours: Any, theirs: Any) -> None:
        for key, value in theirs.items():
            if isinstance(value, dict):
                take(ours[key], value)
            elif key in ours:
                theirs[key] = ours[key]

    take(cfg, stock)
    stock.DATASETS.TEST = ()  # they would have to be registered
    return stock


def distance(ours: Detections, stock: Any, threshold: float) -> Distance:
    """Pair the detections from a score on, the best first."""
    stock = stock["instances"].to("cpu")
    stock = stock[stock.scores >= threshold]
    ours = ours.above(threshold)
    found = Distance((len(ours), len(stock)), [], [])
    boxes = torch.from_numpy(ours.boxes_xyxy).float()
    if not len(ours) or not len(stock):
        return found
    overlap = box_iou(boxes, stock.pred_boxes.tensor)
    overlap[torch.from_numpy(ours.classes)[:, None] != stock.pred_classes] = 0
    for index, score in enumerate(ours.scores):
        best = int(overlap[index].argmax())
        if overlap[index, best] > MATCHED_IOU:
            overlap[:, best] = 0
            difference = (boxes[index] - stock.pred_boxes.tensor[best]).abs().max()
            found.boxes.append(float(difference))
            found.scores.append(abs(float(score) - float(stock.scores[best])))
    return found


def resized_by_stock(stock: DefaultPredictor, image: np.ndarray) -> torch.Tensor:
    """Return (C, h, w) uint8 as ``DefaultPredictor`` prepares it."""
    in_order = image[:, :, ::-1] if stock.input_format == "RGB" else image
    resized = stock.aug.get_transform(in_order).apply_image(in_order)
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))


@dataclass
class Report:
    """What ``compare`` found over all pictures.

    Attributes:
        whole: From the file to the boxes.
        same_pixels: d2pd's model on the pixels as Detectron2 resizes them.
        read_alike: Whether both read the same pixels from every file.
        pixels: Of each picture the mean and largest difference of a resized pixel, 0 to 255.
    """

    whole: Distance
    same_pixels: Distance
    read_alike: bool
    pixels: list[tuple[float, float]]


def compare(
    predictor: Predictor, stock: DefaultPredictor, pictures: Sequence[Path], threshold: float
) -> Report:
    """Compare d2pd and stock Detectron2 on picture files."""
    report = Report(Distance((0, 0), [], []), Distance((0, 0), [], []), True, [])
    for path in pictures:
        image, read_by_stock = read_image(str(path), "visible"), cv2.imread(str(path))
        report.read_alike &= np.array_equal(image, read_by_stock)
        found = stock(read_by_stock)
        prepared, theirs = predictor.prepare(image), resized_by_stock(stock, read_by_stock)
        apart = (prepared.pixels.float() - theirs.float()).abs()
        report.pixels.append((float(apart.mean()), float(apart.max())))
        same = [Prepared(theirs, image)]
        on_theirs = predictor.finish(predictor.detect(same), same, threshold)[0]
        ours = predictor.predict(image, threshold=threshold)
        report.whole += distance(ours, found, threshold)
        report.same_pixels += distance(on_theirs, found, threshold)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="a checkpoint of Faster R-CNN, with its configuration")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--threshold", type=float, default=0.3, help="least score (%(default)s)")
    args = parser.parse_args()
    predictor = d2pd.load(args.weights, device="cpu")
    cfg = stock_config(predictor.cfg)
    report = compare(predictor, DefaultPredictor(cfg), args.pictures, args.threshold)
    print(f"{len(args.pictures)} pictures, scores from {args.threshold}, engine of d2pd: {ENGINE}")
    print(f"pixels read: {'the same' if report.read_alike else 'NOT the same'}")
    mean, most = np.mean([each[0] for each in report.pixels]), max(p[1] for p in report.pixels)
    print(f"pixels resized (0 to 255): {mean:.3f} apart in the mean, {most:.0f} at most")
    rows = [HEADER, ["file to boxes", *report.whole.row()]]
    rows.append(["on stock's pixels", *report.same_pixels.row()])
    print("\n".join(markdown_table(rows)))


if __name__ == "__main__":
    main()
