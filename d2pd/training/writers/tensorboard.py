"""TensorBoard's event files, without what a resume does again."""

from pathlib import Path

from d2pd.d2 import TensorboardXWriter, get_event_storage
from d2pd.training.hooks.scalar_history import WINDOW
from d2pd.training.writers.appended_file import cannot_write


class TensorboardEvents(TensorboardXWriter):
    """Writes scalars, pictures and histograms; on the disk when ``write`` returns.

    A resume opens a new file beside those of before, which tells TensorBoard to leave out what
    they hold of later iterations.

    Args:
        folder: Of the event files.
        keep_through: Last iteration that is written already, and that a resume keeps: what
            ``MetricsFile.last_iteration`` says, as both are written together. None for a run that
            starts.
    """

    def __init__(self, folder: str | Path, *, keep_through: int | None) -> None:
        purge = {} if keep_through is None else {"purge_step": keep_through + 1}
        self._folder = Path(folder)
        super().__init__(str(folder), WINDOW, **purge)
        self._last_write = -1 if keep_through is None else keep_through

    def write(self) -> None:
        """Write what is new; see the base class.

        Raises:
            UserError: If the disk is full.
        """
        storage = get_event_storage()
        before, has_pictures = self._last_write, bool(storage._vis_data or storage._histograms)
        try:
            super().write()
            if has_pictures or self._last_write > before:
                self._writer.flush()  # else a kill takes the last two minutes with it
        except OSError as error:
            raise cannot_write(self._folder, error) from error
