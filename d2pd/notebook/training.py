"""The training of a notebook: one cell that starts it, goes on with it, or shows what it gave."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2pd.config import config_from_easydict
from d2pd.d2 import CfgNode
from d2pd.errors import RunInterrupted
from d2pd.evaluation.build import predictions_path
from d2pd.training.checkpoints.checkpoint_folder import find_checkpoints
from d2pd.training.run import run
from d2pd.training.run_folder import held_traces

logger = logging.getLogger(__name__)

ONLY_LOG = {"metrics.json"}


def train_or_resume(options: Mapping[str, Any], config_file: str | Path = "") -> dict[str, Any]:
    """Train, or go on where a training was cut off; run again after its end, give its results.

    It goes on where ``OUTPUT_DIR`` or the mirror holds a checkpoint: after a disconnect the
    machine's own disk is empty, and the copy on Drive is taken. A run that was cut off before its
    first checkpoint starts anew.

    Args:
        options: Values by the names of ``config_keys.EASYDICT_KEYS``.
        config_file: YAML file to start from.

    Returns:
        task -> metric -> value; AP in 0..100.

    Raises:
        UserError: For all that the user can mend.
        RunInterrupted: If the stop button or the time limit stopped it; all is saved.
    """
    cfg, args = config_from_easydict(options, config_file)
    if not (args.overwrite or args.eval_only):
        args.resume = args.resume or _holds_checkpoint(cfg)
        args.overwrite = not args.resume and _holds_only_a_log(cfg)
    try:
        results = run(cfg.clone(), args)
    except RunInterrupted as stop:
        message = f"{stop} (in a notebook: run the cell again)"
        raise RunInterrupted(message, stop.exit_code) from None
    if args.resume and not args.eval_only and _lacks_predictions(cfg):
        # A finished run that came back from the mirror has its weights and numbers alone.
        args.eval_only = True
        run(cfg, args)
    return results


def _holds_checkpoint(cfg: CfgNode) -> bool:
    places = (cfg.OUTPUT_DIR, cfg.CHECKPOINT.MIRROR_DIR)
    return any(find_checkpoints(place) for place in places)


def _holds_only_a_log(cfg: CfgNode) -> bool:
    """Tell whether all that is there of a run is the log of one that has saved nothing."""
    places = [place for place in (cfg.OUTPUT_DIR, cfg.CHECKPOINT.MIRROR_DIR) if place]
    if {name for place in places for name in held_traces(place)} != ONLY_LOG:
        return False
    logger.warning("The run in %s had saved nothing yet: it starts anew", cfg.OUTPUT_DIR)
    return True


def _lacks_predictions(cfg: CfgNode) -> bool:
    names = (*cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST)
    return any(not predictions_path(cfg.OUTPUT_DIR, name).is_file() for name in names)
