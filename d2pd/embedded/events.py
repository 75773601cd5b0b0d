"""What a training run reports: scalars, pictures and histograms, with their iteration."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

_STORAGES: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """Return the storage of the innermost open ``with EventStorage(...)`` block.

    Raises:
        AssertionError: If no such block is open (the type Detectron2 raises).
    """
    if not _STORAGES:
        raise AssertionError("no EventStorage is open: call this inside `with EventStorage(...)`")
    return _STORAGES[-1]


def has_event_storage() -> bool:
    """Tell whether a ``with EventStorage(...)`` block is open."""
    return bool(_STORAGES)


class EventStorage:
    """Holds what a run reports: scalars with their history, and pictures until they are written.

    ``iter`` is the iteration that new values belong to; a trainer keeps it equal to its own.
    """

    def __init__(self, start_iter: int = 0) -> None:
        self._iter = start_iter
        self._history: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self._smoothing_hints: dict[str, bool] = {}
        self._current_prefix = ""
        self._vis_data: list[tuple[str, Any, int]] = []
        self._histograms: list[dict[str, Any]] = []

    @property
    def iter(self) -> int:
        """The iteration that new values belong to."""
        return self._iter

    @iter.setter
    def iter(self, val: int) -> None:
        self._iter = int(val)

    @property
    def iteration(self) -> int:
        """Older name of ``iter``."""
        return self._iter

    def step(self) -> None:
        """Go to the next iteration; for loops that do not set ``iter`` themselves."""
        self._iter += 1

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Append one value to the history of ``name``.

        Args:
            name: Name below the current ``name_scope``.
            value: Anything that ``float`` takes.
            smoothing_hint: Whether writers should show a median; fixed by the first call.
            cur_iter: Iteration of the value; None means ``iter``.

        Raises:
            AssertionError: If an earlier call gave the other ``smoothing_hint``.
        """
        name = self._current_prefix + name
        if self._smoothing_hints.setdefault(name, smoothing_hint) != smoothing_hint:
            raise AssertionError(f"scalar {name} was put before with another smoothing_hint")
        iteration = self._iter if cur_iter is None else cur_iter
        self._history[name].update(float(value), iteration)
        self._latest_scalars[name] = (float(value), iteration)

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: Any
    ) -> None:
        """Append one value per keyword; see ``put_scalar``."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Keep a picture for TensorBoard: (3, H, W), RGB, uint8 0-255 or float 0-1."""
        self._vis_data.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Count the values of a tensor in equal bins, for TensorBoard."""
        low, high = hist_tensor.min().item(), hist_tensor.max().item()
        edges = torch.linspace(low, high, bins + 1, dtype=torch.float32)
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": len(hist_tensor),
                "sum": float(hist_tensor.sum()),
                "sum_squares": float(hist_tensor.square().sum()),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": torch.histc(hist_tensor, bins=bins).tolist(),
                "global_step": self._iter,
            }
        )

    def history(self, name: str) -> HistoryBuffer:
        """Return the history of one scalar.

        Raises:
            KeyError: If it was never put.
        """
        if name not in self._history:
            raise KeyError(f"no scalar named {name} was put")
        return self._history[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """Return the history of every scalar by name."""
        return self._history

    def latest(self) -> dict[str, tuple[float, int]]:
        """Return for every scalar its last value and the iteration of it."""
        return self._latest_scalars

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Return ``latest()``, with a median in place of the value where smoothing is wanted.

        Args:
            window_size: Iterations (not samples) that the median reaches back.
        """
        shown = {}
        for name, (value, iteration) in self._latest_scalars.items():
            if self._smoothing_hints[name]:
                value = self._history[name].median(self.count_samples(name, window_size))
            shown[name] = (value, iteration)
        return shown

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Count the values of ``name`` in the ``window_size`` iterations up to its last one."""
        iterations = [iteration for _, iteration in self._history[name].values()]
        count = 0
        while count < len(iterations) and iterations[-1 - count] > iterations[-1] - window_size:
            count += 1
        return count

    def smoothing_hints(self) -> dict[str, bool]:
        """Return for every scalar whether writers should show a median."""
        return self._smoothing_hints

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put ``name/`` before the names of scalars put inside the block."""
        outer, self._current_prefix = self._current_prefix, name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._current_prefix = outer

    def clear_images(self) -> None:
        """Forget the pictures, once they are written."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        """Forget the histograms, once they are written."""
        self._histograms = []

    def __enter__(self) -> "EventStorage":
        _STORAGES.append(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        _STORAGES.pop()
