"""The trainer: Detectron2's ``DefaultTrainer`` with d2pd's data, step, hooks and checkpoints."""

import logging
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from d2pd.d2 import (
    CfgNode,
    DatasetEvaluator,
    DatasetEvaluators,
    HookBase,
    comm,
    hooks,
)
from d2pd.data.loader import build_test_loader, build_train_loader
from d2pd.evaluation.build import build_evaluator
from d2pd.evaluation.evaluators import StopBetweenImages
from d2pd.modeling.build import build_model
from d2pd.training.checkpoints.checkpoint_choice import Choice
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.checkpoints.optimizer_state import apply_configured_rates
from d2pd.training.deciding.decisions import (
    build_best_model,
    build_early_stopping,
    build_validation_loss,
    validation_period,
)
from d2pd.training.hooks.checkpoints import SaveBeforeEvaluation, SaveFinal, SaveProgress
from d2pd.training.hooks.evaluation import Evaluation
from d2pd.training.hooks.pictures import Pictures
from d2pd.training.hooks.progress_bar import ProgressBar
from d2pd.training.hooks.scalar_history import ScalarHistory
from d2pd.training.hooks.write_rows import PERIOD, WriteRows
from d2pd.training.isolation import unwrap
from d2pd.training.loop import Loop
from d2pd.training.optimizer import build_optimizer
from d2pd.training.period import is_due
from d2pd.training.pictures import draw_found
from d2pd.training.processes import in_step_with_others, share_buffers
from d2pd.training.step import build_step
from d2pd.training.writers.build import RunWriters, build_writers

logger = logging.getLogger(__name__)

ON_MAIN_PROCESS = (
    SaveBeforeEvaluation,
    SaveProgress,
    Pictures,
    ProgressBar,
    WriteRows,
    SaveFinal,
)


class Trainer(Loop):
    """Trains, evaluates and checkpoints what a configuration describes, under either engine.

    Datasets must be registered and the configuration checked (``preflight.check_run``).

    Args:
        cfg: The whole configuration, frozen or not.
        run: What the run is, kept in its checkpoints; see ``run_identity.describe_run``.
    """

    def __init__(self, cfg: CfgNode, run: Mapping[str, Any] | None = None) -> None:
        super().__init__(cfg)
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        # In this order: the optimizer takes the model's parameters. Not by DefaultTrainer, whose
        # wrapper for several processes needs a GPU for each.
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        self._trainer = build_step(cfg, in_step_with_others(model), loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        # Detectron2's own checkpointer runs code from a pickle.
        self.checkpointer = Checkpointer(
            model,
            cfg.OUTPUT_DIR,
            keep=cfg.CHECKPOINT.KEEP,
            mirror_dir=cfg.CHECKPOINT.MIRROR_DIR,
            run=run,
            trainer=weakref.proxy(self),
        )
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """Return the hooks in the order in which they run after each iteration."""
        cfg = self.cfg
        self._evaluation = Evaluation(cfg.TEST.EVAL_PERIOD, self.evaluate)
        self._validation = build_validation_loss(
            cfg, self.model, autocast=self._trainer.autocast, check_stop=self.check_stop
        )
        self._early_stopping = build_early_stopping(cfg)
        steady = [
            # First, as all others may look at what was logged before a resume.
            ScalarHistory(),
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            # Before the evaluation, so that a kill during it costs no training.
            SaveBeforeEvaluation(self.checkpointer),
        ]
        deciding = [
            self._validation,
            self._evaluation if cfg.DATASETS.TEST else None,
            # Before the best model: a stop evaluates once more.
            self._early_stopping,
            build_best_model(cfg),
            # Again, so that the checkpoint holds what was decided.
            SaveProgress(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.CHECKPOINT.MINUTES),
            Pictures(cfg.OUTPUT_DIR, lambda: draw_found(cfg, cfg.DATASETS.TEST)),
            ProgressBar(),
            # After all that log, so that it is written in the same iteration.
            WriteRows(self._open_files),
            # Last: a run whose final model is there is over.
            SaveFinal(self.checkpointer),
        ]
        self.deciding_hooks = _of_this_process(deciding)
        return [*_of_this_process(steady), *self.deciding_hooks]

    def why_finished(self) -> str | None:
        """Return why there is nothing to train, in words with the way out; None if there is."""
        if self.is_pending:
            return None
        if self.start_iter >= self.max_iter:
            return (
                f"all {self.max_iter} iterations are done: raise SOLVER.MAX_ITER to train on, or "
                "use --eval-only"
            )
        return self._early_stopping.still_stopped() if self._early_stopping else None

    def stop(self, reason: str) -> None:
        """End training after this iteration's hooks, with a last evaluation.

        Args:
            reason: In words, for log and ``metrics.json``.
        """
        self.stop_reason = reason
        if self._validation is not None:
            self._validation.run()
        if self.cfg.DATASETS.TEST:
            self._evaluation.run()

    def is_evaluation_due(self) -> bool:
        """Tell whether this iteration is followed by validation loss or evaluation."""
        return self._is_evaluated(self.iter)

    def _is_evaluated(self, iteration: int) -> bool:
        periods = []
        if self.cfg.DATASETS.TEST:
            periods.append(self.cfg.TEST.EVAL_PERIOD)
        if self._validation is not None:
            periods.append(validation_period(self.cfg))
        return any(is_due(iteration, period, self.max_iter) for period in periods)

    def is_row_due(self, iteration: int) -> bool:
        """Tell whether writers write after an iteration."""
        return is_due(iteration, PERIOD, self.max_iter) or self._is_evaluated(iteration)

    def evaluate(self) -> dict[str, Any]:
        """Evaluate on ``DATASETS.TEST`` within the loop: a request to stop leaves it.

        Returns:
            task -> metric -> value; with several datasets, by dataset first.
        """
        evaluators = [
            DatasetEvaluators(
                [self.build_evaluator(self.cfg, name), StopBetweenImages(self.check_stop)]
            )
            for name in self.cfg.DATASETS.TEST
        ]
        self._last_eval_results = self.test(self.cfg, self.model, evaluators)
        return self._last_eval_results

    def _open_files(self) -> RunWriters:
        return build_writers(
            self.cfg,
            start_iter=self.start_iter,
            max_iter=self.max_iter,
            num_images=len(self.data_loader.dataset),
            is_pending=self.is_pending,
        )

    def resume_or_load(self, resume: bool = True, choice: Choice | None = None) -> None:
        """Load ``MODEL.WEIGHTS``, or go on exactly where the newest whole checkpoint stands.

        Args:
            resume: Go on from ``OUTPUT_DIR``, or from the mirror where that has more.
            choice: The checkpoint to go on from, where it is chosen already.

        Raises:
            MissingFileError: If there is nothing to resume.
            WeightsError: If no checkpoint is whole, or they are of another model or class list.
        """
        if not resume:
            self.checkpointer.load(self.cfg.MODEL.WEIGHTS, checkpointables=[])
            return
        rest = self.checkpointer.resume(choice)
        self.start_iter = self.iter + 1
        self.is_pending = bool(rest.get("pending"))
        self.data_loader.start_at(self.start_iter)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned; rates and decay are those of the configuration."""
        super().load_state_dict(state_dict)
        apply_configured_rates(self.optimizer, self.scheduler)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model of ``MODEL.META_ARCHITECTURE``; see ``modeling.build``."""
        model = build_model(cfg)
        logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Build SGD, Adam or AdamW; see ``training.optimizer``."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict[str, Any]]]:
        """Build the endless loader; ``resume_or_load`` moves it on."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        """Build the loader that yields every image of a dataset once."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Build what measures COCO AP and miss rate; see ``evaluation.build``."""
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate on every dataset of ``DATASETS.TEST``, each process its share of the images.

        Returns:
            As ``DefaultTrainer.test``, on the main process; the others return no figures.
        """
        model = unwrap(model)
        share_buffers(model)
        found: dict[str, Any] = super().test(cfg, model, evaluators)
        return found

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


def _of_this_process(found: Sequence[HookBase | None]) -> list[HookBase]:
    """Return the hooks that are there, without those for the main process on the others."""
    is_main = comm.is_main_process()
    return [hook for hook in found if hook and (is_main or not isinstance(hook, ON_MAIN_PROCESS))]
