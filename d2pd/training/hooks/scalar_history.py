"""Keeps the recent scalars across a resume."""

from typing import Any

from d2pd.d2 import HookBase

WINDOW = 20
"""Iterations that the medians of the writers reach back."""
CLOCKS = ("time", "eta_seconds")
"""Of the process that measured them; the timer does not put its own in its first iterations."""


class ScalarHistory(HookBase):
    """Puts the scalars of the iterations before a resume back into the event storage.

    Without them the medians in ``metrics.json`` would start anew. Comes first among the hooks.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] = {}

    def before_train(self) -> None:
        """Fill the new storage with what was loaded."""
        for name, entry in self._restored.items():
            for value, iteration in entry["values"]:
                self.trainer.storage.put_scalar(
                    name, value, smoothing_hint=entry["is_smoothed"], cur_iter=iteration
                )
        self._restored = {}

    def state_dict(self) -> dict[str, Any]:
        """Return name -> its values of ``WINDOW`` iterations, and whether writers smooth them."""
        storage = getattr(self.trainer, "storage", None)
        if storage is None:  # training has not begun: what was loaded is all there is
            return self._restored
        hints = storage.smoothing_hints()
        return {
            name: {
                "values": [[float(v), int(i)] for v, i in _in_window(history.values())],
                "is_smoothed": hints[name],
            }
            for name, history in storage.histories().items()
            if name not in CLOCKS
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what ``state_dict`` returned until training starts."""
        self._restored = state_dict


def _in_window(values: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return those that a median is of; a model puts its own once per part of the batch."""
    return [(value, at) for value, at in values if at > values[-1][1] - WINDOW]
