"""The trainer: Detectron2's ``DefaultTrainer`` with d2pd's data, step, solver and evaluators."""

import logging
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d2pd.d2 import (
    CfgNode,
    CommonMetricPrinter,
    DatasetEvaluator,
    DefaultTrainer,
    EventWriter,
    HookBase,
    JSONWriter,
    TensorboardXWriter,
    TrainerBase,
    comm,
    hooks,
)
from d2pd.data.loader import build_test_loader, build_train_loader
from d2pd.errors import UserError
from d2pd.evaluation.evaluators import CocoEvaluator
from d2pd.training.checkpoint import Checkpointer
from d2pd.training.hooks.progress_bar import ProgressBar
from d2pd.training.optimizer import build_optimizer
from d2pd.training.step import Step

logger = logging.getLogger(__name__)

LOG_PERIOD = 20


class UnexpectedResultError(UserError):
    """The run is over and its result is not the one that the configuration expects."""


class Trainer(DefaultTrainer):
    """Trains, evaluates and checkpoints what a configuration describes, under either engine.

    Datasets must be registered and the configuration checked (``preflight.check_run``).

    Args:
        cfg: The whole configuration, frozen or not.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        self._trainer = Step(
            self.model,
            self.data_loader,
            self.optimizer,
            num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            seed=cfg.SEED,
        )
        # Detectron2's own checkpointer runs code from a pickle.
        self.checkpointer = Checkpointer(self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """Return the hooks in the order in which they run after each iteration.

        Empty while the base class is being set up: hooks hold the step and the checkpointer, and
        those of the base class are replaced.
        """
        if not isinstance(self._trainer, Step):
            return []
        period = self.cfg.TEST.EVAL_PERIOD
        found: list[HookBase | None] = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            # Before the evaluation, so that a kill during it costs no training.
            hooks.PeriodicCheckpointer(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD),
            hooks.EvalHook(period, self._evaluate),
            ProgressBar(),
            # Last, so that what the others have logged is written in the same iteration.
            hooks.PeriodicWriter(self.build_writers(), period=LOG_PERIOD),
        ]
        if not comm.is_main_process():
            found = [hook for hook in found if not isinstance(hook, ON_MAIN_PROCESS)]
        return found

    def _evaluate(self) -> dict[str, Any]:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def train(self) -> dict[str, Any]:  # type: ignore[override]
        """Train from ``start_iter`` to ``max_iter``.

        Returns:
            What the last evaluation on ``DATASETS.TEST`` gave; empty where there was none.
        """
        loop_logger = logging.getLogger(TrainerBase.__module__)
        loop_logger.addFilter(is_not_of_the_user)
        try:
            TrainerBase.train(self, self.start_iter, self.max_iter)
        finally:
            loop_logger.removeFilter(is_not_of_the_user)
        return getattr(self, "_last_eval_results", {})

    def build_writers(self) -> list[EventWriter]:
        """Return the writers of terminal, ``metrics.json`` and TensorBoard."""
        folder = Path(self.cfg.OUTPUT_DIR)
        return [
            CommonMetricPrinter(self.max_iter),
            JSONWriter(str(folder / "metrics.json")),
            TensorboardXWriter(str(folder)),
        ]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Build SGD, Adam or AdamW; see ``training.optimizer``."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict[str, Any]]]:
        """Build the endless loader, from its first sample; ``resume_or_load`` moves it on."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        """Build the loader that yields every image of a dataset once."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Build the evaluator of COCO AP; predictions go to ``OUTPUT_DIR/inference/<dataset>``."""
        return CocoEvaluator(dataset_name, str(Path(cfg.OUTPUT_DIR) / "inference" / dataset_name))

    def resume_or_load(self, resume: bool = True) -> None:
        """Load ``MODEL.WEIGHTS``, or go on exactly where the newest checkpoint stands.

        Args:
            resume: Go on from ``OUTPUT_DIR``; where it holds no checkpoint, the log says so and
                the run starts at iteration 0.
        """
        super().resume_or_load(resume=resume)
        if resume and not self.start_iter:
            logger.warning("nothing to resume in %s: starting at iteration 0", self.cfg.OUTPUT_DIR)
        if self.start_iter:
            logger.info("resumed after iteration %d", self.start_iter - 1)
            if self.start_iter >= self.max_iter:
                logger.warning(
                    "all %d iterations are done: raise SOLVER.MAX_ITER to train on, or use "
                    "--eval-only",
                    self.max_iter,
                )
            self._trainer.data_loader = build_train_loader(self.cfg, self.start_iter)

    @classmethod
    def test_final(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Evaluate on ``DATASETS.FINAL_TEST``, the images that nothing was chosen by."""
        if not cfg.DATASETS.FINAL_TEST:
            return {}
        final = cfg.clone()
        final.defrost()
        final.DATASETS.TEST = cfg.DATASETS.FINAL_TEST
        results: dict[str, Any] = cls.test(final, model)
        return {"final": results}


ON_MAIN_PROCESS = (hooks.PeriodicCheckpointer, hooks.PeriodicWriter, ProgressBar)


def is_not_of_the_user(record: logging.LogRecord) -> bool:
    """Tell the loop's traceback of a fault from one of a mistake, which the user gets as a line."""
    return not (record.exc_info and isinstance(record.exc_info[1], UserError))


def check_expected(expected: list[list[Any]], results: Mapping[str, Any]) -> None:
    """Compare results with ``TEST.EXPECTED_RESULTS``.

    Args:
        expected: Rows ``[task, metric, value, tolerance]``, AP in 0..100.
        results: task -> metric -> value.

    Raises:
        UnexpectedResultError: Listing every row that does not hold.
    """
    misses = []
    for task, metric, value, tolerance in expected:
        actual = results.get(task, {}).get(metric, float("nan"))
        if isinstance(actual, Mapping):  # results of several datasets are a level deeper
            actual = float("nan")
        if not abs(actual - value) <= tolerance:
            misses.append(f"{task}/{metric} is {actual:.2f}, expected {value} ± {tolerance}")
    if misses:
        raise UnexpectedResultError(f"TEST.EXPECTED_RESULTS: {'; '.join(misses)}")
