"""What writes the current ``EventStorage``: to terminal, ``metrics.json`` and TensorBoard."""

import datetime
import json
import logging
import os
import time
from collections import defaultdict
from typing import Any

import torch

from d2pd.embedded.events import EventStorage, get_event_storage


class EventWriter:
    """Base of what reads the current ``EventStorage`` and writes it somewhere."""

    def write(self) -> None:
        """Write what is new since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files; no ``write`` follows."""


class JSONWriter(EventWriter):
    """Appends one JSON object per iteration to a file; smoothed as the storage hints."""

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        """Open ``json_file`` for appending; ``window_size`` is in iterations."""
        self._file_handle = open(json_file, "a", encoding="utf-8")  # noqa: SIM115
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        """Write the scalars that are newer than the last iteration written."""
        rows: dict[int, dict[str, Any]] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                rows[iteration][name] = value
        self._last_write = max(rows, default=self._last_write)
        for iteration, row in rows.items():
            row["iteration"] = iteration
            self._file_handle.write(json.dumps(row, sort_keys=True) + "\n")
        self._file_handle.flush()
        os.fsync(self._file_handle.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file_handle.close()


class TensorboardXWriter(EventWriter):
    """Writes scalars, pictures and histograms to a TensorBoard event file."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        """Keep the arguments of ``SummaryWriter``; its file appears with the first write."""
        self._window_size = window_size
        self._writer_args = {"log_dir": log_dir, **kwargs}
        self._summary: Any = None
        self._last_write = -1

    @property
    def _writer(self) -> Any:
        if self._summary is None:
            # Imported late: it costs a second and a run may have no TensorBoard.
            from torch.utils.tensorboard import SummaryWriter

            self._summary = SummaryWriter(**self._writer_args)
        return self._summary

    def write(self) -> None:
        """Write the scalars that are new, and all pictures and histograms, which are then freed."""
        storage = get_event_storage()
        newest = self._last_write
        latest = storage.latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                self._writer.add_scalar(name, value, iteration)
                newest = max(newest, iteration)
        self._last_write = newest
        for name, image, iteration in storage._vis_data:
            self._writer.add_image(name, image, iteration)
        storage.clear_images()
        for histogram in storage._histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        """Close the file, if one was opened."""
        if self._summary is not None:
            self._summary.close()


class CommonMetricPrinter(EventWriter):
    """Logs a line of progress: time left, losses, ``[metric]`` scalars, times, rate, memory."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        """Set up.

        Args:
            max_iter: Last iteration plus one; without it no time left is shown.
            window_size: Iterations of the medians shown.
        """
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # iteration, clock; for the time left

    def write(self) -> None:
        """Log one line; nothing once the run is over."""
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return
        time_left = self._time_left(storage)
        parts = [
            f"eta: {time_left}" if time_left else "",
            f"iter: {storage.iter}",
            self._medians(storage, "loss"),
            self._medians(storage, "[metric]"),
            *self._times(storage),
            f"lr: {self._learning_rate(storage)}",
            _memory(),
        ]
        self.logger.info(" " + "  ".join(part for part in parts if part))

    def _time_left(self, storage: EventStorage) -> str:
        if self._max_iter is None:
            return ""
        iterations = self._max_iter - storage.iter - 1
        if "time" in storage.histories():
            seconds = storage.history("time").median(1000) * iterations
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return _clock(seconds)
        # Without a timer hook: from the time between two lines.
        now, last = time.perf_counter(), self._last_write
        self._last_write = (storage.iter, now)
        if last is None or last[0] == storage.iter:
            return ""
        return _clock((now - last[1]) / (storage.iter - last[0]) * iterations)

    def _medians(self, storage: EventStorage, word: str) -> str:
        return "  ".join(
            f"{name}: {history.median(storage.count_samples(name, self._window_size)):.4g}"
            for name, history in storage.histories().items()
            if word in name
        )

    def _times(self, storage: EventStorage) -> list[str]:
        shown = []
        if "time" in storage.histories():
            step = storage.history("time")
            shown += [f"time: {step.global_avg():.4f}", f"last_time: {step.latest():.4f}"]
        if "data_time" in storage.histories():
            data = storage.history("data_time")
            mean = data.avg(storage.count_samples("data_time", self._window_size))
            shown += [f"data_time: {mean:.4f}", f"last_data_time: {data.latest():.4f}"]
        return shown

    @staticmethod
    def _learning_rate(storage: EventStorage) -> str:
        if "lr" not in storage.histories():
            return "N/A"
        return f"{storage.history('lr').latest():.5g}"


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


def _memory() -> str:
    if not torch.cuda.is_available():
        return ""
    return f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M"
