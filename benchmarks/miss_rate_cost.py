"""What the miss rate costs: d2pd's arrays beside plain loops, in time and in memory.

All 21 subsets of KAIST; labels and detections are already read.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import CLOCKS, Row, Samples, compare, measure_peak, peaks_in_turn, time_in_turn
from plain_miss_rate import all_subsets
from report import OtherWork, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # d2pd need not be installed

from d2pd.config_keys import default_config
from d2pd.data.annotations import read_kaist_json
from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, detection_arrays, label_arrays
from d2pd.evaluation.bootstrap import intervals
from d2pd.evaluation.miss_rate import miss_rates
from d2pd.evaluation.subsets import KAIST

KAIST_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "kaist"
FILE, PLAIN, INTERVALS = "a file", "a file, plain loops", "a file, intervals"
HALF, FULL = "half as many", "many detections"


@dataclass(frozen=True)
class Data:
    """Labels, a file of detections and, made up, as many detections as are asked for."""

    labels: LabelArrays
    file: DetectionArrays
    many: DetectionArrays
    half: DetectionArrays
    source: str


def main() -> None:
    args = parse_arguments()
    data = load_data(args)
    work = build_work(data)
    if args.peak:
        print(json.dumps(measure_peak("cpu", work[args.peak])))
        return
    other_work = OtherWork()
    turns = {name: lambda _, run=run: run() for name, run in work.items()}
    seconds = time_in_turn(turns, args.repetitions, warmup=1, clock=args.clock)
    peaks = peaks_in_turn(args, [HALF, FULL])
    time_pairs = [(FILE, PLAIN), (INTERVALS, FILE), (FULL, HALF)]
    cfg = default_config()
    cfg.MODEL.DEVICE, cfg.SEED = "cpu", args.seed
    report(
        args,
        cfg,
        data=describe(data),
        rows=compare(seconds, time_pairs, "s") + compare_peaks(peaks),
        samples={"seconds": seconds, "peak MiB": peaks},
        other_work=other_work,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a busy machine")
    parser.add_argument(
        "--data",
        default=str(KAIST_DATA),
        help="folder with test20.json and results/MSDS-RCNN_result.txt; made up if absent",
    )
    parser.add_argument("--detections", type=int, default=1_000_000, help="made up, to go through")
    parser.add_argument("--seed", type=int, default=0, help="of what is made up")
    parser.add_argument("--json", help="also write everything measured to this file")
    parser.add_argument("--peak-runs", type=int, default=3, help="processes for each peak; 0: none")
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # what a process of its own measures
    return parser.parse_args()


def load_data(args: argparse.Namespace) -> Data:
    generator = np.random.default_rng(args.seed)
    folder = Path(args.data)
    if (folder / "test20.json").is_file():
        labels = label_arrays(read_kaist_json(folder / "test20.json", None).records, ["person"])
        lines = np.loadtxt(folder / "results" / "MSDS-RCNN_result.txt", delimiter=",")
        file = make_arrays(lines[:, 0].astype(np.int64) - 1, lines[:, 1:5], lines[:, 5])
        source = f"KAIST test20 and {file.scores.size} lines of MSDS-RCNN"
    else:
        labels = make_labels(generator)
        file = make_detections(generator, labels, 13_500)
        source = f"made-up labels and {file.scores.size} made-up detections"
    many = make_detections(generator, labels, args.detections)
    half = make_detections(generator, labels, args.detections // 2)
    return Data(labels, file, many, half, source)


def make_labels(generator: np.random.Generator) -> LabelArrays:
    """Make up as many images and labels as the KAIST test list has."""
    image = np.sort(generator.integers(2252, size=4254))
    return LabelArrays(
        image_ids=tuple(range(2252)),
        image_names=tuple(f"set{6 + n % 6:02d}/V000/I{n:05d}" for n in range(2252)),
        image_sizes=np.tile([512, 640], (2252, 1)),
        image_index=image,
        boxes_xywh=make_boxes(generator, image.size),
        classes=np.zeros(image.size, np.int64),
        is_ignore=generator.random(image.size) < 0.2,
        occlusion=generator.choice(3, image.size, p=[0.8, 0.14, 0.06]),
        class_names=("person",),
    )


def make_detections(
    generator: np.random.Generator, labels: LabelArrays, count: int
) -> DetectionArrays:
    """Make up detections, a third of them near a label, the others anywhere."""
    image = generator.integers(len(labels.image_ids), size=count)
    boxes = make_boxes(generator, count)
    near = generator.integers(labels.image_index.size, size=count // 3)
    image[: near.size] = labels.image_index[near]
    boxes[: near.size] = labels.boxes_xywh[near] + generator.normal(0, 3, (near.size, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    return make_arrays(image, boxes, generator.random(count))


def make_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    height = np.clip(generator.lognormal(4.1, 0.5, count), 21, 306)
    corner = generator.random((count, 2)) * [600, 400]
    return np.column_stack([corner, 0.41 * height, height])


def make_arrays(image: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> DetectionArrays:
    return detection_arrays(image, boxes, scores, np.zeros(scores.size, np.int64))


def build_work(data: Data) -> dict[str, Callable[[], Any]]:
    labels, file = data.labels, data.file
    columns = (labels.image_index, *labels.boxes_xywh.T, labels.is_ignore, labels.occlusion)
    plain_labels = list(zip(*(column.tolist() for column in columns), strict=True))
    columns = (file.image_index, *file.boxes_xywh.T, file.scores)
    plain_file = list(zip(*(column.tolist() for column in columns), strict=True))
    names = labels.image_names
    return {
        FILE: lambda: miss_rates(labels, file, KAIST),
        PLAIN: lambda: all_subsets(names, plain_labels, plain_file),
        INTERVALS: lambda: intervals(labels, file, KAIST),
        HALF: lambda: miss_rates(labels, data.half, KAIST),
        FULL: lambda: miss_rates(labels, data.many, KAIST),
    }


def compare_peaks(peaks: Samples) -> list[Row]:
    rows = compare(peaks, [(FULL, HALF)], "MiB")
    return [row | {"variant": f"peak memory: {row['variant']}"} for row in rows]


def describe(data: Data) -> str:
    return (
        f"{data.source}; many: {data.many.scores.size} made-up detections on the same "
        f"{len(data.labels.image_ids)} images; intervals of 1000 resamples"
    )


if __name__ == "__main__":
    main()
