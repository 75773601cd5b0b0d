"""Whether looking at the pictures of a label file gets faster with cores.

Decodes drawn pictures as ``d2pd audit --images`` does, JPEG and PNG, by one and by more workers;
the check for files that are cut short by itself.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from drawn import ROOT  # makes d2pd importable
from measuring import CLOCKS, compare, time_in_turn
from report import OtherWork, report

from d2pd.config import default_config
from d2pd.data.audit.pictures import look_at_pictures
from d2pd.data.images import decode_image, read_encoded
from d2pd.data.label_table.read import read_label_table
from d2pd.data.label_table.table import LabelTable

KAIST_PICTURES = ROOT.parent / "shared/data/kaist/images"


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        tables = {suffix: write_pictures(args, Path(name), suffix) for suffix in ("jpg", "png")}
        turns: dict[str, Callable[[int], object]] = {}
        for suffix, table in tables.items():
            for workers in (1, *args.workers):
                turns[f"{suffix}, {workers} workers"] = look(table, workers)
            turns[f"{suffix}, decoding alone"] = decode(table)
        other_work = OtherWork()
        seconds = time_in_turn(turns, args.repetitions, warmup=1, clock=args.clock)
    cfg = default_config()
    cfg.MODEL.DEVICE, cfg.SEED = "cpu", args.seed
    pairs = []
    for suffix in tables:
        one = f"{suffix}, 1 workers"
        pairs += [(f"{suffix}, {workers} workers", one) for workers in args.workers]
        pairs.append((one, f"{suffix}, decoding alone"))
    report(
        args,
        cfg,
        data=f"{args.images} pictures of 640 x 512, {args.data or 'noise'}; {os.cpu_count()} cores",
        rows=compare(seconds, pairs, "s"),
        samples={"seconds": seconds},
        other_work=other_work,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4], help="besides one")
    parser.add_argument(
        "--data", default=str(KAIST_PICTURES), help="folder of pictures to repeat; empty: noise"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--json", help="also write everything measured to this file")
    return parser.parse_args()


def write_pictures(args: argparse.Namespace, folder: Path, suffix: str) -> LabelTable:
    """Write pictures and a label file that names them."""
    if args.data:
        found = sorted(Path(args.data).rglob("visible/*"))
        pictures = [cv2.resize(cv2.imread(str(path)), (640, 512)) for path in found]
    else:
        noise = np.random.default_rng(args.seed).integers(0, 255, (512, 640, 3), dtype=np.uint8)
        pictures = [cv2.GaussianBlur(noise, (9, 9), 3)]
    names = [f"{number}.{suffix}" for number in range(args.images)]
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), pictures[number % len(pictures)])
    labels = folder / f"{suffix}.csv"
    labels.write_text("".join(f"{name},1,1,9,9,person\n" for name in names))
    return read_label_table(labels)


def look(table: LabelTable, workers: int) -> Callable[[int], object]:
    return lambda _: look_at_pictures(table, table.path.parent, workers=workers, quiet=True)


def decode(table: LabelTable) -> Callable[[int], object]:
    files = [table.path.parent / name for name in table.image_names]
    return lambda _: [decode_image(read_encoded(file), file, "visible").size for file in files]


if __name__ == "__main__":
    main()
