"""A training step on one global batch by one process and by several, which share the cores.

Each process has its part of the cores, unless ``OMP_NUM_THREADS`` says otherwise. Starting the
processes is not counted.
"""

import json
import time
from pathlib import Path

from drawn import drawn_config, make_parser
from measuring import compare
from report import OtherWork, report

from d2pd.d2 import CfgNode, EventStorage, comm
from d2pd.data.loader import build_train_loader
from d2pd.data.registration import register_from_config
from d2pd.modeling.build import build_model
from d2pd.training.launching import launch
from d2pd.training.optimizer import build_optimizer
from d2pd.training.processes import in_step_with_others
from d2pd.training.step import build_step

CONFIG = "configs/quick/ssd_seg_synthetic.yaml"
WARMUP = 2


def main() -> None:
    parser = make_parser(__doc__, repetitions=3, images=16)
    parser.set_defaults(config_file=CONFIG)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="images of all processes together")
    parser.add_argument("--steps", type=int, default=10, help="in each repetition")
    args = parser.parse_args()
    several = f"{args.processes} processes"
    counts = {"1 process": 1, several: args.processes, "1 process, once more": 1}
    other_work = OtherWork()
    seconds: dict[str, list[float]] = {name: [] for name in counts}
    with drawn_config(args) as cfg:
        cfg.SOLVER.IMS_PER_BATCH = args.batch
        written = Path(args.data) / "seconds.json"
        for _ in range(args.repetitions):
            for name, count in counts.items():
                on_gpu = cfg.MODEL.DEVICE != "cpu"
                launch(time_steps, count, args=(cfg, args.steps, written), on_gpu=on_gpu)
                seconds[name].append(json.loads(written.read_text()))
        report(
            args,
            cfg,
            data=f"{args.images} drawn pictures, {args.batch} in a step",
            rows=compare(seconds, [(name, "1 process") for name in list(counts)[1:]], "s"),
            samples={"seconds": seconds},
            other_work=other_work,
        )


def time_steps(cfg: CfgNode, steps: int, written: Path) -> None:
    """Write the mean seconds of a step, as the main process sees it."""
    register_from_config(cfg)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    step = build_step(cfg, in_step_with_others(model), build_train_loader(cfg), optimizer)
    with EventStorage(0):
        for _ in range(WARMUP):
            step.run_step()
        comm.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            step.run_step()
        comm.synchronize()
    if comm.is_main_process():
        written.write_text(json.dumps((time.perf_counter() - start) / steps))
    step.close()


if __name__ == "__main__":
    main()
