"""Write the model card of a run into its folder."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from d2pd import __version__
from d2pd.config import config_of_run
from d2pd.d2 import CfgNode
from d2pd.errors import UserError
from d2pd.inference.trained_model import class_names_of
from d2pd.output_files import write_file
from d2pd.reporting.model_card.configuration import configuration_lines
from d2pd.reporting.model_card.heading import model_lines, use_lines
from d2pd.reporting.model_card.limits import limit_lines
from d2pd.reporting.model_card.markdown import code
from d2pd.reporting.model_card.saved_weights import Weights, read_saved_weights
from d2pd.reporting.model_card.scores import metric_lines
from d2pd.reporting.model_card.tested_set import read_tested_sets
from d2pd.reporting.model_card.thresholds import common_score, deciding_set, threshold_lines
from d2pd.reporting.model_card.trained_on import training_lines
from d2pd.reporting.model_card.training_data import read_training_data
from d2pd.reporting.report.run_config import read_run_config, register_datasets
from d2pd.reporting.report.status import run_status
from d2pd.reporting.report.training import History, read_history

NAME = "model_card.md"
_BLANKS = re.compile("\n{3,}")
_DATED = re.compile(r"=== .*, (\d{4}-\d\d-\d\d) \d\d:\d\d:\d\d ===$")


def write_model_card(output_dir: str | Path) -> Path:
    """Write ``model_card.md``: what a run's weights are, learnt from, reach and do not.

    Args:
        output_dir: ``OUTPUT_DIR`` of a run, finished or not.

    Returns:
        The path of the file; it is whole or not there.

    Raises:
        MissingFileError: If the folder holds no run.
        ConfigError: If its configuration cannot be used.
        UserError: If the card cannot be written.
    """
    folder = Path(output_dir)
    text = "\n".join(card_lines(folder))
    write_file(folder / NAME, _BLANKS.sub("\n\n", text).rstrip() + "\n")
    return folder / NAME


def card_lines(output_dir: Path) -> Iterator[str]:
    """Yield the lines of the card; equal folders and labels give equal lines.

    Raises:
        MissingFileError: As ``write_model_card``.
        ConfigError: Likewise.
    """
    file = read_run_config(output_dir)
    weights = read_saved_weights(output_dir)
    run = _run(weights)
    cfg = _trained(run, file)
    # The last to register a name is right: that of the training. Others were tested on later.
    trouble = [register_datasets(one) for one in (file, cfg)]
    history = read_history(output_dir)
    training, tests = read_training_data(cfg, run), read_tested_sets(cfg, output_dir, history)
    is_ended, words = _how_far(output_dir, history, weights, cfg.SOLVER.MAX_ITER)
    chosen, class_names = deciding_set(tests), class_names_of(cfg, {"run": run})
    iteration = weights.last.iteration if weights.last else None
    sections = {
        "Model": model_lines(cfg, weights, class_names, run_dates(output_dir), words),
        "Use": use_lines(cfg, weights, class_names, common_score(chosen) if chosen else None),
        "Trained on": training_lines(cfg, training, iteration, trouble[-1]),
        "Metrics": metric_lines(cfg, tests, weights, history),
        "Threshold": threshold_lines(cfg, tests),
        "Limits": limit_lines(cfg, training, tests, "" if is_ended else words),
        "Configuration": configuration_lines(cfg, file, weights.last.name if weights.last else ""),
    }
    yield from (f"# Model card: {code(output_dir.resolve().name)}", "")
    yield from (
        f"Written by d2pd {__version__} from what the training has left in this folder.",
        "",
    )
    for title, lines in sections.items():
        yield from (f"## {title}", "")
        yield from lines
        yield ""


def run_dates(output_dir: Path) -> list[str]:
    """Return the days on which a run began and was last heard of, as its ``run.log`` has them."""
    try:
        text = (output_dir / "run.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    days = [found[1] for line in text.splitlines() if (found := _DATED.search(line))]
    return [days[0], days[-1]] if days else []


def _how_far(
    output_dir: Path, history: History, weights: Weights, max_iter: int
) -> tuple[bool, str]:
    """Tell whether a training came to its end, and how far it came, in a sentence."""
    status, words = run_status(output_dir, history, max_iter)
    iteration = weights.last.iteration if weights.last else None
    is_short = status == "finished" and iteration is not None and iteration + 1 < max_iter
    if status != "unfinished" and not is_short:
        return True, words
    newest = "" if iteration is None else f"; the newest weights are after iteration {iteration:,}"
    return False, f"The training has not come to its end of {max_iter:,} iterations{newest}."


def _run(weights: Weights) -> Mapping[str, Any]:
    """Return what the weights say of their training; empty where they do not say."""
    files = [weights.last, *weights.best] if weights.last else [*weights.best]
    return next((file.run for file in files if file.run), {})


def _trained(run: Mapping[str, Any], file: CfgNode) -> CfgNode:
    """Return the configuration of the training: of the weights, else of ``config.yaml``.

    An evaluation into the same folder writes that file anew. The data may have moved since: where
    they lie, the file says.
    """
    values = run.get("config")
    if not isinstance(values, Mapping):
        return file
    try:
        cfg = config_of_run(values, "the weights")
    except UserError:  # of another version of d2pd
        return file
    cfg.DATASETS.ROOT = file.DATASETS.ROOT
    return cfg
