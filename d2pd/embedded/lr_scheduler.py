"""Schedules of the learning rate: warm-up, and a multiplier over each group's own rate."""

from typing import Any

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from d2pd.errors import ConfigError


class WarmupParamScheduler(CompositeParamScheduler):
    """A schedule that starts low: constant or rising until it meets ``scheduler``."""

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        """Set up.

        Args:
            scheduler: The schedule after the warm-up.
            warmup_factor: First value, as a share of the first value of ``scheduler``.
            warmup_length: Share of the whole run, in [0, 1].
            warmup_method: ``linear`` or ``constant``.
            rescale_interval: Start ``scheduler`` at its beginning after the warm-up, instead of
                where the run has come to.

        Raises:
            ConfigError: If ``warmup_method`` is another word.
        """
        first = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            joint = scheduler(0.0 if rescale_interval else warmup_length)
            warmup: ParamScheduler = LinearParamScheduler(first, joint)
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(first)
        else:
            raise ConfigError(
                f"SOLVER.WARMUP_METHOD is {warmup_method!r}: allowed are linear, constant"
            )
        super().__init__(
            [warmup, scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Sets every group's rate to its first one times a schedule; step it once per iteration."""

    def __init__(
        self, optimizer: Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1
    ) -> None:
        """Set up.

        Args:
            optimizer: Its groups keep the ratio of their rates.
            multiplier: Called with the share of the run that is done.
            max_iter: Iterations of the whole run.
            last_iter: Iteration that was finished before; -1 for a new run.

        Raises:
            ValueError: If ``multiplier`` is no ``ParamScheduler``.
        """
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"multiplier must be a ParamScheduler, got {multiplier!r}")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """Return the first rates and the iteration; the schedule itself has no state."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[Any]:
        """Return the rate of each group at the current iteration."""
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base * factor for base in self.base_lrs]
