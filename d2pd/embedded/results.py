"""Holds the figures of an evaluation against what a config expects."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from d2pd.errors import UserError

logger = logging.getLogger(__name__)


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
