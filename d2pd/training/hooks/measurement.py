"""Figures measured at an iteration of their own, the last one included."""

from abc import abstractmethod
from collections.abc import Mapping

from d2pd.d2 import HookBase, comm
from d2pd.training.period import is_due


class Measurement(HookBase):
    """Measures every ``period`` iterations and after the last one; puts the figures unsmoothed.

    Detectron2's ``EvalHook`` measures for the last time after the loop, when no other hook can
    decide anything by it; this one does it in the last iteration.
    """

    def __init__(self, period: int) -> None:
        """Set up.

        Args:
            period: Iterations between two measurements; 0 measures after the last iteration only.
        """
        self._period = period
        self._last_iter = -1

    @abstractmethod
    def measure(self) -> Mapping[str, float]:
        """Return figures by their full names. Every process runs it."""

    def after_step(self) -> None:
        """Measure when it is time."""
        if is_due(self.trainer.iter, self._period, self.trainer.max_iter):
            self.run()

    def run(self) -> None:
        """Measure now, unless it was done in this iteration."""
        iteration = self.trainer.iter
        if self._last_iter == iteration:
            return
        for name, value in self.measure().items():
            self.trainer.storage.put_scalar(name, value, smoothing_hint=False, cur_iter=iteration)
        self._last_iter = iteration
        # The processes take different times; they begin the next iteration together.
        comm.synchronize()
