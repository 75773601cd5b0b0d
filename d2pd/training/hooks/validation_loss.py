"""Validation loss at its own iteration, the last one included."""

import logging
from collections.abc import Callable, Mapping

from d2pd.d2 import HookBase
from d2pd.training.hooks.evaluation import is_due

logger = logging.getLogger(__name__)


class ValidationLoss(HookBase):
    """Puts ``val/total_loss`` and ``val/loss_*`` every ``period`` iterations and at the last."""

    def __init__(
        self, period: int, dataset_name: str, measure: Callable[[], Mapping[str, float]]
    ) -> None:
        """Set up.

        Args:
            period: Iterations between two measurements; 0 measures after the last iteration only.
            dataset_name: For the log.
            measure: Returns losses by name, ``total_loss`` among them. Every process runs it.
        """
        self._period = period
        self._dataset_name = dataset_name
        self._measure = measure
        self._last_iter = -1

    def is_due(self) -> bool:
        """Tell whether this iteration is one to measure after."""
        return is_due(self.trainer.iter, self._period, self.trainer.max_iter)

    def after_step(self) -> None:
        """Measure when it is time."""
        if self.is_due():
            self.run()

    def run(self) -> None:
        """Measure now, unless it was done in this iteration."""
        iteration = self.trainer.iter
        if self._last_iter == iteration:
            return
        losses = self._measure()
        for name, value in losses.items():
            self.trainer.storage.put_scalar(
                f"val/{name}", value, smoothing_hint=False, cur_iter=iteration
            )
        parts = ", ".join(f"{n} {v:.4g}" for n, v in losses.items() if n != "total_loss")
        logger.info(
            "iteration %d: loss on %s %.4g (%s)",
            *(iteration, self._dataset_name, losses["total_loss"], parts),
        )
        self._last_iter = iteration
