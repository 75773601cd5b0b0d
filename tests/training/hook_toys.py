"""A trainer that hooks can be tried on: a real event storage, and metrics from a list."""

import json
from pathlib import Path

from d2pd.d2 import EventStorage


class BestFiles:
    """A checkpointer that writes down what it is asked for, and leaves a file."""

    def __init__(self, folder: Path):
        self.save_dir = str(folder)
        self.saved: list[tuple] = []
        self.last: dict = {}

    def save_best(self, name, **kwargs):
        self.saved.append((name, kwargs["iteration"], kwargs["value"]))
        self.last = kwargs
        (Path(self.save_dir) / f"{name}.pth").write_text(json.dumps(kwargs))


class FakeTrainer:
    """Runs ``after_step`` of hooks over iterations at which metrics were logged.

    ``stop`` ends the loop after the iteration, as the real one's does.
    """

    def __init__(self, folder: Path, max_iter: int = 100):
        self.iter = 0
        self.max_iter = max_iter
        self.checkpointer = BestFiles(folder)
        self.storage = EventStorage(0)
        self.reasons: list[str] = []

    def stop(self, reason):
        self.reasons.append(reason)

    def run(self, hooks, rows, start=0):
        """Run iterations from ``start``: in each, log a row and call the hooks, ``None`` logs none.

        Returns the iteration after the last one.
        """
        for hook in hooks:
            hook.trainer = self
        with self.storage:
            for hook in hooks:
                hook.before_train()
            for self.iter, row in enumerate(rows, start):
                self.storage.iter = self.iter
                self.storage.put_scalar("total_loss", 1.0)
                self.storage.put_scalar("lr", 0.1, smoothing_hint=False)
                for name, value in (row or {}).items():
                    self.storage.put_scalar(name, value, smoothing_hint=False)
                for hook in hooks:
                    hook.after_step()
                if self.reasons:
                    break
        return self.iter + 1

    def logged(self, name):
        """Return (value, iteration) of everything that was put under a name."""
        histories = self.storage.histories()
        return histories[name].values() if name in histories else []


def plain(state):
    """Return a state as a checkpoint gives it back."""
    return json.loads(json.dumps(state))
