"""Evaluation on the datasets of a run."""

from collections.abc import Callable, Mapping
from typing import Any

from d2pd.training.hooks.measurement import Measurement


class Evaluation(Measurement):
    """Puts every figure of an evaluation, nested names joined by ``/``."""

    def __init__(self, period: int, evaluate: Callable[[], Mapping[str, Any]]) -> None:
        """Set up.

        Args:
            period: See ``Measurement``.
            evaluate: Returns a nested dictionary of numbers.
        """
        super().__init__(period)
        self._evaluate = evaluate

    def measure(self) -> dict[str, float]:
        """Evaluate."""
        return flatten(self._evaluate())


def flatten(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Turn nested results into one level, keys joined by ``/``: ``bbox/AP50``."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[f"{prefix}{key}"] = float(value)
    return flat
