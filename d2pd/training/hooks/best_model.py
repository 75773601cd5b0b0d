"""Keeps the best model of a training, by one metric or several."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.d2 import HookBase, comm
from d2pd.training.deciding.best_value import BestValue
from d2pd.training.deciding.watched_metric import WatchedMetric

logger = logging.getLogger(__name__)


@dataclass
class Contest:
    """One metric, its best value so far and the file of the model that reached it.

    Attributes:
        metric: What is compared.
        best: Decides.
        file_stem: Name of the checkpoint without its suffix.
        is_required: A metric that is never logged is an error; otherwise a warning.
        last_iter: Iteration of the last value taken in.
    """

    metric: WatchedMetric
    best: BestValue
    file_stem: str
    is_required: bool
    last_iter: int = -1


class BestModel(HookBase):
    """Saves the model at every value strictly better than all before it; NaN never is.

    Comes after the hooks that log the metrics. Acts on the main process; the state, by metric, is
    part of the checkpoint.
    """

    def __init__(self, contests: Sequence[Contest], config_text: str) -> None:
        """Set up.

        Args:
            contests: One for each metric, with a file of its own each.
            config_text: The configuration as YAML, stored with the model.
        """
        self._contests = contests
        self._config_text = config_text

    def before_train(self) -> None:
        """Warn of a best model that is remembered and whose file is gone."""
        if not comm.is_main_process():
            return
        for contest in self._contests:
            path = Path(self.trainer.checkpointer.save_dir) / f"{contest.file_stem}.pth"
            if contest.best.value is not None and not path.is_file():
                logger.warning(
                    "%s is gone: the model of iteration %d with %s %.4g, still the best; only a "
                    "better one will be saved there",
                    *(path, contest.best.iteration, contest.metric.name, contest.best.value),
                )

    def after_step(self) -> None:
        """Compare the metrics logged in this iteration; a second call in it changes nothing.

        Raises:
            ConfigError: If the first evaluation has not logged a metric that was asked for; lists
                those it has.
        """
        if not comm.is_main_process():
            return
        for contest in self._contests:
            value = contest.metric.new_value(self.trainer)
            if contest.metric.is_missing(value, self.trainer):
                self._miss(contest)
            if value is not None and contest.last_iter != self.trainer.iter:
                contest.last_iter = self.trainer.iter
                self._compare(contest, value)

    def _compare(self, contest: Contest, value: float) -> None:
        iteration, name = self.trainer.iter, contest.metric.name
        if contest.best.improves(value, iteration):
            logger.info("iteration %d: best %s so far: %.4g", iteration, name, value)
            self.trainer.checkpointer.save_best(
                contest.file_stem,
                iteration=iteration,
                metric=name,
                value=value,
                mode=contest.best.mode,
                config_text=self._config_text,
            )
        if contest.best.value is not None:
            self.trainer.storage.put_scalar(
                f"best/{name}", contest.best.value, smoothing_hint=False, cur_iter=iteration
            )

    def _miss(self, contest: Contest) -> None:
        error = contest.metric.missing(self.trainer)
        if contest.is_required:
            raise error
        logger.warning("no best model is kept yet: %s", error)

    def state_dict(self) -> dict[str, Any]:
        """Return for every metric its best value, iteration, mode and file."""
        return {
            contest.metric.name: {
                **contest.best.state_dict(),
                "was_logged": contest.metric.was_logged,
                "file": contest.file_stem,
            }
            for contest in self._contests
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the metrics that are still compared, in the same way and file."""
        for contest in self._contests:
            state = state_dict.get(contest.metric.name)
            if state and (state["mode"], state["file"]) == (contest.best.mode, contest.file_stem):
                contest.metric.was_logged = state["was_logged"]
                contest.best.load_state_dict(state)
                continue
            overwritten = [
                name
                for name, other in state_dict.items()
                if other["file"] == contest.file_stem and other["value"] is not None
            ]
            if overwritten:
                logger.warning(
                    "%s.pth, the best by %s (%.4g) before the resume, will be overwritten by the "
                    "best by %s (%s) from now on; rename it to keep it",
                    *(contest.file_stem, overwritten[0], state_dict[overwritten[0]]["value"]),
                    *(contest.metric.name, contest.best.mode),
                )
