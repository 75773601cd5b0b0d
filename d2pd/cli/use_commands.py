"""Commands that use a trained model: predict."""

import argparse
from pathlib import Path

from d2pd.cli.words import Commands, count


def add_use_commands(commands: Commands) -> None:
    """Add the parsers of these commands."""
    predict = commands.add_parser(
        "predict",
        help="detect objects in pictures, folders and videos: drawings and files of detections",
        description="Detect objects in pictures, folders (searched to their depth), patterns such "
        "as 'set*/**/*.png', and videos. Writes DIR/detections.json, .csv and .txt, and draws into "
        "DIR/pictures and DIR/VIDEO.mp4. Exit code 0: all was used, 1: some inputs could not be.",
    )
    _add_predict(predict)


def _add_predict(predict: argparse.ArgumentParser) -> None:
    predict.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="picture, folder, '*.png', video"
    )
    predict.add_argument(
        "--weights",
        action="append",
        required=True,
        metavar="FILE",
        help="a checkpoint, or the OUTPUT_DIR of a run",
    )
    predict.add_argument(
        "--config-file", metavar="FILE", help="of a checkpoint that carries no configuration"
    )
    predict.add_argument(
        "--output", type=Path, default=Path("output/predict"), metavar="DIR", help="(%(default)s)"
    )
    predict.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="SCORE",
        help="least score of what is written and drawn (%(default)s)",
    )
    predict.add_argument(
        "--stride", type=count, default=1, metavar="N", help="every Nth frame of a video"
    )
    predict.add_argument(
        "--batch", type=count, default=1, metavar="N", help="images computed together (%(default)s)"
    )
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    predict.add_argument(
        "--half", action="store_true", help="half precision: fp16 on a GPU, bf16 on a CPU"
    )
    predict.add_argument(
        "--pair",
        default="visible=lwir",
        metavar="VISIBLE=LWIR",
        help="the path of a thermal picture is that of the visible one with the last VISIBLE "
        "replaced by LWIR (%(default)s)",
    )
    predict.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="in place of INPUT: all images of a label file, by its ids, for d2pd evaluate",
    )
    predict.add_argument(
        "--images", type=Path, metavar="DIR", help="of --annotations (the folder of the file)"
    )
    predict.add_argument("--no-pictures", action="store_true", help="draw nothing")
    predict.add_argument("--force", action="store_true", help="write over existing files")
    predict.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> int:
    from d2pd.inference.predict.command import main as run

    return run(args)
