"""When checkpoints are written: before an evaluation, when its decisions are made, at the end."""

import time

from d2pd.d2 import HookBase
from d2pd.training.checkpoints.checkpointer import Checkpointer


class SaveBeforeEvaluation(HookBase):
    """Saves before an evaluation, marked as pending, so that a kill during it costs no training.

    A resume runs the hooks behind this one for that iteration first.
    """

    def __init__(self, checkpointer: Checkpointer) -> None:
        self._checkpointer = checkpointer

    def after_step(self) -> None:
        """Save if an evaluation follows."""
        if self.trainer.is_evaluation_due():
            self._checkpointer.save_iteration(self.trainer.iter, pending=True)


class SaveProgress(HookBase):
    """Saves by iterations, by minutes, after an evaluation and at a stop from outside.

    What the last iteration leaves is ``SaveFinal``'s.
    """

    def __init__(self, checkpointer: Checkpointer, period: int, minutes: float) -> None:
        """Set up.

        Args:
            checkpointer: Writes the files.
            period: Iterations from one checkpoint to the next.
            minutes: Save also when this time has passed since the last one; 0 for never.
        """
        self._checkpointer = checkpointer
        self._period = period
        self._minutes = minutes
        self._saved_at = time.monotonic()

    def before_train(self) -> None:
        """Start the clock."""
        self._saved_at = time.monotonic()

    def after_step(self) -> None:
        """Save when it is time."""
        trainer = self.trainer
        if trainer.is_last_iter:
            return
        if trainer.is_evaluation_due() or trainer.stop_request or self._is_time():
            self._checkpointer.save_iteration(trainer.iter, pending=False)
            self._saved_at = time.monotonic()

    def _is_time(self) -> bool:
        if (self.trainer.iter + 1) % self._period == 0:
            return True
        return self._minutes > 0 and time.monotonic() - self._saved_at >= 60 * self._minutes


class SaveFinal(HookBase):
    """Saves the final model once the last row is written.

    A run with a final model is over: nothing would write that row any more. A kill before it leaves
    the last iteration's evaluation pending, or an earlier checkpoint.
    """

    def __init__(self, checkpointer: Checkpointer) -> None:
        self._checkpointer = checkpointer

    def after_step(self) -> None:
        """Save after the last iteration."""
        if self.trainer.is_last_iter:
            self._checkpointer.save_final(self.trainer.iter)
