"""The words of ``d2pd export``."""

import argparse
from pathlib import Path

from d2pd.cli.words import Commands


def add_export(commands: Commands) -> None:
    """Add the parser."""
    export = commands.add_parser(
        "export",
        help="a trained detector as ONNX, torch.export, TorchScript or TorchServe; a model card",
        description="Write a trained detector for other programs. What is written is compared "
        "with the model on pictures first; a file that does not detect the same is not kept.",
    )
    export.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="a checkpoint, or the OUTPUT_DIR of a training for its newest",
    )
    export.add_argument(
        "--format",
        choices=["onnx", "torch_export", "torchscript", "torchserve"],
        required=True,
        help="torchscript: legacy, for one size of image; torchserve: a folder with weights, "
        "configuration and handler, and the .mar",
    )
    export.add_argument(
        "--output", type=Path, metavar="PATH", help="file, or folder for torchserve (beside FILE)"
    )
    export.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="PATH",
        help="pictures to compare on (those of the run's DATASETS.TEST)",
    )
    export.add_argument(
        "--config-file", metavar="FILE", help="for weights that do not carry their configuration"
    )
    export.add_argument("--force", action="store_true", help="write over what is there")
    export.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides")
    export.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from d2pd.inference.export.command import main as run

    return run(args)
