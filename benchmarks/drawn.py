"""The arguments that all benchmarks take, and the drawn pictures that they work on."""

import argparse
import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measuring import CLOCKS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # d2pd need not be installed

from d2pd.config import load_config
from d2pd.d2 import CfgNode
from d2pd.data.registration import register_from_config
from d2pd.training.preflight import resolve_device

ROOT = Path(__file__).resolve().parent.parent
QUICK = "configs/quick/faster_rcnn_synthetic.yaml"


def make_parser(
    description: str | None, *, repetitions: int, images: int
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config-file", default=QUICK, help="gives model and input size")
    parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a busy machine")
    parser.add_argument("--images", type=int, default=images, help="drawn pictures to work on")
    parser.add_argument("--data", help="draw into this folder and leave it; else a temporary one")
    parser.add_argument("--json", help="also write everything measured to this file")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ... over the config")
    return parser


def add_peak_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peak-runs", type=int, default=3, help="processes for each peak; 0: none")
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # what a process of its own measures


@contextlib.contextmanager
def drawn_config(args: argparse.Namespace) -> Iterator[CfgNode]:
    """Give the configuration, its datasets being pictures that are drawn and registered."""
    logging.disable(logging.INFO)
    folder = contextlib.nullcontext(args.data) if args.data else tempfile.TemporaryDirectory()
    with folder as data:
        args.data = str(data)  # processes of their own find the same pictures
        cfg = load_config(ROOT / args.config_file, args.opts)
        cfg.DATASETS = load_config(ROOT / QUICK).DATASETS
        cfg.DATASETS.ROOT = args.data
        cfg.DATASETS.SYNTHETIC.NUM_TRAIN = cfg.DATASETS.SYNTHETIC.NUM_TEST = args.images
        cfg.MODEL.WEIGHTS = ""
        cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.OUTPUT_DIR = str(Path(args.data) / "output")
        register_from_config(cfg)
        yield cfg
