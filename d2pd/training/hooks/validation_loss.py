"""Validation loss on a dataset of a run."""

import logging
from collections.abc import Callable, Mapping

from d2pd.training.hooks.measurement import Measurement

logger = logging.getLogger(__name__)


class ValidationLoss(Measurement):
    """Puts ``val/total_loss`` and ``val/loss_*``."""

    def __init__(
        self, period: int, dataset_name: str, measure_losses: Callable[[], Mapping[str, float]]
    ) -> None:
        """Set up.

        Args:
            period: See ``Measurement``.
            dataset_name: For the log.
            measure_losses: Returns losses by name, ``total_loss`` among them.
        """
        super().__init__(period)
        self._dataset_name = dataset_name
        self._measure_losses = measure_losses

    def measure(self) -> dict[str, float]:
        """Measure the losses."""
        losses = self._measure_losses()
        parts = ", ".join(f"{n} {v:.4g}" for n, v in losses.items() if n != "total_loss")
        logger.info(
            "iteration %d: loss on %s %.4g (%s)",
            *(self.trainer.iter, self._dataset_name, losses["total_loss"], parts),
        )
        return {f"val/{name}": value for name, value in losses.items()}
