"""What safe checkpoints cost: written, sealed and read back, mirrored, verified when loaded.

Random weights and momentum of the size of a real training. Before each turn the disk settles, off
the clock; what was written lies in the page cache when it is read.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from drawn import add_peak_arguments, drawn_config, make_parser
from measuring import Turn, compare, measure_peak, peaks_in_turn, time_in_turn
from report import OtherWork, report

from d2pd.d2 import CfgNode, EventStorage
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.checkpoints.training_state import read_training
from d2pd.training.trainer import Trainer

KAIST = "configs/faster_rcnn_kaist.yaml"
PLAIN, FLUSHED, OURS, MIRRORED = "torch.save", "torch.save, flushed", "save", "save with mirror"
EARLY, LATE = "resume to the first batch, iteration 0", "the same, iteration 100,000"
LOAD, VERIFIED = "torch.load", "read and verified"
TAKE_UP, RESUME = "torch.load, taken up", "resume"
PAIRS = [(FLUSHED, PLAIN), (OURS, PLAIN), (OURS, FLUSHED), (MIRRORED, OURS), (MIRRORED, PLAIN)]
PAIRS += [(VERIFIED, LOAD), (RESUME, TAKE_UP), (LATE, EARLY)]
# torch.load needs one copy of the checkpoint; torch.save next to nothing.
PEAK_PAIRS = [*((name, LOAD) for name in (PLAIN, OURS, MIRRORED, VERIFIED)), (RESUME, TAKE_UP)]


def main() -> None:
    parser = make_parser(__doc__, repetitions=10, images=4)
    parser.set_defaults(config_file=KAIST)
    add_peak_arguments(parser)
    args = parser.parse_args()
    with drawn_config(args) as cfg:
        cfg.MODEL.DEVICE = "cpu"
        trainer = build_trainer(cfg)
        with tempfile.TemporaryDirectory(dir=args.data) as folder:
            turns = build_turns(trainer, Path(folder))
            if args.peak:
                print(json.dumps(measure_peak("cpu", lambda: turns[args.peak](1))))
            else:
                measure(args, cfg, turns, Path(folder))


def measure(args: argparse.Namespace, cfg: CfgNode, turns: dict[str, Turn], folder: Path) -> None:
    other_work = OtherWork()
    seconds = time_in_turn(turns, args.repetitions, clock=args.clock, warmup=1, settle=os.sync)
    peaks = peaks_in_turn(args, list(dict.fromkeys(name for pair in PEAK_PAIRS for name in pair)))
    size = (folder / "plain.pth").stat().st_size
    report(
        args,
        cfg,
        data=f"a checkpoint of {size / 2**20:.0f} MiB ({args.config_file}), random",
        rows=[*compare(seconds, PAIRS, "s"), *compare(peaks, PEAK_PAIRS, "MiB")],
        samples={"seconds": seconds, "MiB": peaks},
        other_work=other_work,
    )


def build_trainer(cfg: CfgNode) -> Trainer:
    """Return a trainer whose optimizer has stepped, as far as its size goes."""
    torch.manual_seed(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.storage, trainer.iter = EventStorage(9), 9  # as the loop would have them
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            trainer.optimizer.state[parameter]["momentum_buffer"] = torch.randn_like(parameter)
    return trainer


def build_turns(trainer: Trainer, folder: Path) -> dict[str, Turn]:
    """Return what saves or loads once; a checkpoint to load is in place."""
    ours = Checkpointer(trainer.model, str(folder / "ours"), keep=1, trainer=trainer)
    mirrored = Checkpointer(
        trainer.model,
        str(folder / "mirrored"),
        keep=1,
        mirror_dir=str(folder / "mirror"),
        trainer=trainer,
    )
    plain, kept = folder / "plain.pth", folder / "kept" / "model_0000009.pth"
    saved = Checkpointer(trainer.model, str(kept.parent), trainer=trainer)
    saved.save_iteration(9, pending=False)

    def save_plainly(number: int, *, is_flushed: bool = False) -> None:
        model, state = trainer.model.state_dict(), trainer.state_dict()
        with plain.open("wb") as file:
            torch.save({"model": model, "trainer": state, "iteration": number}, file)
            if is_flushed:
                file.flush()
                os.fsync(file.fileno())

    def load_plainly() -> dict[str, Any]:
        return torch.load(kept, map_location="cpu", weights_only=True)

    def take_up() -> None:
        content = load_plainly()
        trainer.model.load_state_dict(content["model"])
        trainer.load_state_dict(content["trainer"])

    def go_on(iteration: int) -> Turn:
        own = Checkpointer(trainer.model, str(folder / f"at {iteration}"), trainer=trainer)
        trainer.iter = iteration
        own.save_iteration(iteration, pending=False)

        def run(_: int) -> None:
            own.resume()
            trainer.data_loader.start_at(iteration + 1)
            next(iter(trainer.data_loader))

        return run

    return {
        EARLY: go_on(0),
        LATE: go_on(100_000),
        PLAIN: save_plainly,
        FLUSHED: lambda number: save_plainly(number, is_flushed=True),
        OURS: lambda number: ours.save_iteration(number, pending=False),
        MIRRORED: lambda number: mirrored.save_iteration(number, pending=False),
        LOAD: lambda _: load_plainly(),
        VERIFIED: lambda _: read_training(kept),
        TAKE_UP: lambda _: take_up(),
        RESUME: lambda _: saved.resume(),
    }


if __name__ == "__main__":
    main()
