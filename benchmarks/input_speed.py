"""How batches get from picture files to the model: what prefetching and uint8 gain.

Prefetching: training steps whose batches are read by this process, or by workers beside it. Uint8:
batches that workers hand over as they were decoded and the model's side normalises, or that the
workers normalise and hand over as float32, four times the bytes; no model runs there.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from drawn import drawn_config, make_parser
from measuring import Turn, compare, time_in_turn, wait_for
from report import OtherWork, report
from torch import Tensor

from d2pd.d2 import CfgNode, EventStorage
from d2pd.data.loader import MappedRecords, build_train_loader
from d2pd.modeling.build import build_model
from d2pd.training.optimizer import build_optimizer
from d2pd.training.step import Step, build_step

CONFIG = "configs/quick/ssd_seg_synthetic.yaml"
ALONE, PREFETCHED = "step, reading in between", "step, batches prefetched"
BYTES, FLOATS = "batches of uint8", "batches of float32"
PAIRS = [(PREFETCHED, ALONE), (BYTES, FLOATS)]

Change = Callable[[Tensor], Tensor]


def main() -> None:
    parser = make_parser(__doc__, repetitions=5, images=40)
    parser.set_defaults(config_file=CONFIG)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=20, help="of a turn")
    parser.add_argument("--workers", type=int, default=1, help="that prefetch")
    args = parser.parse_args()
    with drawn_config(args) as cfg, EventStorage(0):
        cfg.SOLVER.IMS_PER_BATCH = args.batch
        measure(args, cfg)


def measure(args: argparse.Namespace, cfg: CfgNode) -> None:
    other_work, wait = OtherWork(), wait_for(cfg.MODEL.DEVICE)
    alone, prefetched = make_step(cfg, 0), make_step(cfg, args.workers)
    seconds = time_in_turn(
        {
            ALONE: steps(alone, args.batches),
            PREFETCHED: steps(prefetched, args.batches),
            BYTES: batches(cfg, args, at_model=normaliser(cfg)),
            FLOATS: batches(cfg, args, in_worker=normaliser(cfg)),
        },
        args.repetitions,
        warmup=1,
        clock=args.clock,
        settle=wait,
        finish=wait,
    )
    for step in (alone, prefetched):
        step.close()
    per_batch = {name: [each / args.batches for each in seconds[name]] for name in seconds}
    report(
        args,
        cfg,
        data=f"{args.images} drawn pictures, {args.batch} in a batch of "
        f"{cfg.INPUT.FIXED_SIZE[0]} x {cfg.INPUT.FIXED_SIZE[1]} px; {args.workers} workers",
        rows=compare(per_batch, PAIRS, "s"),
        samples={"seconds per batch": per_batch},
        other_work=other_work,
    )


def make_step(cfg: CfgNode, workers: int) -> Step:
    cfg = cfg.clone()
    cfg.DATALOADER.NUM_WORKERS = workers
    model = build_model(cfg).train()
    return build_step(cfg, model, build_train_loader(cfg), build_optimizer(cfg, model))


def steps(step: Step, count: int) -> Turn:
    def run(_: int) -> None:
        for _ in range(count):
            step.run_step()

    return run


def normaliser(cfg: CfgNode) -> Change:
    mean, std = (
        torch.tensor(v).view(-1, 1, 1) for v in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    return lambda image: (image - mean.to(image.device)) / std.to(image.device)


class Normalised(MappedRecords):
    """Records whose images are normalised where they are read."""

    def __init__(self, dataset: MappedRecords, normalise: Change) -> None:
        super().__init__(dataset.records, dataset.mapper)
        self.normalise = normalise

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        sample = super().__getitem__(item)
        return {**sample, "image": self.normalise(sample["image"])}


def batches(
    cfg: CfgNode,
    args: argparse.Namespace,
    in_worker: Change | None = None,
    at_model: Change | None = None,
) -> Turn:
    """Return what brings batches to the device, normalised; the start of workers counts too."""
    cfg = cfg.clone()
    cfg.DATALOADER.NUM_WORKERS = args.workers
    loader = build_train_loader(cfg)
    if in_worker:
        loader.loader.dataset.dataset = Normalised(loader.dataset, in_worker)  # type: ignore

    def run(_: int) -> None:
        for _, batch in zip(range(args.batches), loader, strict=False):
            for sample in batch:
                image = sample["image"].to(cfg.MODEL.DEVICE, non_blocking=True)
                if at_model:
                    at_model(image)

    return run


if __name__ == "__main__":
    main()
