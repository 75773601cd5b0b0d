"""One training step, the same under both engines."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from d2pd.d2 import CfgNode, TrainerBase, comm, get_event_storage
from d2pd.errors import ConfigError
from d2pd.training.clipping import Clip, build_clipping, leave_as_they_are
from d2pd.training.culprits.culprit import (
    GRADIENT,
    LOSS,
    MODEL_CHECK,
    TARGETS,
    Scene,
    Suspect,
    Violation,
)
from d2pd.training.culprits.gradients import gradient_norm, name_bad_gradients
from d2pd.training.culprits.model_check import MODEL_CHECKS, told
from d2pd.training.culprits.non_finite import Guard, build_guard
from d2pd.training.culprits.sample_faults import find_faults
from d2pd.training.isolation import unwrap
from d2pd.training.precision import Precision, build_precision
from d2pd.training.processes import gradients_stay_here, is_so_on_any, mean_of_losses
from d2pd.training.random_state import random_state, set_random_state
from d2pd.training.running_numbers import RunningNumbers
from d2pd.training.snapshot import Snapshot

Sample = dict[str, Any]


class StepRefused(Exception):
    """Ends a step on every process before the weights change.

    Attributes:
        violation: Of this process; None if only another one has any.
    """

    def __init__(self, violation: Violation | None) -> None:
        super().__init__(violation.text if violation else "on another process")
        self.violation = violation


class Step(TrainerBase):
    """One optimizer step on one batch; ``run_step`` shows the order.

    Takes the place of Detectron2's inner trainer. The model receives ``list[dict]`` and returns a
    dict of scalar losses. Before each forward pass the random generators are seeded from (seed,
    iteration, process, part), so that a resumed run draws the same samples of anchors and regions
    as one never stopped.

    Args:
        model: In training mode; maybe in ``DistributedDataParallel``.
        data_loader: Yields lists of samples, endlessly.
        optimizer: Does not clip by itself.
        num_classes: Number of classes, without background.
        seed: Seed of the run, at least 0.
        guard: Settles what happens when a step is not finite; by default the run ends, and no file
            is written.
        precision: Of the forward pass; float32 by default.
        accumulate: Parts that a batch is divided into, to save memory; divides its size.
        clip: Clips the gradients of parameters, in place.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[Sample]],
        optimizer: torch.optim.Optimizer,
        *,
        num_classes: int,
        seed: int,
        guard: Guard | None = None,
        precision: Precision | None = None,
        accumulate: int = 1,
        clip: Clip = leave_as_they_are,
    ) -> None:
        super().__init__()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.num_classes = num_classes
        self.seed = seed
        self.guard = guard or Guard()
        self.precision = precision or Precision()
        self.accumulate = accumulate
        self.clip = clip
        self._batches: Iterator[list[Sample]] | None = None
        self._control: Suspect | None = None
        self._numbers = RunningNumbers(unwrap(model))

    def run_step(self) -> None:
        """Train on the next batch.

        Raises:
            TargetError: If labels or pixels break the contract; see ``training.sample_faults``.
            DivergedError: If a loss or a gradient is not finite. The weights are then those of the
                step before.
        """
        start = time.perf_counter()
        batch = self._fetch()
        data_time = time.perf_counter() - start
        before = Snapshot(unwrap(self.model)) if self.guard.may_skip else None
        try:
            self._check_samples(batch)
            self.optimizer.zero_grad()
            losses = self._forward_and_backward(batch)
            self.precision.unscale(self.optimizer)
            grad_norm = self._check_gradients(batch, losses)
        except StepRefused as refused:
            self._settle(refused.violation, before)
            return
        self.clip([p for group in self.optimizer.param_groups for p in group["params"]])
        self.precision.step(self.optimizer)
        if not math.isfinite(grad_norm):  # the scaler has left the step out
            self._step_on_the_spot()
        self._control = self._suspects(batch)[0]
        self._log(losses, grad_norm, data_time)

    def close(self) -> None:
        """Let go of the workers of the loader."""
        self._batches = None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that losses are computed in, those of validation too."""
        return self.precision.autocast()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all that a step changes besides the model's own ``state_dict``."""
        return {
            **super().state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.precision.state_dict(),
            "skipped_steps": self.guard.skipped,
            "running_numbers": self._numbers.state_dict(),
            "random": random_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict``, or Detectron2's trainer, returned.

        The random generators are those of the process that saved, the first; the other ones keep
        theirs.
        """
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.precision.load_state_dict(state_dict.get("grad_scaler", {}))
        self.guard.skipped = state_dict.get("skipped_steps", 0)
        self._numbers.load_state_dict(state_dict.get("running_numbers", {}))
        if "random" in state_dict and comm.is_main_process():
            set_random_state(state_dict["random"])

    def _fetch(self) -> list[Sample]:
        if self._batches is None:
            self._batches = iter(self.data_loader)
        return next(self._batches)

    def _check_samples(self, batch: list[Sample]) -> None:
        faults = find_faults(batch, self.num_classes)
        violation = None
        if faults:
            text = "labels or pixels break the contract"
            violation = Violation(TARGETS, text, self._suspects(batch), {})
        self._agree(violation)

    def _forward_and_backward(self, batch: list[Sample]) -> dict[str, float]:
        """Return the losses by name, the means over the parts of the batch."""
        size = len(batch) // self.accumulate
        of_parts: list[dict[str, float]] = []
        for part in range(self.accumulate):
            samples = batch[part * size : (part + 1) * size]
            is_last = part + 1 == self.accumulate
            with nullcontext() if is_last else gradients_stay_here(self.model):
                torch.manual_seed(self._seed_of_part(part))
                losses, values = self._forward(samples, part)
                total = torch.stack(list(losses.values())).sum()
                self.precision.backward(total / self.accumulate)
            of_parts.append(values)
        names = dict.fromkeys(name for values in of_parts for name in values)
        return {name: sum(v.get(name, 0.0) for v in of_parts) / self.accumulate for name in names}

    def _forward(
        self, samples: list[Sample], part: int
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        losses: dict[str, Tensor] = {}
        values: dict[str, float] = {}
        text = ""
        try:
            with self.autocast():
                losses = self.model(samples)
            # Together: on a GPU each look at a number waits for all that came before.
            found = torch.stack(list(losses.values())).detach().tolist()
            values = dict(zip(losses, found, strict=True))
        except MODEL_CHECKS as error:
            where, text = MODEL_CHECK, f"the model's own check failed: {told(error)}"
        if not all(math.isfinite(value) for value in values.values()):
            named = ", ".join(f"{name}={value:.4g}" for name, value in values.items())
            where, text = LOSS, f"the loss is not finite ({named})"
        suspects = self._suspects(samples, part)
        self._agree(Violation(where, text, suspects, values) if text else None)
        return losses, values

    def _check_gradients(self, batch: list[Sample], losses: dict[str, float]) -> float:
        """Return the norm of all gradients together, before clipping.

        It is not finite only where the loss scale is to blame, which then shrinks.
        """
        norm = gradient_norm(self.model)
        violation = None
        # A loss scale that enlarges may be the reason, and then it is the scaler's business.
        if not math.isfinite(norm) and self.precision.scale <= 1:
            text = f"the loss is finite, the gradient is not ({name_bad_gradients(self.model)})"
            violation = Violation(GRADIENT, text, self._suspects(batch), losses)
        self._agree(violation)
        return norm

    def _agree(self, violation: Violation | None) -> None:
        """Let all processes go on together, or none.

        Raises:
            StepRefused: If any process has a violation.
        """
        if is_so_on_any(violation is not None, next(self.model.parameters()).device):
            raise StepRefused(violation)

    def _settle(self, violation: Violation | None, before: Snapshot | None) -> None:
        """Name the culprit; return, with all as before the step, where it is to be skipped."""
        if before is not None:
            before.restore()
        scene = Scene(
            self.iter, unwrap(self.model), self.precision, self.num_classes, self._control
        )
        self.guard.settle(violation, scene)
        self.precision.forget()
        self._step_on_the_spot()
        self._log_skipped()

    def _step_on_the_spot(self) -> None:
        """Step without gradients, which changes nothing.

        Torch's schedule warns of a wrong order if it moves before the optimizer has.
        """
        self.optimizer.zero_grad()
        self.optimizer.step()

    def _suspects(self, samples: Sequence[Sample], part: int | None = None) -> list[Suspect]:
        """Return the samples of a part of the batch, or of all of it."""
        size = len(samples) // (self.accumulate if part is None else 1)
        first = (part or 0) * size
        return [
            Suspect(first + number, sample, self._seed_of_part((first + number) // size))
            for number, sample in enumerate(samples)
        ]

    def _seed_of_part(self, part: int) -> int:
        # 31 bits: what every generator takes. The stride keeps two runs' seeds from meeting early.
        step = self.iter * comm.get_world_size() + comm.get_rank()
        return (self.seed * 1_000_003 + step * self.accumulate + part) % 2**31

    def _log(self, losses: dict[str, float], grad_norm: float, data_time: float) -> None:
        losses = mean_of_losses(losses)
        storage = get_event_storage()
        storage.put_scalar("data_time", data_time)
        if math.isfinite(grad_norm):
            storage.put_scalar("grad_norm", grad_norm)
        for name, value in {"total_loss": sum(losses.values()), **losses}.items():
            storage.put_scalar(name, value)
        if self.precision.is_scaled:
            storage.put_scalar("loss_scale", self.precision.scale, smoothing_hint=False)
        if self.guard.may_skip:
            self._log_skipped()

    def _log_skipped(self) -> None:
        storage = get_event_storage()
        storage.put_scalar("skipped_steps", self.guard.skipped, smoothing_hint=False)


def build_step(
    cfg: CfgNode,
    model: nn.Module,
    data_loader: Iterable[list[Sample]],
    optimizer: torch.optim.Optimizer,
) -> Step:
    """Build the step that a configuration describes.

    Args:
        cfg: Reads SEED, OUTPUT_DIR, NON_FINITE, MODEL.ROI_HEADS.NUM_CLASSES and of SOLVER: AMP,
            ACCUMULATE, CLIP_GRADIENTS, IMS_PER_BATCH (over all processes).
        model: See ``Step``.
        data_loader: See ``Step``.
        optimizer: See ``Step``.

    Raises:
        ConfigError: See ``check_step``.
    """
    check_step(cfg)
    return Step(
        model,
        data_loader,
        optimizer,
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        seed=cfg.SEED,
        guard=build_guard(cfg),
        precision=build_precision(cfg, next(model.parameters()).device.type),
        accumulate=cfg.SOLVER.ACCUMULATE,
        clip=build_clipping(cfg),
    )


def check_step(cfg: CfgNode) -> None:
    """Check what ``build_step`` needs, before there is a model.

    Raises:
        ConfigError: If the batch cannot be divided among the processes, that of a process cannot
            be divided by ``SOLVER.ACCUMULATE``, or the gradients cannot be clipped as asked for.
    """
    total, world_size = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    accumulate = cfg.SOLVER.ACCUMULATE
    if total % world_size:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {total} cannot be divided among {world_size} processes: it is "
            "the batch of all of them together"
        )
    if total % (world_size * accumulate):
        raise ConfigError(
            f"SOLVER.ACCUMULATE is {accumulate}, which does not divide the {total // world_size} "
            f"images of a process (SOLVER.IMS_PER_BATCH {total}, processes: {world_size})"
        )
    build_clipping(cfg)
