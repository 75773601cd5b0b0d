"""Commands that use a trained model: predict, export."""

import argparse
from pathlib import Path

from d2pd.cli.words import Commands, count, numbers


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

    export = commands.add_parser(
        "export",
        help="a trained detector as ONNX, torch.export, TorchScript or TorchServe; a model card",
        description="Write a trained detector for other programs. What is written is compared "
        "with the model on pictures first; a file that does not detect the same is not kept.",
    )
    _add_export(export)


def _add_predict(predict: argparse.ArgumentParser) -> None:
    predict.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="picture, folder, '*.png', video"
    )
    predict.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="a checkpoint, or the OUTPUT_DIR of a run; of several the detections are fused, at "
        "the cost of all of them",
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
        "--stride",
        type=count,
        default=1,
        metavar="N",
        help="every Nth frame of a video (%(default)s)",
    )
    predict.add_argument(
        "--batch", type=count, default=1, metavar="N", help="images computed together (%(default)s)"
    )
    _add_ways_to_look(predict)
    _add_other_inputs(predict)
    predict.add_argument("--no-pictures", action="store_true", help="draw nothing")
    predict.add_argument("--force", action="store_true", help="write over existing files")
    predict.set_defaults(run=_predict)


def _add_ways_to_look(predict: argparse.ArgumentParser) -> None:
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    predict.add_argument(
        "--half", action="store_true", help="half precision: fp16 on a GPU, bf16 on a CPU"
    )
    predict.add_argument(
        "--flip", action="store_true", help="look at the mirror image too, and fuse: twice the time"
    )
    predict.add_argument(
        "--scales",
        type=numbers,
        default=[1.0],
        metavar="FACTORS",
        help="such as 1,1.5: look at these sizes, and fuse; 1, the default, is that of the "
        "configuration",
    )


def _add_other_inputs(predict: argparse.ArgumentParser) -> None:
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
    predict.add_argument(
        "--fuse",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="in place of INPUT and --weights: fuse these files of detections into "
        "DIR/detections.json",
    )


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="a checkpoint, or the OUTPUT_DIR of a training for its newest",
    )
    what = export.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--format",
        choices=["onnx", "torch_export", "torchscript", "torchserve"],
        help="torchscript: legacy, for one size of image; torchserve: a folder with weights, "
        "configuration and handler, and the .mar",
    )
    what.add_argument(
        "--card",
        action="store_true",
        help="write the model card of the run in the folder of FILE anew",
    )
    export.add_argument(
        "--output", type=Path, metavar="PATH", help="file, or folder for torchserve (beside FILE)"
    )
    export.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="PATH",
        help="pictures or folders to compare on (those of the run's DATASETS.TEST)",
    )
    export.add_argument(
        "--config-file", metavar="FILE", help="for weights that do not carry their configuration"
    )
    export.add_argument("--force", action="store_true", help="write over what is there")
    export.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides; not right behind --images"
    )
    export.set_defaults(run=_export)


def _predict(args: argparse.Namespace) -> int:
    from d2pd.inference.predict.command import main as run

    return run(args)


def _export(args: argparse.Namespace) -> int:
    if args.card:
        from d2pd.reporting.model_card.write import write_model_card

        folder = Path(args.weights)
        print(write_model_card(folder if folder.is_dir() else folder.parent))
        return 0
    from d2pd.inference.export.command import main as run

    return run(args)
