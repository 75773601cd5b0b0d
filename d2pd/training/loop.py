"""The loop: Detectron2's, with an end before the last iteration and with pending evaluations."""

import logging
from contextlib import suppress
from typing import Any

from d2pd.d2 import CfgNode, DefaultTrainer, HookBase, TrainerBase, comm
from d2pd.errors import RunInterrupted, UserError
from d2pd.evaluation.evaluators import DetectionEvaluator
from d2pd.training.interruption import Interruption, StopRequest, StopTraining
from d2pd.training.processes import is_loss_of_peer
from d2pd.training.said_once import SaidOnce

logger = logging.getLogger(__name__)


class Loop(DefaultTrainer):
    """Runs the hooks and steps of ``TrainerBase`` until the end, or until there is reason to stop.

    ``TrainerBase`` knows no stop: it is left by ``StopTraining``, which no handler of faults sees.

    Args:
        cfg: The whole configuration.

    Attributes:
        stop_reason: Why training ends before ``max_iter``; None while it goes on.
        stop_request: What asked from outside for a stop after this iteration; None for nothing.
        is_pending: The evaluation after the iteration before ``start_iter`` is still to be done.
        deciding_hooks: Those that evaluate and decide: they run first where that is pending.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.stop_reason: str | None = None
        self.stop_request: StopRequest | None = None
        self.is_pending = False
        self.deciding_hooks: list[HookBase] = []
        self._interruption = Interruption(cfg.CHECKPOINT.STOP_AFTER_MINUTES)
        self._last_eval_results: dict[str, Any] = {}
        TrainerBase.__init__(self)  # what DefaultTrainer builds, a subclass does

    def train(self) -> dict[str, Any]:  # type: ignore[override]
        """Train from ``start_iter`` to ``max_iter``, or to the iteration of a stop.

        Returns:
            What the last evaluation on ``DATASETS.TEST`` gave; empty where there was none.

        Raises:
            RunInterrupted: If a signal or the time limit stopped it; all is saved.
        """
        loop_logger = logging.getLogger(TrainerBase.__module__)
        # What makes AP be NaN is the same at each evaluation.
        evaluation_logger, said_once = logging.getLogger(DetectionEvaluator.__module__), SaidOnce()
        loop_logger.addFilter(is_worth_a_traceback)
        evaluation_logger.addFilter(said_once)
        try:
            # A stop ends here and not in what is raised below: its frames keep workers alive.
            with suppress(StopTraining), self._interruption:
                TrainerBase.train(self, self.start_iter, self.max_iter)
        finally:
            loop_logger.removeFilter(is_worth_a_traceback)
            evaluation_logger.removeFilter(said_once)
            self._trainer.close()
        request = self.stop_request
        if request is not None:
            raise RunInterrupted(
                f"{request.reason} after iteration {self.iter}: --resume goes on from there",
                request.exit_code,
            )
        return self._last_eval_results

    def before_train(self) -> None:
        """Call the hooks, then do what the checkpoint left pending."""
        super().before_train()
        if self.is_pending:
            self._finish_pending()

    def _finish_pending(self) -> None:
        self.iter = self.storage.iter = self.start_iter - 1
        told = (
            "the evaluation after iteration %d is pending: it comes first"
            if self.is_evaluation_due()
            else "the evaluation after iteration %d was pending; with the periods of now there is "
            "none"
        )
        logger.info(told, self.iter)
        for hook in self.deciding_hooks:
            hook.after_step()
        self.is_pending = False
        self._end_here()
        self.iter = self.start_iter

    def is_evaluation_due(self) -> bool:
        """Tell whether this iteration is followed by an evaluation."""
        raise NotImplementedError

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned; say what it holds of hooks that are no longer."""
        states = state_dict.get("hooks", {})
        names = {type(hook).__qualname__ for hook in self._hooks}
        for name in sorted(states.keys() - names):
            logger.info(
                "%s is not part of this run any more: what it had decided is forgotten", name
            )
        kept = {name: state for name, state in states.items() if name in names}
        super().load_state_dict({**state_dict, "hooks": kept})

    def after_step(self) -> None:
        """Call the hooks, then end the loop if one of them or a request from outside says so.

        Raises:
            StopTraining: To leave the loop.
        """
        # Asked once, before the hooks: one of them saves because of it.
        self.stop_request = self._agreed_request()
        super().after_step()
        self._end_here()

    def _end_here(self) -> None:
        if self.stop_request is not None or self.stop_reason is not None:
            raise StopTraining

    def _agreed_request(self) -> StopRequest | None:
        """Return what asked any process for a stop: all have to leave at the same iteration."""
        own = self._interruption.request()
        if comm.get_world_size() == 1:
            return own
        return next((request for request in comm.all_gather(own) if request is not None), None)

    def check_stop(self) -> None:
        """Leave an evaluation between two images if a stop is asked for.

        The iteration is saved and its evaluation pending. One process alone must not leave the
        others waiting: several obey at the next step.

        Raises:
            StopTraining: If so.
        """
        if comm.get_world_size() == 1:
            self.stop_request = self._interruption.request()
            if self.stop_request is not None:
                raise StopTraining

    @property
    def is_last_iter(self) -> bool:
        """Whether training ends after this iteration, by its length or by a decision."""
        return self.iter + 1 >= self.max_iter or self.stop_reason is not None

    @property
    def last_iter(self) -> int:
        """The last iteration that was trained, which a lowered ``max_iter`` may come before."""
        return max(self.start_iter - 1, min(self.iter, self.max_iter - 1))


def is_worth_a_traceback(record: logging.LogRecord) -> bool:
    """Tell the loop's traceback of a fault from one of a mistake, which the user gets as a line.

    Nor is it a fault of this process that another one has gone.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, UserError) or is_loss_of_peer(error))
