"""The processes of one machine: started together, watched, ended together."""

import contextlib
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from types import FrameType
from typing import Any

from d2pd.errors import ProcessLost, RunInterrupted, UserError
from d2pd.training.processes import transportable

GRACE = 5.0
"""Seconds in which the others may finish what they write when one has failed."""

POLL = 0.2
"""Seconds between two looks. Not the ends of the pipes alone: the workers of a killed process's
loader hold them open for seconds."""

TIMES_TO_KILL = 3
"""Interrupts by the user after which the processes are killed."""


@dataclass(frozen=True)
class Killed:
    """The end of a process that could not say anything."""

    rank: int
    pid: int
    exit_code: int

    def __str__(self) -> str:
        if self.exit_code >= 0:
            how = f"ended without a word, exit code {self.exit_code}"
        else:
            how = f"was killed by {signal.Signals(-self.exit_code).name}"
            if self.exit_code == -signal.SIGKILL:
                how += " (by hand, or by the system where memory ran out)"
        return f"the process of rank {self.rank} (pid {self.pid}) {how}"


@dataclass
class Running:
    """One process.

    Attributes:
        rank: Over all machines.
        process: It.
        receiver: Gets what it ended with: an error, or None.
        end: None while it runs; then a list with that.
    """

    rank: int
    process: Any
    receiver: Any
    end: list[Any] | None = None

    def look(self) -> None:
        """See whether it has ended."""
        is_over = self.process.exitcode is not None  # before the look: it may end in between
        if self.receiver.poll():
            with contextlib.suppress(EOFError):
                self.end = [self.receiver.recv()]
                return
        if is_over:
            self.end = [Killed(self.rank, self.process.pid, self.process.exitcode)]


def start_processes(work: Callable[[int], None], ranks: Sequence[int]) -> list[Running]:
    """Start a process for each rank, which calls ``work`` with its number on this machine."""
    # Python's tracker gives back the locks of killed processes, and would tell the user so.
    warned = [os.environ.get("PYTHONWARNINGS", ""), "ignore:resource_tracker:UserWarning"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, warned))
    context = multiprocessing.get_context("spawn")  # a fork of a process that uses CUDA cannot
    running = []
    for local_rank, rank in enumerate(ranks):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(work, local_rank, sender), name=f"rank {rank}"
        )
        process.start()
        sender.close()
        running.append(Running(rank, process, receiver))
    return running


class Watch:
    """Waits for processes, passes signals on to them, and ends all where one fails.

    Args:
        running: They, just started.
    """

    def __init__(self, running: Sequence[Running]) -> None:
        self.running = running
        self._signals: list[signal.Signals] = []
        self._deadline = float("inf")

    def wait(self) -> None:
        """Return when all are through.

        Raises:
            ProcessLost: If one was killed.
            BaseException: What one of them raised.
        """
        try:
            with self._signals_passed_on():
                while self._alive() and time.monotonic() < self._deadline:
                    self._look()
        finally:
            for one in self._alive():
                one.process.kill()
            for one in self.running:
                one.process.join()
        self._tell()

    def _alive(self) -> list[Running]:
        return [one for one in self.running if one.end is None]

    def _look(self) -> None:
        connection.wait([one.receiver for one in self._alive()], timeout=POLL)
        for one in self._alive():
            one.look()
        failures = [one.end[0] for one in self.running if one.end]
        # One that was asked to stop has stopped together with the others, who may still be saving.
        if any(end is not None and not isinstance(end, RunInterrupted) for end in failures):
            self._deadline = min(self._deadline, time.monotonic() + GRACE)

    @contextmanager
    def _signals_passed_on(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self._pass_on)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(signal.Signals(number))
        if self._signals.count(signal.SIGINT) >= TIMES_TO_KILL:
            self._deadline = 0.0
        for one in self._alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.process.pid, number)

    def _tell(self) -> None:
        """Raise the cause where several ended badly: the others failed because of it."""
        ends = [one.end[0] for one in self.running if one.end and one.end[0] is not None]
        if self._signals:
            ends = [self._asked_for(end) for end in ends]
            if not ends and self._deadline == 0.0:
                raise KeyboardInterrupt
        for end in sorted(ends, key=_place):
            if isinstance(end, Killed):
                raise ProcessLost(
                    f"{end}; the others were stopped. --resume goes on from the newest checkpoint"
                )
            raise end

    def _asked_for(self, end: Any) -> Any:
        """Return the end of a process, in words where a signal that was passed on was its end."""
        number = next(
            (n for n in self._signals if isinstance(end, Killed) and end.exit_code == -n), 0
        )
        if not number:
            return end
        return RunInterrupted(
            f"stopped by {signal.Signals(number).name} before training", 128 + number
        )


def _place(end: Any) -> int:
    """Return how near to the cause an end is."""
    if isinstance(end, Killed):
        return 0
    if isinstance(end, ProcessLost):
        return 4
    if isinstance(end, UserError):
        return 1
    return 3 if isinstance(end, RunInterrupted) else 2


def _work(work: Callable[[int], None], local_rank: int, sender: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    end: BaseException | None = None
    try:
        work(local_rank)
    except BaseException as error:  # whatever it is, it is told where the run was started
        end = transportable(error)
        if not isinstance(error, UserError | RunInterrupted | KeyboardInterrupt):
            end.add_note("".join(traceback.format_exception(error)).rstrip())
    sys.stdout.flush()
    sys.stderr.flush()
    sender.send(end)
    for worker in multiprocessing.active_children():
        worker.kill()
    # Gives back the locks that this process has made.
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    # Torch now and then aborts when it takes its own gloo threads down.
    os._exit(0 if end is None else 1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(1)
