"""``run.log``: what a person wants to know of a run, a line at a time."""

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import torch

from d2pd.d2 import EventStorage, EventWriter, get_event_storage
from d2pd.reporting.run_metrics import BEST, VALIDATION, training_losses
from d2pd.training.hooks.scalar_history import WINDOW
from d2pd.training.writers.appended_file import append_text

logger = logging.getLogger("d2pd.run")

PATIENCE_LEFT = "early_stopping/patience_left"
DECISIONS = (BEST, "early_stopping/")
"""What the names of figures start with that evaluations have led to."""
TIME_WINDOW = 1000
"""Iterations of the median that the time left is computed from."""
LINES_PER_HEADING = 25
WIDTH = 100


class RunLog(EventWriter):
    """Logs a line at each write and a block after each evaluation; on the terminal too.

    The lines are columns below a heading: medians of ``WINDOW`` iterations, the rate as it is. The
    time left is that of the iterations, without evaluations; it is put as ``eta_seconds``, as
    Detectron2's printer does, which this takes the place of. Comes first among the writers.

    Args:
        path: Text file; appended to.
        max_iter: Number of iterations of the whole run.
        iters_per_epoch: Iterations in which every training image is met once; None where unknown.
        best: Of a run that goes on: metric -> iteration where it was best, and its value there.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_iter: int,
        iters_per_epoch: float | None = None,
        best: Mapping[str, tuple[int, float]] | None = None,
    ) -> None:
        self._path = Path(path)
        self._max_iter = max_iter
        self._iters_per_epoch = iters_per_epoch
        self._best = dict(best or {})
        self._last_line = -1
        self._last_evaluation = -1
        self._widths: dict[str, int] = {}
        self._lines_since_heading = LINES_PER_HEADING

    def start(self, facts: Sequence[str], start_iter: int = 0) -> None:
        """Say what is trained, and that it goes on, if it does. Call before the first iteration.

        Args:
            facts: Lines.
            start_iter: First iteration to come.

        Raises:
            UserError: If the file cannot be written.
        """
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        begun = f"resumed after iteration {start_iter - 1}" if start_iter else "started"
        self._say([f"=== {begun}, {now} ===", *facts])
        # What a resume has put back into the storage has been told before.
        storage = get_event_storage()
        self._last_line = _iteration_of(storage, "total_loss")
        self._last_evaluation = last_evaluation(storage)

    def finish(self, reason: str) -> None:
        """Say why the run ends.

        Raises:
            UserError: If the file cannot be written.
        """
        self._say([f"=== {reason}, {datetime.now().strftime('%Y-%m-%d %H:%M:%S')} ==="])

    def write(self) -> None:
        """Log a line for the last iteration, and a block for an evaluation that is new.

        Raises:
            UserError: If the disk is full.
        """
        storage = get_event_storage()
        iteration = _iteration_of(storage, "total_loss")
        evaluation = last_evaluation(storage)
        is_new = evaluation > self._last_evaluation
        lines: list[str] = []
        if iteration > self._last_line or (is_new and iteration >= 0):
            lines += self._row(self._cells(storage, iteration))
            self._last_line = iteration
        if is_new:
            lines += self._evaluation(storage, evaluation)
            self._last_evaluation = evaluation
        if lines:
            self._say(lines)

    def _say(self, lines: Sequence[str]) -> None:
        clock = datetime.now().strftime("%m-%d %H:%M")
        append_text(self._path, "".join(f"{clock}  {line}\n" for line in lines))
        for line in lines:
            logger.info("%s", line)

    def _row(self, cells: Mapping[str, str]) -> list[str]:
        """Return a line of the table, below its heading where that is due."""
        is_due = self._lines_since_heading >= LINES_PER_HEADING
        if is_due or cells.keys() - self._widths.keys():
            self._widths = {head: max(len(head), len(text)) for head, text in cells.items()}
            self._lines_since_heading = 0
            return [self._aligned({head: head for head in cells}), self._aligned(cells)]
        self._lines_since_heading += 1
        return [self._aligned(cells)]

    def _aligned(self, cells: Mapping[str, str]) -> str:
        columns = (cells.get(head, "").rjust(width) for head, width in self._widths.items())
        return "  ".join(columns).rstrip()

    def _cells(self, storage: EventStorage, iteration: int) -> dict[str, str]:
        cells = {"iteration": f"{iteration}/{self._max_iter}".rjust(10)}
        if self._iters_per_epoch:
            cells["epoch"] = f"{(iteration + 1) / self._iters_per_epoch:.1f}".rjust(5)
        cells["left"] = self._time_left(storage, iteration).rjust(7)
        for name in ("total_loss", *training_losses(storage.histories())):
            cells[_short(name)] = number(median(storage, name)).rjust(7)
        cells["rate"] = f"{_latest(storage, 'lr'):.3g}".rjust(8)
        seconds = median(storage, "time")  # not known in the first iterations
        cells["s/iter"] = "?".rjust(5) if math.isnan(seconds) else f"{seconds:.3f}"
        cells["s data"] = f"{median(storage, 'data_time'):.3f}"
        cells["grad"] = number(median(storage, "grad_norm")).rjust(7)
        for name in ("skipped_steps", "loss_scale"):
            if name in storage.histories():
                cells[name.replace("_", " ")] = f"{_latest(storage, name):g}".rjust(6)
        if torch.cuda.is_available():
            cells["GPU GB"] = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}"
        return cells

    def _time_left(self, storage: EventStorage, iteration: int) -> str:
        seconds = median(storage, "time", TIME_WINDOW) * (self._max_iter - iteration - 1)
        if math.isnan(seconds):
            return "?"
        storage.put_scalar("eta_seconds", seconds, smoothing_hint=False, cur_iter=iteration)
        minutes, second = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{second:02}"

    def _evaluation(self, storage: EventStorage, iteration: int) -> list[str]:
        """Return the lines on an evaluation: losses in their columns, metrics, best, patience."""
        figures = {
            name: _latest(storage, name)
            for name in _unsmoothed(storage)
            if storage.latest()[name][1] == iteration
        }
        losses = {
            _short(name.removeprefix(VALIDATION)): number(value)
            for name, value in figures.items()
            if name.startswith(VALIDATION)
        }
        lines = (
            [self._aligned({"iteration": "validation", **losses})]
            if losses and self._widths
            else []
        )
        tasks: dict[str, list[str]] = {}
        for name, value in figures.items():
            if not name.startswith((VALIDATION, *DECISIONS)):
                task, _, metric = name.rpartition("/")
                tasks.setdefault(task, []).append(f"{metric} {round(value, 4):.4g}")
        for task, entries in tasks.items():
            lines += _wrapped(task, entries)
        lines += self._best_lines(storage, iteration)
        if PATIENCE_LEFT in figures:
            left = figures[PATIENCE_LEFT]
            lines.append(f"  patience left: {left:g} evaluation{'' if left == 1 else 's'}")
        self._lines_since_heading = LINES_PER_HEADING
        return lines

    def _best_lines(self, storage: EventStorage, iteration: int) -> list[str]:
        entries = []
        for name in sorted(_unsmoothed(storage)):
            value, put_at = storage.latest()[name]
            if name.startswith(BEST) and put_at == iteration and math.isfinite(value):
                at = self._best_at(storage, name)
                told = "now" if at == iteration else f"at iteration {at}"
                entries.append(f"{name.removeprefix(BEST)} {value:.4g} ({told})")
        return _wrapped("best", entries) if entries else []

    def _best_at(self, storage: EventStorage, name: str) -> int:
        """Return the iteration of a best value; a resumed storage may not reach back to it."""
        metric, history = name.removeprefix(BEST), storage.history(name).values()
        value, at = history[-1]
        if metric not in self._best or self._best[metric][1] != value:
            for older, iteration in reversed(history):
                if older != value:
                    break
                at = iteration
            self._best[metric] = (int(at), value)
        return self._best[metric][0]


def last_evaluation(storage: EventStorage) -> int:
    """Return the iteration after which figures were last put; -1 where none were."""
    names = [name for name in _unsmoothed(storage) if not name.startswith(DECISIONS)]
    return max((int(storage.latest()[name][1]) for name in names), default=-1)


def _unsmoothed(storage: EventStorage) -> list[str]:
    """Return the names of the figures of evaluations: not smoothed, and below a task."""
    return [
        name
        for name, is_smoothed in storage.smoothing_hints().items()
        if "/" in name and not is_smoothed
    ]


def median(storage: EventStorage, name: str, window: int = WINDOW) -> float:
    """Return the median of a scalar over the last iterations, NaN where it was never put."""
    if name not in storage.histories():
        return math.nan
    return float(storage.history(name).median(storage.count_samples(name, window)))


def number(value: float) -> str:
    """Write a loss in at most seven characters, as long as its exponent has two digits."""
    plain = value == 0 or 0.01 <= abs(value) < 1000 or not math.isfinite(value)
    return f"{value:.3f}" if plain else f"{value:.1e}"


def _latest(storage: EventStorage, name: str) -> float:
    return float(storage.latest().get(name, (math.nan, -1))[0])


def _iteration_of(storage: EventStorage, name: str) -> int:
    return int(storage.latest().get(name, (math.nan, -1))[1])


def _short(name: str) -> str:
    return "loss" if name == "total_loss" else name.removeprefix("loss_")


def _wrapped(head: str, entries: Sequence[str]) -> list[str]:
    lines = [f"  {head}"]
    for entry in entries:
        if len(lines[-1]) + len(entry) > WIDTH:
            lines.append(" " * (len(head) + 2))
        lines[-1] += f"  {entry}"
    return lines
