"""When writers write: regularly, and at every iteration that was evaluated."""

from collections.abc import Callable, Sequence

from d2pd.d2 import EventWriter, HookBase

PERIOD = 20


class WriteRows(HookBase):
    """Lets writers write every ``PERIOD`` iterations, after an evaluation and at the end.

    Detectron2's hook knows nothing of evaluations, whose figures it writes up to 20 iterations
    late. Comes last among the hooks, so that what they put is written in the same iteration.
    """

    def __init__(self, build_writers: Callable[[], Sequence[EventWriter]]) -> None:
        """Keep the builder: where to go on writing is known when training starts."""
        self._build_writers = build_writers
        self._writers: Sequence[EventWriter] = ()
        self._last_iter = -1

    def before_train(self) -> None:
        """Open the files."""
        self._writers = self._build_writers()

    def after_step(self) -> None:
        """Write when it is time."""
        trainer = self.trainer
        if trainer.is_row_due(trainer.iter) or trainer.stop_reason or trainer.stop_request:
            self._write()

    def after_train(self) -> None:
        """Write what came before an error, and close."""
        if self._last_iter < self.trainer.iter < self.trainer.max_iter:
            self._write()
        for writer in self._writers:
            writer.close()

    def _write(self) -> None:
        self._last_iter = self.trainer.iter
        for writer in self._writers:
            writer.write()
