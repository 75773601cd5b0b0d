"""Shows the figures of an evaluation and holds them against what a config expects."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from d2pd.errors import UserError

logger = logging.getLogger(__name__)


def log_results(dataset_name: str, results: Mapping[str, Any]) -> None:
    """Log the figures of each task in one line; those of single classes are left out."""
    for task, figures in results.items():
        if isinstance(figures, Mapping):
            shown = ", ".join(f"{k} {v:.4f}" for k, v in figures.items() if "-" not in k)
        else:
            shown = str(figures)
        logger.info("%s, %s: %s", dataset_name, task, shown)


def verify_results(expected: Sequence[Sequence[Any]], results: Mapping[str, Any]) -> None:
    """Compare figures with what is expected.

    Args:
        expected: Rows of task, metric, value, tolerance, as in ``TEST.EXPECTED_RESULTS``.
        results: Figures by task and metric.

    Raises:
        UserError: If one is missing, not finite or out of its tolerance.
    """
    wrong = []
    for task, metric, value, tolerance in expected:
        found = results.get(task, {}).get(metric, math.nan)
        if not abs(found - value) <= tolerance:
            wrong.append(f"{task}/{metric} is {found}, expected {value} +- {tolerance}")
    if wrong:
        raise UserError("the results are not those of TEST.EXPECTED_RESULTS: " + "; ".join(wrong))
    logger.info("The results are as TEST.EXPECTED_RESULTS expects")
