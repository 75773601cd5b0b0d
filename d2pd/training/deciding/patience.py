"""When to stop early: decided by a metric's values alone."""

from dataclasses import dataclass, field
from typing import Any

from d2pd.training.deciding.best_value import BestValue


@dataclass(frozen=True)
class Stop:
    """Why and when a training was stopped.

    Attributes:
        iteration: Of the evaluation that stopped it.
        value: The metric's value there.
        has_diverged: Because of that value; otherwise because patience was used up.
        reason: A clause that goes on after the metric's name.
    """

    iteration: int
    value: float
    has_diverged: bool
    reason: str


@dataclass
class Patience:
    """Takes in one value for each evaluation and says when to stop.

    An evaluation that is not better than the best by more than ``min_delta`` uses up patience; a
    better one gives it all back. NaN and infinity are not better. Patience 0 is the same as 1.

    Attributes:
        mode: ``min`` or ``max``: which way the metric is better.
        patience: Evaluations without a better value that are waited for.
        min_delta: In the metric's unit.
        warmup_iters: Evaluations before this iteration use up no patience.
        divergence_threshold: A value worse than this stops at once, in the warm-up too; NaN is
            not worse than anything. None for no bound.
        bad_evaluations: Since the last better value.
        stop: Set when an evaluation has stopped the training.
    """

    mode: str
    patience: int
    min_delta: float = 0.0
    warmup_iters: int = 0
    divergence_threshold: float | None = None
    bad_evaluations: int = 0
    stop: Stop | None = None
    best: BestValue = field(init=False)

    def __post_init__(self) -> None:
        self.best = BestValue(self.mode, self.min_delta)

    @property
    def left(self) -> int:
        """Evaluations without a better value that may still come."""
        return max(0, max(1, self.patience) - self.bad_evaluations)

    def judge(self, value: float, iteration: int) -> Stop | None:
        """Take in the value of an evaluation; return why to stop, or None to go on."""
        if self.best.improves(value, iteration):
            self.bad_evaluations = 0
        elif iteration >= self.warmup_iters:
            self.bad_evaluations += 1
        self.stop = None
        if self._has_diverged(value):
            reason = (
                f"is {value:.4g}, worse than EARLY_STOPPING.DIVERGENCE_THRESHOLD "
                f"{self.divergence_threshold:.4g}"
            )
            self.stop = Stop(iteration, value, True, reason)
        elif self.left == 0:
            self.stop = Stop(iteration, value, False, self._out_of_patience())
        return self.stop

    def is_still_stopped(self) -> bool:
        """Tell whether the settings of now would have stopped where the training was stopped."""
        if self.stop is None:
            return False
        return self._has_diverged(self.stop.value) if self.stop.has_diverged else self.left == 0

    def way_out(self) -> str:
        """Return the setting that lets a stopped training go on."""
        if self.stop is not None and self.stop.has_diverged:
            return f"EARLY_STOPPING.DIVERGENCE_THRESHOLD None, or one beyond {self.stop.value:.4g},"
        return f"EARLY_STOPPING.PATIENCE {self.bad_evaluations + max(1, self.patience)}"

    def state_dict(self) -> dict[str, Any]:
        """Return the best, the evaluations since, and the stop, as plain data."""
        return {
            "best": self.best.state_dict(),
            "bad_evaluations": self.bad_evaluations,
            "stop": vars(self.stop).copy() if self.stop else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned; the settings stay those of now."""
        self.best.load_state_dict(state["best"])
        self.bad_evaluations = state["bad_evaluations"]
        self.stop = Stop(**state["stop"]) if state["stop"] else None

    def _has_diverged(self, value: float) -> bool:
        threshold = self.divergence_threshold
        return threshold is not None and self.best.is_worse(value, threshold)

    def _out_of_patience(self) -> str:
        count = self.bad_evaluations
        waited = f"for {count} evaluation{'s' if count != 1 else ''}"
        if self.best.value is None:
            return f"has had no finite value {waited}"
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return (
            f"has not improved on {self.best.value:.4g} (iteration {self.best.iteration}){by} "
            f"{waited}"
        )
