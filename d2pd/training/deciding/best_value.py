"""The best of a metric's values so far, and which way is better."""

import math
import re
from dataclasses import dataclass
from typing import Any

from d2pd.errors import ConfigError

_LOWER_IS_BETTER = re.compile(r"loss|losses|miss|mr\d*|lamr")
_HIGHER_IS_BETTER = re.compile(r"m?ap(\d+|[sml])?|m?ar(\d+|[sml])?|recall|precision|f1|accuracy")


def metric_mode(name: str, mode: str, section: str) -> str:
    """Return which way a metric is better: ``min`` or ``max``.

    Args:
        name: As logged, such as ``val/total_loss`` or ``bbox/AP-person``; its last part counts
            first, and of a part the first word that says it.
        mode: ``min``, ``max``, or ``auto``: from the name.
        section: Of the configuration, for the message.

    Raises:
        ConfigError: If ``auto`` cannot tell.
    """
    if mode != "auto":
        return mode
    for part in reversed(name.lower().split("/")):
        for word in re.split(r"[^a-z0-9]+", part):
            if _LOWER_IS_BETTER.fullmatch(word):
                return "min"
            if _HIGHER_IS_BETTER.fullmatch(word):
                return "max"
    raise ConfigError(
        f"{section}.METRIC {name}: its name does not say whether less or more of it is better; set "
        f"{section}.MODE min or max"
    )


@dataclass
class BestValue:
    """The best finite value of a metric and the iteration of it; of equal ones the first.

    Attributes:
        mode: ``min`` or ``max``: which way is better.
        min_delta: A value must be better by more than this, in the metric's unit.
        value: None before the first finite one.
        iteration: Of ``value``.
    """

    mode: str
    min_delta: float = 0.0
    value: float | None = None
    iteration: int | None = None

    def improves(self, value: float, iteration: int) -> bool:
        """Take in a value; tell whether it is the new best. One that is not finite never is."""
        if not math.isfinite(value):
            return False
        if self.value is not None and not self.is_worse(self.value, value, self.min_delta):
            return False
        self.value, self.iteration = value, iteration
        return True

    def is_worse(self, value: float, than: float, by: float = 0.0) -> bool:
        """Tell whether a value is worse than another by more than ``by``; NaN never is."""
        return value > than + by if self.mode == "min" else value < than - by

    def state_dict(self) -> dict[str, Any]:
        """Return value and iteration, and the mode they were found in."""
        return {"value": self.value, "iteration": self.iteration, "mode": self.mode}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned."""
        self.value, self.iteration = state["value"], state["iteration"]
