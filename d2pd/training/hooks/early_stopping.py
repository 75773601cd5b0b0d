"""Ends a training whose metric no longer gets better."""

import logging
from typing import Any

from d2pd.d2 import HookBase, comm
from d2pd.training.deciding.patience import Patience
from d2pd.training.deciding.watched_metric import WatchedMetric

logger = logging.getLogger(__name__)


class EarlyStopping(HookBase):
    """Asks for the stop when patience is used up, or at a value beyond the bound.

    An evaluation is an iteration in which the metric was logged. Comes after the hooks that log
    it. Every process runs this and decides by what the main process has logged.
    """

    def __init__(self, metric: WatchedMetric, patience: Patience) -> None:
        """Set up.

        Args:
            metric: What is decided by.
            patience: Decides.
        """
        self._metric = metric
        self._patience = patience

    def after_step(self) -> None:
        """Judge a new value.

        Raises:
            ConfigError: If the first evaluation has not logged the metric; lists those it has.
        """
        trainer = self.trainer
        value = comm.all_gather(self._metric.new_value(trainer))[0]
        if self._metric.is_missing(value, trainer):
            raise self._metric.missing(trainer)
        if value is None:
            return
        stop = self._patience.judge(value, trainer.iter)
        trainer.storage.put_scalar(
            "early_stopping/patience_left",
            self._patience.left,
            smoothing_hint=False,
            cur_iter=trainer.iter,
        )
        # After the last iteration there is nothing left to stop.
        if stop is not None and trainer.iter + 1 < trainer.max_iter:
            trainer.stop(f"{self._metric.name} {stop.reason}")

    def still_stopped(self) -> str | None:
        """Return why a training that was resumed has ended, and how it goes on; None if it does."""
        stop = self._patience.stop
        if stop is None or not self._patience.is_still_stopped():
            return None
        return (
            f"stopped early after iteration {stop.iteration}: {self._metric.name} {stop.reason}; "
            f"{self._patience.way_out()} trains on"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what has been decided so far, and by what."""
        return {
            "metric": self._metric.name,
            "mode": self._patience.mode,
            "was_logged": self._metric.was_logged,
            "patience": self._patience.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned, unless another metric is watched now."""
        then = (state_dict["metric"], state_dict["mode"])
        now = (self._metric.name, self._patience.mode)
        if then == now:
            self._metric.was_logged = state_dict["was_logged"]
            self._patience.load_state_dict(state_dict["patience"])
            return
        logger.warning(
            "early stopping now watches %s (%s), before the resume %s (%s): the best so far, %s, "
            "and the patience used up are forgotten",
            *now,
            *then,
            state_dict["patience"]["best"]["value"],
        )
