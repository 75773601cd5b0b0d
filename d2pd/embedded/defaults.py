"""The trainer that builds everything from a config."""

import logging
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from d2pd.embedded import comm, hooks
from d2pd.embedded.build import build_model
from d2pd.embedded.checkpoint import DetectionCheckpointer
from d2pd.embedded.config import CfgNode, check_honoured
from d2pd.embedded.evaluator import DatasetEvaluator, inference_on_dataset
from d2pd.embedded.logger import setup_logger
from d2pd.embedded.results import verify_results
from d2pd.embedded.run_setup import default_argument_parser, default_setup, default_writers
from d2pd.embedded.solver import build_lr_scheduler, build_optimizer
from d2pd.embedded.train_loop import HookBase, TrainerBase
from d2pd.embedded.writers import EventWriter
from d2pd.errors import ConfigError

__all__ = ["DefaultTrainer", "default_argument_parser", "default_setup", "default_writers"]

logger = logging.getLogger(__name__)


class _Parts(TrainerBase):
    """Holds model, loader and optimizer until a subclass sets a trainer that can step."""

    def __init__(self, model: nn.Module, data_loader: Any, optimizer: Any) -> None:
        super().__init__()
        self.model, self.data_loader, self.optimizer = model, data_loader, optimizer

    def run_step(self) -> None:
        raise NotImplementedError(
            "DefaultTrainer has no step of its own here: set `self._trainer` to a TrainerBase "
            "with model, data_loader and optimizer"
        )


class DefaultTrainer(TrainerBase):
    """Builds model, optimizer, loader, schedule, checkpointer and hooks from a config.

    A subclass overrides the ``build_*`` methods and sets ``self._trainer``, the object whose
    ``run_step`` is the step; it holds ``model``, ``data_loader`` and ``optimizer``.

    Attributes:
        cfg: The configuration, scaled by ``auto_scale_workers``.
        scheduler: The learning-rate schedule.
        checkpointer: Saves the model, and this trainer under ``trainer``.
        start_iter: First iteration; set by ``resume_or_load``.
        max_iter: ``SOLVER.MAX_ITER``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Build everything; loads no weights.

        Raises:
            ConfigError: If a key is changed that this engine does not honour.
        """
        super().__init__()
        check_honoured(cfg)
        if not logging.getLogger("d2pd").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        # In this order: the optimizer takes the model's parameters.
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        self._trainer: Any = _Parts(model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @property
    def model(self) -> Any:
        """The model of the inner trainer."""
        return self._trainer.model

    @model.setter
    def model(self, value: Any) -> None:
        self._trainer.model = value

    @property
    def data_loader(self) -> Any:
        """The loader of the inner trainer."""
        return self._trainer.data_loader

    @data_loader.setter
    def data_loader(self, value: Any) -> None:
        self._trainer.data_loader = value

    @property
    def optimizer(self) -> Any:
        """The optimizer of the inner trainer."""
        return self._trainer.optimizer

    @optimizer.setter
    def optimizer(self, value: Any) -> None:
        self._trainer.optimizer = value

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint, or load ``MODEL.WEIGHTS`` and start at 0.

        Args:
            resume: Take the checkpoint that ``last_checkpoint`` in ``OUTPUT_DIR`` names, with
                optimizer, schedule and iteration, where there is one.
        """
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            # A checkpoint holds the iteration that was finished.
            self.start_iter = self.iter + 1

    def build_hooks(self) -> list[HookBase | None]:
        """Return the hooks, in the order in which they are called."""

        def evaluate() -> Any:
            self._last_eval_results = self.test(self.cfg, self.model)
            return self._last_eval_results

        main, period = comm.is_main_process(), self.cfg.SOLVER.CHECKPOINT_PERIOD
        return [
            # First, so that it times the step alone.
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            # Before the evaluation: where that fails, the model is there to look at.
            hooks.PeriodicCheckpointer(self.checkpointer, period) if main else None,
            hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, evaluate),
            # Last, so that it writes what the others put.
            hooks.PeriodicWriter(self.build_writers(), period=20) if main else None,
        ]

    def build_writers(self) -> list[EventWriter]:
        """Return the writers that ``PeriodicWriter`` calls."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self) -> Any:  # type: ignore[override]
        """Train from ``start_iter`` to ``max_iter``.

        Returns:
            The last evaluation where ``TEST.EXPECTED_RESULTS`` is set, otherwise None.

        Raises:
            UserError: If that evaluation is not what ``TEST.EXPECTED_RESULTS`` expects.
        """
        super().train(self.start_iter, self.max_iter)
        if not (self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process()):
            return None
        if not hasattr(self, "_last_eval_results"):
            raise ConfigError("TEST.EXPECTED_RESULTS is set but nothing was evaluated")
        verify_results(self.cfg.TEST.EXPECTED_RESULTS, self._last_eval_results)
        return self._last_eval_results

    def run_step(self) -> None:
        """Let the inner trainer do one step at this iteration."""
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration, the hooks' states, and the inner trainer's under ``_trainer``."""
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Return the model of ``MODEL.META_ARCHITECTURE``, on ``MODEL.DEVICE``."""
        model = build_model(cfg)
        logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Return SGD with the settings of ``SOLVER``."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Return the schedule of ``SOLVER.LR_SCHEDULER_NAME``."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Return an endless iterable of batches; a subclass has to say which."""
        raise NotImplementedError("the embedded engine has no loader: override build_train_loader")

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return the batches of one dataset, with a length; a subclass has to say which."""
        raise NotImplementedError("the embedded engine has no loader: override build_test_loader")

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return the evaluator of one dataset; a subclass has to say which."""
        raise NotImplementedError("override build_evaluator, or pass evaluators to test")

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate the model on every dataset of ``DATASETS.TEST``.

        Logging the figures is the evaluators' business, who know what they mean.

        Args:
            cfg: Names the datasets.
            model: With its weights loaded.
            evaluators: One for each dataset; None builds them with ``build_evaluator``.

        Returns:
            Figures by task; by dataset and task where there are several datasets.

        Raises:
            ValueError: If the evaluators are not as many as the datasets.
        """
        names = cfg.DATASETS.TEST
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None and len(evaluators) != len(names):
            raise ValueError(f"{len(names)} datasets but {len(evaluators)} evaluators")
        results: dict[str, Any] = {}
        for index, name in enumerate(names):
            data_loader = cls.build_test_loader(cfg, name)
            try:
                evaluator = evaluators[index] if evaluators else cls.build_evaluator(cfg, name)
            except NotImplementedError:
                logger.warning("No evaluator for %s: override build_evaluator", name)
                results[name] = {}
                continue
            results[name] = inference_on_dataset(model, data_loader, evaluator)
        return next(iter(results.values())) if len(results) == 1 else results

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Return the config for another number of processes than it was written for.

        The images on each process stay the same; the rate grows with their sum, the numbers of
        iterations shrink with it. Does nothing with ``SOLVER.REFERENCE_WORLD_SIZE`` 0.

        Raises:
            ConfigError: If the images do not divide among the processes of the reference.
        """
        written_for = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if written_for in (0, num_workers):
            return cfg
        if cfg.SOLVER.IMS_PER_BATCH % written_for:
            raise ConfigError(
                f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} does not divide among "
                f"SOLVER.REFERENCE_WORLD_SIZE {written_for} processes"
            )
        scale = num_workers / written_for
        scaled = cfg.clone()
        scaled.defrost()
        solver = scaled.SOLVER
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * scale)
        solver.BASE_LR *= scale
        for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
            solver[key] = round(solver[key] / scale)
        solver.STEPS = tuple(round(step / scale) for step in solver.STEPS)
        scaled.TEST.EVAL_PERIOD = round(scaled.TEST.EVAL_PERIOD / scale)
        solver.REFERENCE_WORLD_SIZE = num_workers
        logger.info("Scaled for %d instead of %d processes: %s", num_workers, written_for, solver)
        if cfg.is_frozen():
            scaled.freeze()
        return scaled
