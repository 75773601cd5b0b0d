"""Requests to stop from outside: SIGTERM, SIGINT (Ctrl-C, Colab's stop button) and a time limit.

They are noted when they come and obeyed where nothing is lost: at the next step boundary, or
between two images of an evaluation.
"""

import logging
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)

TRY_AGAIN = 75
"""Exit code of a run that its time limit stopped: the shell's EX_TEMPFAIL, "come again"."""


SAME_MOMENT = 0.5
"""Seconds in which a second SIGINT is the first one again: ``timeout`` sends it to the process and
to its group."""


@dataclass(frozen=True)
class StopRequest:
    """Why a run has to stop now, and the exit code that says so."""

    reason: str
    exit_code: int


class StopTraining(BaseException):
    """Leaves the loop in good order.

    Not an ``Exception``: what handles faults, such as the loop's log of a traceback, is not meant.
    """


class Interruption:
    """Context in which signals and the clock ask for a stop instead of ending the process.

    A second SIGINT, later than ``SAME_MOMENT``, raises ``KeyboardInterrupt`` at once. Outside the
    main thread no signal can be caught; the time limit works all the same.
    """

    def __init__(
        self,
        limit_minutes: float = 0,
        *,
        until: str = "this step, or after this image of an evaluation",
    ) -> None:
        """Start the clock.

        Args:
            limit_minutes: Time from now after which a stop is asked for; 0 for none.
            until: What is still finished after a signal, for the log.
        """
        self._until = until
        self._limit_minutes = limit_minutes
        self._deadline = time.monotonic() + 60 * limit_minutes if limit_minutes else None
        self._signal: signal.Signals | None = None
        self._noted_at = 0.0
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def request(self) -> StopRequest | None:
        """Return what asks for a stop; None while nothing does."""
        if self._signal is not None:
            return StopRequest(f"stopped by {self._signal.name}", 128 + self._signal)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            limit = f"CHECKPOINT.STOP_AFTER_MINUTES {self._limit_minutes:g}"
            return StopRequest(f"stopped by the time limit ({limit})", TRY_AGAIN)
        return None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._signal == signal.SIGINT == number:
            if time.monotonic() - self._noted_at < SAME_MOMENT:
                return
            raise KeyboardInterrupt
        self._signal, self._noted_at = signal.Signals(number), time.monotonic()
        logger.warning(
            "%s: stopping after %s%s",
            self._signal.name,
            self._until,
            "; once more stops at once" if number == signal.SIGINT else "",
        )
