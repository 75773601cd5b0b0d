"""What ``d2pd audit`` takes on labels alone: whole processes, from the command to its exit.

The KAIST training labels, and made-up labels of many boxes as COCO JSON and CSV, on one core.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from drawn import ROOT
from measuring import CLOCKS, compare, time_in_turn
from report import OtherWork, report

sys.path.insert(0, str(ROOT))  # d2pd need not be installed

from d2pd.config import default_config

KAIST_LABELS = ROOT.parent / "shared/data/kaist/train20.json"
BOXES_PER_IMAGE = 3
SHARE_OUTSIDE = 0.03

CLOCKS["children"] = lambda: sum(os.times()[2:4])

AUDIT, START, PARSE = "KAIST labels", "d2pd --version", "json.load of KAIST labels alone"
COCO, HALF_COCO, CSV, HALF_CSV = "COCO", "COCO, half as many", "CSV", "CSV, half as many"
WRITE = "COCO, with --out"


def main() -> None:
    args = parse_arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        commands = build_commands(args, Path(name))
        other_work = OtherWork()
        turns = {name: run_process(words) for name, words in commands.items()}
        seconds = time_in_turn(turns, args.repetitions, warmup=1, clock=args.clock)
    cfg = default_config()
    cfg.MODEL.DEVICE, cfg.SEED = "cpu", args.seed
    pairs = [(AUDIT, PARSE), (AUDIT, START), (COCO, HALF_COCO), (CSV, HALF_CSV), (WRITE, COCO)]
    report(
        args,
        cfg,
        data=f"{args.data or 'made-up labels as many as KAIST has'}; {args.boxes} made-up boxes",
        rows=compare(seconds, pairs, "s"),
        samples={"seconds": seconds},
        other_work=other_work,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--clock", choices=["wall", "children"], default="wall", help="children: on a busy machine"
    )
    parser.add_argument(
        "--data", default=str(KAIST_LABELS), help="KAIST JSON; empty: made-up labels in its place"
    )
    parser.add_argument("--boxes", type=int, default=1_000_000, help="made up")
    parser.add_argument("--seed", type=int, default=0, help="of what is made up")
    parser.add_argument("--json", help="also write everything measured to this file")
    return parser.parse_args()


def build_commands(args: argparse.Namespace, folder: Path) -> Mapping[str, list[str]]:
    boxes = make_boxes(np.random.default_rng(args.seed), args.boxes)
    half = boxes[: len(boxes) // 2]
    files = {
        COCO: write_coco(folder / "all.json", boxes),
        HALF_COCO: write_coco(folder / "half.json", half),
        CSV: write_csv(folder / "all.csv", boxes),
        HALF_CSV: write_csv(folder / "half.csv", half),
    }
    kaist = args.data or str(write_coco(folder / "kaist.json", boxes[:26_718]))
    d2pd = [sys.executable, "-m", "d2pd"]
    parse = f"import json; json.load(open({kaist!r}, encoding='utf-8'))"
    commands = {
        AUDIT: [*d2pd, "audit", "--annotations", kaist],
        START: [*d2pd, "--version"],
        PARSE: [sys.executable, "-c", parse],
    }
    commands |= {name: [*d2pd, "audit", "--annotations", str(file)] for name, file in files.items()}
    return commands | {WRITE: [*commands[COCO], "--out", str(folder / "out")]}


def make_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    """Make up (count, 4) boxes x, y, w, h in images of 640 x 512, some of them beyond the rim."""
    height = np.clip(generator.lognormal(4.1, 0.5, count), 21, 306).round()
    width = (0.41 * height).round()
    corner = (generator.random((count, 2)) * np.column_stack([640 - width, 512 - height])).round(2)
    corner[generator.random(count) < SHARE_OUTSIDE, 0] = -2
    return np.column_stack([corner, width, height])


def write_coco(path: Path, boxes: np.ndarray) -> Path:
    num_images = -(-len(boxes) // BOXES_PER_IMAGE)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"categories": [{"id": 1, "name": "person"}], "images": [\n')
        image = '{{"id": {0}, "file_name": "a/{0:07}.jpg", "height": 512, "width": 640}}'
        file.write(",\n".join(image.format(number) for number in range(num_images)))
        file.write('\n], "annotations": [\n')
        box = '{{"id": {}, "image_id": {}, "category_id": 1, "bbox": {}, "iscrowd": 0}}'
        file.write(
            ",\n".join(
                box.format(number, number // BOXES_PER_IMAGE, sides)
                for number, sides in enumerate(boxes.tolist())
            )
        )
        file.write("\n]}\n")
    return path


def write_csv(path: Path, boxes: np.ndarray) -> Path:
    corners = np.column_stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    with path.open("w", encoding="utf-8") as file:
        file.write("filename,x1,y1,x2,y2,class\n")
        for number, sides in enumerate(corners.tolist()):
            cells = ",".join(map(str, sides))
            file.write(f"a/{number // BOXES_PER_IMAGE:07}.jpg,{cells},person\n")
    return path


def run_process(words: list[str]) -> Callable[[int], None]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(_: int) -> None:
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.stderr or done.returncode not in (0, 1):  # 1: findings
            raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr}")

    return run


if __name__ == "__main__":
    main()
