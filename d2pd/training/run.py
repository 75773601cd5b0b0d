"""One run from arguments to results: what ``train_net.py`` and the notebooks start."""

import argparse
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d2pd.config import load_config
from d2pd.config_checks import check_config
from d2pd.d2 import CfgNode, comm, default_setup, setup_logger
from d2pd.data.records import load_train_records
from d2pd.data.registration import register_from_config
from d2pd.errors import ConfigError
from d2pd.training.checkpoints.checkpoint_choice import Choice, log_choice
from d2pd.training.checkpoints.checkpoint_folder import FINAL
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.checkpoints.run_identity import (
    Differences,
    check_same_run,
    describe_run,
    log_comparison,
)
from d2pd.training.deciding.decisions import warn_of_choosing_by_test
from d2pd.training.pictures import write_pictures, write_train_batch
from d2pd.training.preflight import check_run
from d2pd.training.results import check_expected, read_results, write_results
from d2pd.training.run_folder import remove_run
from d2pd.training.schedule_unit import resolve_unit
from d2pd.training.trainer import Trainer

logger = logging.getLogger(__name__)

TERMINAL_LINES = 30


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train or evaluate, then draw what came out and say where it lies.

    Args:
        args: What ``train_parser`` returns.

    Returns:
        task -> metric -> value; AP in 0..100. Of several processes, on the main one.

    Raises:
        UserError: For all that the user can mend; before training, with everything that is
            missing listed. After it, if a result is not what ``TEST.EXPECTED_RESULTS`` expects.
        RunInterrupted: If a signal or the time limit stopped it; all is saved.
    """
    return run(load_config(args.config_file, args.opts), args)


def run(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    """As ``main``, from a configuration that is loaded already."""
    overwrite = getattr(args, "overwrite", False)
    rank = comm.get_rank()
    setup_logger(name="d2pd", distributed_rank=rank)
    keep_terminal_short()
    register_from_config(cfg)
    choice = check_run(cfg, resume=args.resume, eval_only=args.eval_only, overwrite=overwrite)
    plan = None if args.eval_only else _plan(cfg, choice)
    cfg.freeze()
    if overwrite and comm.is_main_process():
        remove_run(cfg.OUTPUT_DIR, cfg.CHECKPOINT.MIRROR_DIR)
    comm.synchronize()
    _use_deterministic(cfg.DETERMINISTIC)
    try:
        default_setup(cfg, args)
    except OSError as error:
        raise ConfigError(f"OUTPUT_DIR {cfg.OUTPUT_DIR} cannot be written: {error}") from error
    setup_logger(cfg.OUTPUT_DIR, rank, name="d2pd", configure_stdout=False)
    keep_terminal_short()
    results = _train(cfg, plan) if plan else _evaluate(cfg, choice)
    if comm.is_main_process():
        for what, path in write_pictures(cfg).items():
            logger.info("%s: %s", what, path)
        check_expected(cfg.TEST.EXPECTED_RESULTS, results)
    return results


@dataclass
class Plan:
    """What is known of a training before anything is written.

    Attributes:
        choice: The checkpoint to go on from; None for a run that starts.
        identity: What the run is; see ``run_identity.describe_run``.
        lengths: Lines about its lengths in iterations and epochs.
        differences: From the run of the checkpoint; None where nothing could be compared.
    """

    choice: Choice | None
    identity: dict[str, Any]
    lengths: list[str]
    differences: Differences | None = None


def _plan(cfg: CfgNode, choice: Choice | None) -> Plan:
    records = load_train_records(cfg, quiet=True)
    lengths = resolve_unit(cfg, len(records))
    check_config(cfg)
    plan = Plan(choice, describe_run(cfg, records), lengths)
    if choice is not None:
        plan.differences = check_same_run(choice.run, plan.identity, choice.path)
    return plan


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


def _use_deterministic(is_wanted: bool) -> None:
    """Make CUDA give the same bits each time, where ``DETERMINISTIC`` asks for it."""
    if is_wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = is_wanted
    torch.use_deterministic_algorithms(is_wanted)


def _train(cfg: CfgNode, plan: Plan) -> dict[str, Any]:
    for line in plan.lengths:
        logger.info(line)
    warn_of_choosing_by_test(cfg)
    trainer = Trainer(cfg, plan.identity)
    if comm.is_main_process():
        path = write_train_batch(cfg, trainer.data_loader.dataset, Path(cfg.OUTPUT_DIR))
        if path is not None:
            logger.info("what the model gets to see: %s", path)
    trainer.resume_or_load(resume=plan.choice is not None, choice=plan.choice)
    if plan.choice is not None:
        log_comparison(plan.differences, plan.identity)
    why = trainer.why_finished()
    if why is None:
        results = dict(trainer.train())
    else:
        logger.warning(why)
        if plan.choice is not None and plan.choice.path.name != FINAL:
            trainer.checkpointer.save_final(trainer.last_iter)  # SOLVER.MAX_ITER was lowered
        known = read_results(cfg.OUTPUT_DIR, trainer.last_iter)
        if known is not None:
            return known
        results = _test(cfg, trainer.model)
    results.update(Trainer.test_final(cfg, trainer.model))
    if comm.is_main_process():
        write_results(cfg.OUTPUT_DIR, trainer.last_iter, results)
    logger.info("weights: %s", Path(cfg.OUTPUT_DIR) / "model_final.pth")
    trainer.checkpointer.update_mirror()
    return results


def _evaluate(cfg: CfgNode, choice: Choice | None) -> dict[str, Any]:
    model = Trainer.build_model(cfg)
    if choice is not None:
        log_choice(choice, cfg.OUTPUT_DIR)
    Checkpointer(model).load(cfg.MODEL.WEIGHTS if choice is None else str(choice.path))
    return _test(cfg, model) | Trainer.test_final(cfg, model)


def _test(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    """Evaluate outside of the loop, where no request to stop is obeyed between two images."""
    return dict(Trainer.test(cfg, model)) if cfg.DATASETS.TEST else {}
