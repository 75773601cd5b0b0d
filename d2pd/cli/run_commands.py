"""Commands about runs and their results: diagnose, ablate, report, evaluate."""

import argparse
from pathlib import Path

from d2pd.cli.words import Commands, count


def add_run_commands(commands: Commands) -> None:
    """Add the parsers of these commands."""
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


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="of the run")
    report.add_argument(
        "--max-pictures",
        type=count,
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
    ablate.add_argument("--seeds", type=count, nargs="+", metavar="N", help="(the configs' SEED)")
    ablate.add_argument(
        "--folds",
        type=count,
        nargs="+",
        metavar="N",
        help="train on all folds but this one, each in turn (the configs' DATASETS.FOLD)",
    )
    ablate.add_argument(
        "--overrides", type=Path, metavar="FILE", help="YAML keys over every configuration"
    )
    ablate.add_argument("--table", action="store_true", help="run nothing, show what is there")
    ablate.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="for the runs and the table"
    )
    ablate.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE over all of these")
    ablate.set_defaults(run=_ablate)


def _report(args: argparse.Namespace) -> int:
    from d2pd.reporting.report.write import write_report

    print(write_report(args.output_dir, max_pictures=args.max_pictures))
    return 0


def _diagnose(args: argparse.Namespace) -> int:
    from d2pd.training.diagnosis.diagnose import main as run

    return run(args)


def _evaluate(args: argparse.Namespace) -> int:
    from d2pd.evaluation.evaluate_command import main as run

    return run(args)


def _ablate(args: argparse.Namespace) -> int:
    from d2pd.training.ablation.command import main as run

    return run(args)
