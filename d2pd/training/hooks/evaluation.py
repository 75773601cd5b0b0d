"""Evaluation at its own iteration, the last one included."""

from collections.abc import Callable, Mapping
from typing import Any

from d2pd.d2 import HookBase, comm


class Evaluation(HookBase):
    """Evaluates every ``period`` iterations and after the last one; puts every figure.

    Detectron2's hook evaluates for the last time after the loop, when no other hook can decide
    anything by it; this one does it in the last iteration.
    """

    def __init__(self, period: int, evaluate: Callable[[], Mapping[str, Any]]) -> None:
        """Set up.

        Args:
            period: Iterations between evaluations; 0 evaluates after the last iteration only.
            evaluate: Returns a nested dictionary of numbers. Every process runs it.
        """
        self._period = period
        self._evaluate = evaluate
        self._last_iter = -1

    def is_due(self) -> bool:
        """Tell whether this iteration is one to evaluate after."""
        return is_due(self.trainer.iter, self._period, self.trainer.max_iter)

    def after_step(self) -> None:
        """Evaluate when it is time."""
        if self.is_due():
            self.run()

    def run(self) -> None:
        """Evaluate now, unless this iteration has been evaluated."""
        if self._last_iter == self.trainer.iter:
            return
        figures = flatten(self._evaluate())
        self.trainer.storage.put_scalars(**figures, smoothing_hint=False)
        self._last_iter = self.trainer.iter
        # The processes take different times; they begin the next iteration together.
        comm.synchronize()


def is_due(iteration: int, period: int, max_iter: int) -> bool:
    """Tell whether something that comes every ``period`` iterations, and last, comes now."""
    done = iteration + 1
    return done >= max_iter or (period > 0 and done % period == 0)


def flatten(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Turn nested results into one level, keys joined by ``/``: ``bbox/AP50``."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[f"{prefix}{key}"] = float(value)
    return flat
