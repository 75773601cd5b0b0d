"""Every benchmark, one after the other: ``python -m benchmarks``; a table, JSON and a plot.

Each script runs in a process of its own, so that none disturbs the others. What it measures, and
how, is in README.md beside this file.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent

SMALL = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
SMALL += ["MODEL.ROI_BOX_HEAD.FC_DIM", "32", "INPUT.MIN_SIZE_TRAIN", "(128,)"]
SMALL += ["INPUT.MIN_SIZE_TEST", "128"]
SMALL_SSD = ["MODEL.BACKBONE.NAME", "vgg_light", "INPUT.FIXED_SIZE", "[128, 160]"]

WITH_CONFIG = ("engine_speed", "step_cost", "validation_cost", "checkpoint_cost", "ssd_step_cost")
WITH_CONFIG += ("input_speed", "augmentation_speed", "predict_speed", "rank_growth")

QUICK: dict[str, list[str]] = {
    "engine_speed": ["--images", "2", "--size", "64", "96", *SMALL],
    "step_cost": ["--images", "2", "--batch", "2", "--peak-runs", "1", *SMALL],
    "ssd_step_cost": ["--images", "2", *SMALL_SSD],
    "validation_cost": ["--images", "2", *SMALL],
    "checkpoint_cost": ["--images", "2", "--peak-runs", "0", *SMALL],
    "loader_speed": ["--images", "4", "--edge", "64", "--data", ""],
    "input_speed": ["--images", "4", "--batch", "2", "--batches", "2", *SMALL_SSD],
    "augmentation_speed": ["--images", "2", "--size", "64", "80"],
    "picture_checks": ["--data", "", "--images", "4", "--workers", "2"],
    "coco_speed": ["--images", "20"],
    "miss_rate_cost": ["--data", "", "--detections", "900", "--peak-runs", "1"],
    "audit_speed": ["--data", "", "--boxes", "900"],
    "predict_speed": ["--images", "6", "--batch", "2"],
    "start_speed": [],
    "rank_growth": ["--images", "4", "--batch", "2", "--steps", "1", "--repetitions", "1"],
}
"""Every script, with what makes it quick enough for a test; its figures then mean nothing."""

SHORTER: dict[str, list[str]] = {
    "engine_speed": ["--repetitions", "5", "--images", "2"],
    "step_cost": ["--repetitions", "15", "--peak-runs", "1"],
    "ssd_step_cost": ["--repetitions", "3", "--images", "2"],
    "validation_cost": ["--repetitions", "7"],
    "checkpoint_cost": ["--repetitions", "5", "--peak-runs", "1"],
    "audit_speed": ["--repetitions", "3"],
    "predict_speed": ["--repetitions", "2", "--images", "100"],
    "miss_rate_cost": ["--peak-runs", "1"],
}
"""What keeps a script under four minutes where all of them run."""


def main() -> int:
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    failed = []
    for name in args.only or QUICK:
        start = time.perf_counter()
        content = run(name, args)
        if content is None:
            failed.append(name)
        else:
            found[name] = content
        print(f"\n{name}: {time.perf_counter() - start:.0f} s\n", flush=True)
    written = args.out / "benchmarks.json"
    written.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if found:
        draw(found, written.with_suffix(".png"))
    print(f"wrote {written}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see whether all of them run")
    parser.add_argument("--only", nargs="+", choices=QUICK, metavar="NAME", help="these alone")
    parser.add_argument("--device", default="cpu", help="MODEL.DEVICE of those with a model")
    parser.add_argument("--out", type=Path, default=Path("output/benchmarks"), help="folder")
    return parser.parse_args()


def run(name: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """Run a script; return what it wrote, or None if it failed."""
    print(f"## {name}", flush=True)
    written = (args.out / f"{name}.json").resolve()
    written.unlink(missing_ok=True)
    words = ["--json", str(written)]
    words += ["--repetitions", "1", *QUICK[name]] if args.quick else SHORTER.get(name, [])
    if name in WITH_CONFIG:
        words += ["MODEL.DEVICE", args.device]
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    command = [sys.executable, str(FOLDER / f"{name}.py"), *words]
    if subprocess.run(command, env=environment).returncode:
        return None
    content: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return content


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw every ratio of seconds, with the middle half, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [
        (name, row)
        for name, content in found.items()
        for row in content["rows"]
        if row["unit"] == "s" and "ratio" in row
    ]
    colours = {name: f"C{number % 10}" for number, name in enumerate(found)}
    figure, axes = plt.subplots(figsize=(12, 1.5 + 0.24 * len(rows)), layout="constrained")
    for place, (name, row) in enumerate(rows):
        axes.plot(
            [row["low"], row["high"]], [place] * 2, color=colours[name], linewidth=4, alpha=0.4
        )
        axes.plot(row["ratio"], place, "o", color=colours[name], markersize=5)
        axes.annotate(
            f"{row['ratio']:.3g}",
            (row["high"], place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    labels = [f"{name}: {row['variant']}  /  {row['against']}" for name, row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(x=0.08, y=0.01)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("seconds of the first / seconds of the second: median and middle half")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
