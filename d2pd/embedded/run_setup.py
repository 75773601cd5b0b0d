"""Command line, set-up and writers of a run."""

import argparse
import logging
import os
import sys
from typing import Any

import torch

from d2pd.embedded import comm
from d2pd.embedded.config import CfgNode
from d2pd.embedded.env import collect_env_info, seed_all_rng
from d2pd.embedded.logger import setup_logger
from d2pd.embedded.writers import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter

logger = logging.getLogger(__name__)


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of Detectron2's training scripts: config, resume, processes, overrides."""
    parser = argparse.ArgumentParser(
        epilog=epilog or f"Example: {sys.argv[0]} --config-file FILE SOLVER.BASE_LR 0.001",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="YAML file with the configuration")
    add("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    add("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS without training")
    add("--num-gpus", type=int, default=1, help="GPUs on each machine")
    add("--num-machines", type=int, default=1, help="machines that train together")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    add("--dist-url", default=_default_url(), help="where the processes meet")
    add(
        "opts",
        default=None,
        nargs=argparse.REMAINDER,
        help="configuration to override, as KEY VALUE pairs; they come last",
    )
    return parser


def _default_url() -> str:
    # One port per user: runs of two users do not meet, and a stray process shows as "in use".
    user = os.getuid() if hasattr(os, "getuid") else 1
    return f"tcp://127.0.0.1:{2**15 + 2**14 + user % 2**14}"


def default_setup(cfg: CfgNode, args: Any) -> None:
    """Prepare a run: loggers, a record of machine and arguments, ``config.yaml``, seed, cuDNN.

    Args:
        cfg: The whole configuration; ``OUTPUT_DIR`` is made.
        args: Command line; ``config_file`` and ``eval_only`` are read where they are there.
    """
    rank = comm.get_rank()
    if cfg.OUTPUT_DIR and comm.is_main_process():
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="fvcore")
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank)
    logger.info("Process %d of %d", rank, comm.get_world_size())
    logger.info("Environment:\n%s", collect_env_info())
    logger.info("Command line: %s", args)
    logger.info("Configuration:\n%s", cfg.dump())
    if cfg.OUTPUT_DIR and comm.is_main_process():
        path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(cfg.dump())
        logger.info("Configuration saved as %s", path)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    # Its search costs more than it gives where images are few and of many sizes.
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION and torch.cuda.is_available():
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
        torch.backends.cudnn.allow_tf32 = cfg.FLOAT32_PRECISION != "highest"


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Return writers to the terminal, to ``metrics.json`` and to TensorBoard, in this order."""
    os.makedirs(output_dir, exist_ok=True)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]
