"""COCO AP of many detections: ``d2pd.evaluation.coco`` against pycocotools, and how it grows.

Made-up labels and detections. Both start from the same records in memory, so that what turns them
into COCO's tables counts; so does the check of every detection on d2pd's side.
"""

import argparse
import contextlib
import io
from typing import Any

import numpy as np
from drawn import ROOT  # noqa: F401  makes d2pd importable
from measuring import CLOCKS, Turn, compare, time_in_turn
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from report import OtherWork, report

from d2pd.config import default_config
from d2pd.evaluation.coco import evaluate_boxes

CLASSES = ("person", "cyclist")
OURS, THEIRS, HALF = "d2pd", "pycocotools", "d2pd, half as many images"

Row = dict[str, Any]


def main() -> None:
    args = parse_arguments()
    records, predictions = make_up(args)
    half = len(records) // 2
    first = [row for row in predictions if row["image_id"] < half]
    found: dict[str, float] = {}
    turns: dict[str, Turn] = {
        OURS: lambda _: found.update(ours=evaluate_boxes(records, predictions, CLASSES)["AP"]),
        THEIRS: lambda _: found.update(theirs=by_pycocotools(records, predictions)),
        HALF: lambda _: evaluate_boxes(records[:half], first, CLASSES),
    }
    other_work = OtherWork()
    seconds = time_in_turn(turns, args.repetitions, warmup=args.warmup, clock=args.clock)
    if abs(found["ours"] - found["theirs"]) > 1e-6:
        raise RuntimeError(f"the two do not agree: {found}")
    cfg = default_config()
    cfg.MODEL.DEVICE, cfg.SEED = "cpu", args.seed
    report(
        args,
        cfg,
        data=f"{args.images} made-up images, {args.labels} labels and {args.detections} detections "
        f"on each, of {len(CLASSES)} classes; AP {found['ours']:.2f} by both",
        rows=compare(seconds, [(THEIRS, OURS), (OURS, HALF)], "s"),
        samples={"seconds": seconds},
        other_work=other_work,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=0)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--labels", type=int, default=8, help="of an image")
    parser.add_argument("--detections", type=int, default=100, help="on an image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write everything measured to this file")
    return parser.parse_args()


def make_up(args: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Return records and detections, a part of them near a label."""
    generator = np.random.default_rng(args.seed)
    shape = (args.images, args.labels)
    height = generator.lognormal(4.1, 0.6, shape).clip(12, 400)
    corners = generator.random((*shape, 2)) * np.array([500, 300])
    boxes = np.concatenate([corners, np.stack([0.41 * height, height], axis=-1)], axis=-1)
    classes = generator.integers(len(CLASSES), size=shape)
    records = [
        {
            "image_id": number,
            "file_name": f"{number}.jpg",
            "height": 512,
            "width": 640,
            "annotations": [
                {"bbox": [x, y, x + w, y + h], "bbox_mode": 0, "category_id": c, "iscrowd": 0}
                for (x, y, w, h), c in zip(of_image.tolist(), kinds.tolist(), strict=True)
            ],
        }
        for number, (of_image, kinds) in enumerate(zip(boxes, classes, strict=True))
    ]
    near = generator.integers(args.labels, size=(args.images, args.detections))
    found = np.take_along_axis(boxes, near[..., None], axis=1)
    found = found * generator.normal(1, 0.15, found.shape).clip(0.5, 2)
    kinds = np.take_along_axis(classes, near, axis=1)
    scores = generator.random(near.shape)
    predictions = [
        {"image_id": number, "category_id": c, "bbox": box, "score": score}
        for number in range(args.images)
        for box, c, score in zip(
            found[number].tolist(), kinds[number].tolist(), scores[number].tolist(), strict=True
        )
    ]
    return records, predictions


def by_pycocotools(records: list[Row], predictions: list[Row]) -> float:
    """Return AP in 0..100; images, classes and labels numbered from 1 as there is no 0."""
    truth = COCO()
    annotations = [
        coco_label(record["image_id"] + 1, each)
        for record in records
        for each in record["annotations"]
    ]
    truth.dataset = {
        "images": [{"id": record["image_id"] + 1} for record in records],
        "annotations": [{**row, "id": number} for number, row in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }
    rows = [
        {**row, "image_id": row["image_id"] + 1, "category_id": row["category_id"] + 1}
        for row in predictions
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]) * 100


def coco_label(image_id: int, annotation: Row) -> Row:
    x1, y1, x2, y2 = annotation["bbox"]
    sides = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
    return {"image_id": image_id, "category_id": annotation["category_id"] + 1, **sides}


if __name__ == "__main__":
    main()
