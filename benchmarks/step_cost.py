"""What one training step costs: its guards against a bare loop, and what can be switched on.

The batches are in memory and the learning rate is 0, so that every variant computes on the same
weights and pictures.
"""

import argparse
import json
import os
from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch
from drawn import add_peak_arguments, drawn_config, make_parser
from measuring import (
    Turn,
    compare,
    deterministic,
    measure_peak,
    peaks_in_turn,
    time_in_turn,
    wait_for,
)
from report import OtherWork, report

from d2pd.d2 import CfgNode, EventStorage
from d2pd.data.loader import build_train_dataset, first_samples
from d2pd.modeling.build import build_model
from d2pd.training.clipping import build_clipping
from d2pd.training.culprits.gradients import gradient_norm
from d2pd.training.culprits.sample_faults import find_faults
from d2pd.training.optimizer import build_optimizer
from d2pd.training.snapshot import Snapshot
from d2pd.training.step import build_step

BARE, STEP, AGAIN = "bare loop", "step", "step, once more"
OPTIONS: dict[str, list[Any]] = {
    STEP: [],
    AGAIN: [],  # differs from STEP by noise alone
    "bf16": ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bf16"],
    "channels-last": ["MODEL.CHANNELS_LAST", True],
    "accumulate 2": ["SOLVER.ACCUMULATE", 2],
    "policy skip": ["NON_FINITE.POLICY", "skip"],
    "deterministic": ["DETERMINISTIC", True],
}
PARTS = ("check of targets", "gradient norm", "snapshot for skip")
PAIRS = [(STEP, BARE), *((name, STEP) for name in (*PARTS, *OPTIONS) if name != STEP)]
PEAK_PAIRS = [(STEP, BARE), *((name, STEP) for name in ("bf16", "accumulate 2", "policy skip"))]
PEAK_STEPS = 3


def main() -> None:
    parser = make_parser(__doc__, repetitions=30, images=8)
    parser.add_argument("--batch", type=int, default=4, help="images in a step; even")
    add_peak_arguments(parser)
    args = parser.parse_args()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or CUDA refuses deterministic
    with drawn_config(args) as cfg, EventStorage(0):
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = args.batch, 0.0
        samples = first_samples(build_train_dataset(cfg), args.images)
        batches = [samples[at : at + args.batch] for at in range(0, args.images, args.batch)]
        if args.peak:
            run = build_variant(cfg, args.peak, batches)
            several = lambda: [run(number) for number in range(PEAK_STEPS)]  # noqa: E731
            print(json.dumps(measure_peak(cfg.MODEL.DEVICE, several)))
        else:
            measure(args, cfg, batches)


def measure(args: argparse.Namespace, cfg: CfgNode, batches: list[Any]) -> None:
    other_work, wait = OtherWork(), wait_for(cfg.MODEL.DEVICE)
    variants = {name: build_variant(cfg, name, batches) for name in (BARE, *OPTIONS)}
    variants |= build_parts(cfg, batches)
    seconds = time_in_turn(variants, args.repetitions, clock=args.clock, settle=wait, finish=wait)
    peaks = peaks_in_turn(args, list(dict.fromkeys(name for pair in PEAK_PAIRS for name in pair)))
    size = " x ".join(str(n) for n in batches[0][0]["image"].shape[1:])
    report(
        args,
        cfg,
        data=f"{args.images} drawn pictures of {size}, {args.batch} in a step",
        rows=[*compare(seconds, PAIRS, "s"), *compare(peaks, PEAK_PAIRS, "MiB")],
        samples={"seconds": seconds, "MiB": peaks},
        other_work=other_work,
    )


def build_variant(cfg: CfgNode, name: str, batches: list[Any]) -> Turn:
    """Return what makes the step of a repetition, with a model of its own and the same weights."""
    cfg = cfg.clone()
    cfg.merge_from_list(OPTIONS.get(name, []))
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    step = build_step(cfg, model, cycle(batches), optimizer)

    def run(number: int) -> None:
        step.iter = number
        with deterministic(cfg.DETERMINISTIC):
            step.run_step()

    return bare_loop(cfg, model, optimizer, batches) if name == BARE else run


def bare_loop(cfg: CfgNode, model: Any, optimizer: Any, batches: list[Any]) -> Turn:
    clip = build_clipping(cfg)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def run(number: int) -> None:
        optimizer.zero_grad()
        sum(model(batches[number % len(batches)]).values()).backward()
        clip(parameters)
        optimizer.step()

    return run


def build_parts(cfg: CfgNode, batches: list[Any]) -> dict[str, Turn]:
    """Return guards by themselves: beside a whole step their cost is lost in its noise."""
    model = build_model(cfg).train()
    sum(model(batches[0]).values()).backward()
    parts: list[Callable[[int], Any]] = [
        lambda number: find_faults(batches[number % len(batches)], cfg.MODEL.ROI_HEADS.NUM_CLASSES),
        lambda _: gradient_norm(model),
        lambda _: Snapshot(model),
    ]
    return dict(zip(PARTS, parts, strict=True))


if __name__ == "__main__":
    main()
