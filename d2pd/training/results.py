"""The figures that a run ends with: kept in its folder, compared with what was expected."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2pd.errors import UserError
from d2pd.json_file import write_json

NAME = "results.json"


class UnexpectedResultError(UserError):
    """The run is over and its result is not the one that the configuration expects."""


def write_results(folder: str | Path, iteration: int, results: Mapping[str, Any]) -> Path:
    """Keep the results of a finished run as ``results.json``.

    Args:
        folder: ``OUTPUT_DIR``.
        iteration: Last one that was trained.
        results: task -> metric -> value; AP in 0..100.

    Returns:
        The path of the file.
    """
    path = Path(folder) / NAME
    write_json(path, {"iteration": iteration, "results": results}, indent=1)
    return path


def read_results(folder: str | Path, iteration: int | None = None) -> dict[str, Any] | None:
    """Return the results that a run left after this iteration, or any; None where it left none."""
    try:
        content = json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))
        is_of_this = iteration in (None, content["iteration"])
        return _numbers(content["results"]) if is_of_this else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def results_iteration(folder: str | Path) -> int | None:
    """Return the last iteration that was trained before the results; None where none are there."""
    try:
        iteration = json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))["iteration"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return iteration if type(iteration) is int else None


def _numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results with the numbers that JSON cannot hold, such as NaN, as numbers again."""
    return {
        key: _numbers(value) if isinstance(value, Mapping) else float(value)
        for key, value in results.items()
    }


def check_expected(expected: list[list[Any]], results: Mapping[str, Any]) -> None:
    """Compare results with ``TEST.EXPECTED_RESULTS``.

    Args:
        expected: Rows ``[task, metric, value, tolerance]``, AP in 0..100.
        results: task -> metric -> value.

    Raises:
        UnexpectedResultError: Listing every row that does not hold.
    """
    misses = []
    for task, metric, value, tolerance in expected:
        actual = results.get(task, {}).get(metric, float("nan"))
        if isinstance(actual, Mapping):  # results of several datasets are a level deeper
            actual = float("nan")
        if not abs(actual - value) <= tolerance:
            misses.append(f"{task}/{metric} is {actual:.2f}, expected {value} ± {tolerance}")
    if misses:
        raise UnexpectedResultError(f"TEST.EXPECTED_RESULTS: {'; '.join(misses)}")
