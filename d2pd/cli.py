"""The ``d2pd`` command and ``train_net.py``: argument parsing only.

Each command imports what it needs when it runs, so that ``doctor`` works where torch does not.
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from d2pd import __version__
from d2pd.errors import RunInterrupted, UserError

USER_ERROR = 2
INTERRUPTED = 130
OUTPUT_CLOSED = 141
REFUSED_BY_SYSTEM = (
    errno.EACCES,
    errno.EDQUOT,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``d2pd`` command.

    Args:
        argv: Words after the command's name; None for those of this process.

    Returns:
        Exit code: 0 done, 1 findings, 2 a mistake of the user's, 75 stopped by the time limit,
            130 interrupted, 141 output closed by its reader, 143 terminated.
    """
    args = _parser().parse_args(argv)
    return _guarded(lambda: args.run(args))


def train(argv: Sequence[str] | None = None) -> int:
    """Run ``train_net.py``: Detectron2's arguments, ``--overwrite``, ``KEY VALUE`` overrides.

    Returns:
        Exit code, as for ``main``.
    """
    return _guarded(lambda: _train(argv), "; --resume goes on from the newest checkpoint")


def _train(argv: Sequence[str] | None) -> int:
    from d2pd.config import train_parser
    from d2pd.d2 import launch
    from d2pd.training.preflight import check_gpu_count
    from d2pd.training.run import main as run

    args = train_parser().parse_args(argv)
    check_gpu_count(args.num_gpus)
    launch(
        run,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
    return 0


def _guarded(command: Callable[[], int], after_interrupt: str = "") -> int:
    """Show the mistakes a user can mend as one line, without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may hold what its encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except UserError as error:
        print(f"d2pd: {error}", file=sys.stderr)
        return USER_ERROR
    except RunInterrupted as stop:
        print(f"d2pd: {stop}", file=sys.stderr)
        return stop.exit_code
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    except OSError as error:
        if error.errno not in REFUSED_BY_SYSTEM:
            raise
        print(f"d2pd: the system refuses: {error}; make room, or write elsewhere", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"d2pd: interrupted{after_interrupt}", file=sys.stderr)
        return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="d2pd", description="Pedestrian detectors.")
    parser.add_argument("--version", action="version", version=f"d2pd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="what is installed, what is missing, the cures")
    doctor.set_defaults(run=_doctor)

    synth = commands.add_parser("synth", help="draw a KAIST-layout dataset to try things on")
    _add_synth(synth)

    show = commands.add_parser(
        "show", help="draw the first training samples as the model gets them"
    )
    _add_show(show)

    report = commands.add_parser(
        "report",
        help="one HTML page of a run: curves, numbers, the errors to browse",
        description="Draw OUTPUT_DIR/report.html anew, from what the run has written so far.",
    )
    _add_report(report)

    diagnose = commands.add_parser(
        "diagnose", help="look at every training image once: labels and losses that ruin a training"
    )
    _add_diagnose(diagnose)

    evaluate = commands.add_parser(
        "evaluate",
        help="miss rates of result files, side by side",
        description="Log-average miss rates of result files of any detector, side by side, with "
        "bootstrap intervals: KAIST's subsets, or those of a configuration.",
    )
    _add_evaluate(evaluate)

    ablate = commands.add_parser(
        "ablate",
        help="train a list of configurations in turn, one table of them all",
        description="Train each configuration with each seed in turn, in DIR/NAME/seed_N. The same "
        "command again goes on where it was stopped and leaves alone what is finished.",
    )
    _add_ablate(ablate)
    return parser


def _add_synth(synth: argparse.ArgumentParser) -> None:
    synth.add_argument("--output", type=Path, required=True, help="folder to draw into")
    synth.add_argument("--train", type=int, default=400, help="training pairs (%(default)s)")
    synth.add_argument("--test", type=int, default=60, help="held-out pairs (%(default)s)")
    synth.add_argument("--seed", type=int, default=0, help="same seed, same bytes (%(default)s)")
    synth.add_argument("--boxes", type=Path, help="KAIST JSON: draw onto these labels, as they are")
    synth.add_argument("--faults", action="store_true", help="plant boxes without area or outside")
    synth.set_defaults(run=_synth)


def _add_show(show: argparse.ArgumentParser) -> None:
    show.add_argument("--config-file", required=True, metavar="FILE")
    instead = show.add_mutually_exclusive_group()
    instead.add_argument(
        "--anchors",
        action="store_true",
        help="instead: how well SSDSeg's anchors fit the training labels, as table and picture",
    )
    instead.add_argument(
        "--heat-maps",
        action="store_true",
        help="instead: what the segmentation layers of the run in OUTPUT_DIR, or of MODEL.WEIGHTS, "
        "see in test images",
    )
    show.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides")
    show.set_defaults(run=_show)


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="of the run")
    report.add_argument(
        "--max-pictures",
        type=_count,
        default=60,
        metavar="N",
        help="errors to show as pictures, at most (%(default)s)",
    )
    report.set_defaults(run=_report)


def _add_diagnose(diagnose: argparse.ArgumentParser) -> None:
    diagnose.add_argument("--config-file", metavar="FILE")
    diagnose.add_argument("--output", type=Path, help="folder (OUTPUT_DIR/diagnose)")
    diagnose.add_argument("--labels-only", action="store_true", help="no pictures, no model: fast")
    diagnose.add_argument(
        "--replay", type=Path, metavar="FILE", help="run a step of OUTPUT_DIR/non_finite/*.pt again"
    )
    diagnose.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides")
    diagnose.set_defaults(run=_diagnose)


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--annotations", type=Path, required=True, metavar="FILE", help="KAIST or COCO JSON, or CSV"
    )
    evaluate.add_argument(
        "--detections",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help=".txt: image_id,x,y,w,h,score a line, image_id 1 more than in the labels; .json: COCO "
        "results, or a run's inference/DATASET/predictions.json; methods are named by the files",
    )
    evaluate.add_argument(
        "--protocol",
        choices=["kaist"],
        help="7 settings, each for all, day and night: the default; beside --config-file, in place "
        "of its subsets",
    )
    evaluate.add_argument(
        "--mode",
        choices=["strict", "compat"],
        help="rules: of published tables (strict, the default), or of a script (compat)",
    )
    evaluate.add_argument("--iou", type=float, help="overlap from which a label is found (0.5)")
    evaluate.add_argument("--json", type=Path, metavar="OUT.json", help="write all numbers")
    evaluate.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="draw the curves; or .pdf, .svg"
    )
    evaluate.add_argument(
        "--config-file", metavar="FILE", help="with MISS_RATE: subsets of your own, mode, IoU"
    )
    evaluate.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides, last of all")
    evaluate.set_defaults(run=_evaluate)


def _add_ablate(ablate: argparse.ArgumentParser) -> None:
    ablate.add_argument("--config-files", type=Path, nargs="+", required=True, metavar="FILE")
    ablate.add_argument("--seeds", type=_count, nargs="+", metavar="N", help="(the configs' SEED)")
    ablate.add_argument(
        "--overrides", type=Path, metavar="FILE", help="YAML keys over every configuration"
    )
    ablate.add_argument("--table", action="store_true", help="run nothing, show what is there")
    ablate.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="for the runs and the table"
    )
    ablate.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE over all of these")
    ablate.set_defaults(run=_ablate)


def _doctor(args: argparse.Namespace) -> int:
    from d2pd import doctor

    return doctor.main()


def _synth(args: argparse.Namespace) -> int:
    from d2pd.data.synthetic import draw_dataset

    draw_dataset(
        args.output,
        num_train=args.train,
        num_test=args.test,
        seed=args.seed,
        boxes=args.boxes,
        faults=args.faults,
    )
    print(f"drawn into {args.output}")
    return 0


def _show(args: argparse.Namespace) -> int:
    if args.anchors:
        return _show_anchors(args)
    if args.heat_maps:
        return _show_heat_maps(args)
    from d2pd.config import load_config
    from d2pd.data.loader import build_train_dataset
    from d2pd.data.registration import register_from_config
    from d2pd.training.pictures import write_train_batch
    from d2pd.training.preflight import check_datasets

    cfg = load_config(args.config_file, args.opts)
    register_from_config(cfg)
    check_datasets(cfg, cfg.DATASETS.TRAIN)
    print(write_train_batch(cfg, build_train_dataset(cfg), Path(cfg.OUTPUT_DIR)))
    return 0


def _show_anchors(args: argparse.Namespace) -> int:
    from d2pd.config import load_config
    from d2pd.data.registration import register_from_config
    from d2pd.reporting.anchor_fit_command import show_anchor_fit

    cfg = load_config(args.config_file, args.opts)
    register_from_config(cfg)
    print(show_anchor_fit(cfg))
    return 0


def _show_heat_maps(args: argparse.Namespace) -> int:
    from d2pd.config import load_config
    from d2pd.data.registration import register_from_config
    from d2pd.inference.heat_maps import write_heat_maps

    cfg = load_config(args.config_file, args.opts)
    register_from_config(cfg)
    print(write_heat_maps(cfg, args.opts))
    return 0


def _report(args: argparse.Namespace) -> int:
    from d2pd.reporting.report.write import write_report

    print(write_report(args.output_dir, max_pictures=args.max_pictures))
    return 0


def _count(word: str) -> int:
    """Read a number of things, 0 or more."""
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of 0 or more")
    return int(word)


def _diagnose(args: argparse.Namespace) -> int:
    from d2pd.training.diagnosis.diagnose import main as run

    return run(args)


def _evaluate(args: argparse.Namespace) -> int:
    from d2pd.evaluation.evaluate_command import main as run

    return run(args)


def _ablate(args: argparse.Namespace) -> int:
    from d2pd.training.ablation.command import main as run

    return run(args)
