"""``metrics.json``: the numbers of a run, each iteration once, also after a resume."""

import json
import logging
from pathlib import Path
from typing import Any

from d2pd.atomic_file import atomic_file
from d2pd.d2 import EventWriter, get_event_storage
from d2pd.training.writers.appended_file import append_text, cannot_write
from d2pd.training.writers.new_scalars import new_scalars

logger = logging.getLogger(__name__)

STOPPED = "stopped"
"""Field of the row that says why a run stopped."""


class MetricsFile(EventWriter):
    """Appends one JSON object an iteration, keys sorted, values smoothed as the storage hints.

    The rows are those of Detectron2's ``JSONWriter``, NaN and Infinity spelt as Python's ``json``
    does. An iteration that the file holds is never written again. Rows are on the disk when
    ``write`` returns.

    A row that says why the run stopped (``append``) is taken out when training goes on from there:
    the file is then that of a run that was never stopped.

    Args:
        path: File; what is in it stays, but for what the next argument says.
        keep_through: Last iteration that a resume keeps; rows of later ones are cut, and so are
            half-written ones. None keeps all whole rows.

    Attributes:
        last_iteration: Last one with numbers in the file, -1 where there is none.

    Raises:
        UserError: If the file cannot be written.
    """

    def __init__(self, path: str | Path, *, keep_through: int | None) -> None:
        self.path = Path(path)
        self.last_iteration = -1
        self._stop_row: int | None = None  # bytes before it, where it is the last row
        if self.path.is_file():
            self._take_over(keep_through)

    def write(self) -> None:
        """Write the scalars that are newer than the last iteration written.

        Raises:
            UserError: If the disk is full.
        """
        rows = new_scalars(get_event_storage(), self.last_iteration)
        if not rows:
            return
        self._go_on()
        append_text(self.path, "".join(_line({**row, "iteration": number}) for number, row in rows))
        self.last_iteration = rows[-1][0]

    def append(self, iteration: int, **fields: str | float) -> None:
        """Add a row of its own, such as ``stopped="EARLY_STOPPING: ..."``.

        Args:
            iteration: Of the row; a resume from an earlier one cuts it.
            fields: Any names that JSON can hold.

        Raises:
            UserError: If the disk is full.
        """
        self._go_on()
        append_text(self.path, _line({**fields, "iteration": iteration}))

    def _take_over(self, keep_through: int | None) -> None:
        """Cut what a resume writes anew, and learn what is left."""
        kept, late, broken = [], 0, 0
        content = self.path.read_bytes()
        for line in content.splitlines():
            row = _parse(line)
            if row is None:
                broken += 1
            elif keep_through is not None and row["iteration"] > keep_through:
                late += 1
            else:
                kept.append((line + b"\n", row))
        text = b"".join(line for line, _ in kept)
        numbered = [row["iteration"] for _, row in kept if STOPPED not in row]
        self.last_iteration = max(numbered, default=-1)
        if kept and STOPPED in kept[-1][1]:
            self._stop_row = len(text) - len(kept[-1][0])
        if text != content:
            self._replace(text)
        if late or broken:
            logger.info(
                "%s: cut %d rows after iteration %s and %d that were not whole",
                *(self.path, late, keep_through, broken),
            )

    def _go_on(self) -> None:
        if self._stop_row is not None:
            self._replace(self.path.read_bytes()[: self._stop_row])
            self._stop_row = None

    def _replace(self, content: bytes) -> None:
        try:
            with atomic_file(self.path) as file:
                file.write(content)
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True) + "\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # half-written, not text, or nested without end
        return None
    whole = isinstance(row, dict) and isinstance(row.get("iteration"), int)
    return row if whole else None
