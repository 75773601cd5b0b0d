"""Hooks for timing, learning rate, checkpoints, evaluation and writers."""

import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from fvcore.common.param_scheduler import ParamScheduler
from fvcore.common.timer import Timer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as _TorchScheduler

from d2pd.embedded import comm
from d2pd.embedded.lr_scheduler import LRMultiplier
from d2pd.embedded.train_loop import HookBase
from d2pd.embedded.writers import EventWriter

__all__ = [
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
]

logger = logging.getLogger(__name__)

_Callback = Callable[[Any], Any] | None


class CallbackHook(HookBase):
    """Calls the given functions with the trainer."""

    def __init__(
        self,
        *,
        before_train: _Callback = None,
        after_train: _Callback = None,
        before_step: _Callback = None,
        after_step: _Callback = None,
    ) -> None:
        self._callbacks = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
        }

    def _call(self, moment: str) -> None:
        callback = self._callbacks[moment]
        if callback is not None:
            callback(self.trainer)

    def before_train(self) -> None:
        """Call the function for this moment."""
        self._call("before_train")

    def before_step(self) -> None:
        """Call the function for this moment."""
        self._call("before_step")

    def after_step(self) -> None:
        """Call the function for this moment."""
        self._call("after_step")

    def after_train(self) -> None:
        """Call the function for this moment, then let go of all of them.

        They may hold the trainer, and the trainer holds this hook.
        """
        self._call("after_train")
        self._callbacks.clear()


class IterationTimer(HookBase):
    """Puts the seconds of each step as ``time`` and logs a summary at the end.

    Comes first among the hooks, so that its clock holds the step and not the other hooks.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        """Leave the first ``warmup_iter`` iterations out of the figures."""
        self._warmup_iter = warmup_iter
        self._step_timer = Timer()
        self._total_timer = Timer()
        self._start_time = time.perf_counter()

    def _restart(self) -> None:
        self._start_time = time.perf_counter()
        self._total_timer.reset()

    def before_train(self) -> None:
        """Start the clocks; the one of the steps stands still until a step."""
        self._restart()
        self._total_timer.pause()

    def before_step(self) -> None:
        """Start timing a step."""
        self._step_timer.reset()
        self._total_timer.resume()

    def after_step(self) -> None:
        """Stop timing the step; put its seconds once warm."""
        storage = self.trainer.storage
        done = storage.iter - self.trainer.start_iter + 1
        if done >= self._warmup_iter:
            storage.put_scalars(time=self._step_timer.seconds())
        else:
            self._restart()
        self._total_timer.pause()

    def after_train(self) -> None:
        """Log the mean seconds of a step, the total, and how much of it was hooks."""
        total = time.perf_counter() - self._start_time
        steps = self._total_timer.seconds()
        count = self.trainer.storage.iter + 1 - self.trainer.start_iter - self._warmup_iter
        if count > 0 and steps > 0:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                count,
                _clock(steps),
                steps / count,
            )
        logger.info("Total training time: %s (%s on hooks)", _clock(total), _clock(total - steps))


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


class PeriodicWriter(HookBase):
    """Lets writers write every ``period`` iterations and after the last one.

    Comes last among the hooks, so that what they put is written in the same iteration.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        """Take the writers, which are closed after training."""
        for writer in writers:
            if not isinstance(writer, EventWriter):
                raise AssertionError(f"a writer must be an EventWriter, got {writer!r}")
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        """Write when it is time."""
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        """Write what came after the last step, then close."""
        for writer in self._writers:
            writer.write()
            writer.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """fvcore's: saves every ``period`` iterations, and ``model_final`` after the last one."""

    def before_train(self) -> None:
        """Learn from the trainer which iteration is the last."""
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        """Save when it is time."""
        self.step(self.trainer.iter)


class LRScheduler(HookBase):
    """Steps the schedule after every iteration and puts the rate of that iteration as ``lr``."""

    def __init__(self, optimizer: Optimizer | None = None, scheduler: Any = None) -> None:
        """Set up.

        Args:
            optimizer: None takes the trainer's.
            scheduler: A torch scheduler, or a ``ParamScheduler`` that multiplies the rates; None
                takes the trainer's.
        """
        self._optimizer = optimizer
        self._scheduler = scheduler

    @property
    def scheduler(self) -> Any:
        """The schedule: the one given, or the trainer's."""
        return self._scheduler or self.trainer.scheduler

    def before_train(self) -> None:
        """Find the optimizer, the schedule and the group whose rate is shown."""
        self._optimizer = self._optimizer or self.trainer.optimizer
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler = LRMultiplier(
                self._optimizer,
                self.scheduler,
                self.trainer.max_iter,
                last_iter=self.trainer.iter - 1,
            )
        self._best_param_group_id = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: Optimizer) -> int:
        """Return the group that stands for the others: the largest one.

        Where every group holds one parameter: the first with the most common rate.
        """
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in optimizer.param_groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        """Put the rate that this step used, then go to the next."""
        rate = self._optimizer.param_groups[self._best_param_group_id]["lr"]  # type: ignore[union-attr]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of a torch scheduler."""
        if isinstance(self.scheduler, _TorchScheduler):
            return self.scheduler.state_dict()
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give a torch scheduler its state back."""
        if isinstance(self.scheduler, _TorchScheduler):
            logger.info("Loading scheduler from state_dict ...")
            self.scheduler.load_state_dict(state_dict)


class EvalHook(HookBase):
    """Evaluates every ``eval_period`` iterations and after training; puts every figure."""

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Any],
        eval_after_train: bool = True,
    ) -> None:
        """Set up.

        Args:
            eval_period: Iterations between evaluations; 0 evaluates only after training.
            eval_function: Returns a nested dictionary of numbers, or nothing. With several
                processes every one must run this hook.
            eval_after_train: Evaluate after the last iteration too.
        """
        self._period = eval_period
        self._func = eval_function
        self._eval_after_train = eval_after_train

    def _do_eval(self) -> None:
        results = self._func()
        if results:
            if not isinstance(results, Mapping):
                raise AssertionError(f"eval_function must return a dict, got {results!r}")
            figures = {key: _number(key, value) for key, value in flatten_results(results).items()}
            self.trainer.storage.put_scalars(**figures, smoothing_hint=False)
        # The processes take different times; they begin the next iteration together.
        comm.synchronize()

    def after_step(self) -> None:
        """Evaluate when it is time; the last iteration's turn is after training."""
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._do_eval()

    def after_train(self) -> None:
        """Evaluate if training came to its end; let go of the function.

        It may hold the trainer, and the trainer holds this hook.
        """
        if self._eval_after_train and self.trainer.iter + 1 >= self.trainer.max_iter:
            self._do_eval()
        del self._func


def flatten_results(results: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested results into one level, keys joined by ``/``: ``bbox/AP50``."""
    flat: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat.update(flatten_results(value, f"{prefix}{key}/"))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"eval_function must return numbers, got {key}: {value!r}") from error
