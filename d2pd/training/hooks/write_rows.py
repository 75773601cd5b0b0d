"""When writers write: regularly, and at every iteration that was evaluated."""

import logging
import sys
from collections.abc import Callable

from d2pd.d2 import HookBase
from d2pd.errors import UserError
from d2pd.training.interruption import StopTraining
from d2pd.training.processes import is_loss_of_peer
from d2pd.training.writers.build import RunWriters

logger = logging.getLogger(__name__)

PERIOD = 20


class WriteRows(HookBase):
    """Lets writers write every ``PERIOD`` iterations, after an evaluation and at the end.

    Detectron2's hook knows nothing of evaluations, whose figures it writes up to 20 iterations
    late. Comes last among the hooks, so that what they put is written in the same iteration.
    """

    def __init__(self, build_writers: Callable[[], RunWriters]) -> None:
        """Keep the builder: where to go on writing is known when training starts."""
        self._build_writers = build_writers
        self._writers: RunWriters | None = None

    def before_train(self) -> None:
        """Open the files; write the row that a kill between checkpoint and row has left out."""
        self._writers = self._build_writers()
        trainer = self.trainer
        goes_on = trainer.start_iter > 0 and not trainer.is_pending
        if goes_on and trainer.is_row_due(trainer.start_iter - 1):
            self._writers.write()

    def after_step(self) -> None:
        """Write when it is time. A run asked to stop writes no row that a whole one has not."""
        trainer, writers = self.trainer, self._writers
        if writers and (trainer.is_row_due(trainer.iter) or trainer.stop_reason):
            writers.write()
            if trainer.stop_reason:
                writers.note_stop(trainer.iter, trainer.stop_reason)

    def after_train(self) -> None:
        """Say how it ended, after an error with what was logged before it; then close."""
        writers, error = self._writers, sys.exception()
        if writers is None:  # an error before the first file was opened
            return
        reason = self._reason(error)
        try:
            if error is not None and not isinstance(error, StopTraining):
                writers.write()
            writers.finish(reason)
            writers.close()
        except UserError as second:  # a full disk, perhaps; the first error is the one to tell
            if error is None:
                raise
            logger.warning("%s", second)

    def _reason(self, error: BaseException | None) -> str:
        trainer = self.trainer
        if trainer.stop_request is not None:
            return f"{trainer.stop_request.reason}: --resume goes on"
        if trainer.stop_reason is not None:
            return f"stopped after iteration {trainer.iter}: {trainer.stop_reason}"
        if is_loss_of_peer(error):
            return f"ended in iteration {trainer.iter}: another process was lost; --resume goes on"
        if error is not None:
            return f"ended by {type(error).__name__} in iteration {trainer.iter}"
        return f"all {trainer.max_iter} iterations are done"
