"""A logged scalar that something is decided by."""

from typing import Any

from d2pd.errors import ConfigError
from d2pd.training.period import is_due

_OWN = ("best/", "early_stopping/")
_NOT_METRICS = ("lr", "eta_seconds")


class WatchedMetric:
    """Tells at which iterations a metric was logged anew, and notices one that never is."""

    def __init__(self, name: str, period: int, key: str) -> None:
        """Name the metric.

        Args:
            name: As logged, such as ``bbox/AP``.
            period: Iterations between the evaluations that bring it; 0: only the last iteration.
            key: Of the configuration that names it, for messages.
        """
        self.name = name
        self.period = period
        self.key = key
        self.was_logged = False

    def new_value(self, trainer: Any) -> float | None:
        """Return the value logged in this iteration; None where none was."""
        value, iteration = trainer.storage.latest().get(self.name, (None, None))
        return value if iteration == trainer.iter else None

    def is_missing(self, value: float | None, trainer: Any) -> bool:
        """Tell whether the first evaluation has passed without the metric.

        Args:
            value: What ``new_value`` returned, on any process.
            trainer: Its iteration counts.
        """
        self.was_logged = self.was_logged or value is not None
        return not self.was_logged and is_due(trainer.iter, self.period, trainer.max_iter)

    def missing(self, trainer: Any) -> ConfigError:
        """Return the error of a metric that is missing: it lists those that are there."""
        hints = trainer.storage.smoothing_hints()
        there = sorted(
            name
            for name, is_smoothed in hints.items()
            if not is_smoothed and not name.startswith(_OWN) and name not in _NOT_METRICS
        )
        listed = f"name one of those that are there: {', '.join(there)}"
        return ConfigError(
            f"{self.key} {self.name} was not logged by the evaluation after iteration "
            f"{trainer.iter}; {listed if there else 'no metric at all was logged'}"
        )
