"""One run from arguments to results: what ``train_net.py`` and the notebooks start."""

import argparse
import logging
from pathlib import Path
from typing import Any

from d2pd.config import load_config
from d2pd.d2 import CfgNode, default_setup, setup_logger
from d2pd.data.registration import register_from_config
from d2pd.errors import ConfigError
from d2pd.training.checkpoint import Checkpointer
from d2pd.training.pictures import write_pictures, write_train_batch
from d2pd.training.preflight import check_run
from d2pd.training.trainer import Trainer, check_expected

logger = logging.getLogger(__name__)

TERMINAL_LINES = 30


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train or evaluate, then draw what came out and say where it lies.

    Args:
        args: What Detectron2's ``default_argument_parser`` returns.

    Returns:
        task -> metric -> value; AP in 0..100.

    Raises:
        UserError: For all that the user can mend; before training, with everything that is
            missing listed. After it, if a result is not what ``TEST.EXPECTED_RESULTS`` expects.
    """
    return run(load_config(args.config_file, args.opts), args)


def run(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    """As ``main``, from a configuration that is loaded already."""
    setup_logger(name="d2pd")
    keep_terminal_short()
    register_from_config(cfg)
    check_run(cfg, resume=args.resume, eval_only=args.eval_only)
    cfg.freeze()
    try:
        default_setup(cfg, args)
    except OSError as error:
        raise ConfigError(f"OUTPUT_DIR {cfg.OUTPUT_DIR} cannot be written: {error}") from error
    setup_logger(cfg.OUTPUT_DIR, name="d2pd", configure_stdout=False)
    keep_terminal_short()
    results = _evaluate(cfg, args) if args.eval_only else _train(cfg, args)
    for what, path in write_pictures(cfg).items():
        logger.info("%s: %s", what, path)
    check_expected(cfg.TEST.EXPECTED_RESULTS, results)
    return results


def keep_terminal_short() -> None:
    """Leave whole configurations and models to ``log.txt``: a screen is soon full of them."""
    for name in ("d2pd", "detectron2"):
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(is_short)  # a second time changes nothing


def is_short(record: logging.LogRecord) -> bool:
    """Tell whether a message has at most ``TERMINAL_LINES`` lines, or is a warning or worse."""
    lines = record.getMessage().count("\n") + 1
    return lines <= TERMINAL_LINES or record.levelno >= logging.WARNING


def _train(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    path = write_train_batch(cfg, Path(cfg.OUTPUT_DIR))
    logger.info("what the model gets to see: %s", path)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    results = dict(trainer.train())
    results.update(Trainer.test_final(cfg, trainer.model))
    logger.info("weights: %s", Path(cfg.OUTPUT_DIR) / "model_final.pth")
    return results


def _evaluate(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    model = Trainer.build_model(cfg)
    Checkpointer(model, cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = dict(Trainer.test(cfg, model)) if cfg.DATASETS.TEST else {}
    results.update(Trainer.test_final(cfg, model))
    return results
