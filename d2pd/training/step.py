"""One training step, the same under both engines."""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from d2pd.d2 import Boxes, TrainerBase, get_event_storage
from d2pd.errors import UserError

logger = logging.getLogger(__name__)

Sample = dict[str, Any]


class DivergedError(UserError, FloatingPointError):
    """A loss or a gradient is not finite; the message names the iteration and the images."""


class TargetError(UserError, ValueError):
    """A target that would ruin the training: the message names the image and the box."""


class Step(TrainerBase):
    """Data, check of the targets, forward, finite check, backward, clipping, optimizer step.

    Takes the place of Detectron2's inner trainer. The model receives ``list[dict]`` and returns a
    dict of scalar losses. Before each step the random generators are seeded from (seed, iteration),
    so that a resumed run draws the same samples of anchors and regions as one never stopped.

    Args:
        model: In training mode.
        data_loader: Yields lists of samples, endlessly.
        optimizer: Clips by itself where clipping is configured.
        num_classes: Number of classes, without background.
        seed: Seed of the run, at least 0.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[Sample]],
        optimizer: torch.optim.Optimizer,
        *,
        num_classes: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.num_classes = num_classes
        self.seed = seed
        self._batches: Iterator[list[Sample]] | None = None

    def run_step(self) -> None:
        """Train on the next batch.

        Raises:
            TargetError: If a target box has no area or its class is out of range.
            DivergedError: If a loss or the norm of the gradients is not finite; the weights are
                then those of the step before.
        """
        start = time.perf_counter()
        if self._batches is None:
            self._batches = iter(self.data_loader)
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        check_targets(batch, self.num_classes)
        # 31 bits: what every generator takes. The stride keeps two runs' seeds from meeting early.
        torch.manual_seed((self.seed * 1_000_003 + self.iter) % 2**31)

        losses = self._forward(batch)
        total = torch.stack(list(losses.values())).sum()
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        check_losses(values, batch, self.iter)
        self.optimizer.zero_grad()
        total.backward()
        grad_norm = check_gradients(self.model, batch, self.iter)
        self.optimizer.step()

        storage = get_event_storage()
        storage.put_scalar("data_time", data_time)
        storage.put_scalar("grad_norm", grad_norm)
        for name, value in {"total_loss": sum(values.values()), **values}.items():
            storage.put_scalar(name, value)

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration and the optimizer's state."""
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])

    def _forward(self, batch: list[Sample]) -> dict[str, Tensor]:
        """Return the losses; the models' own checks (proposals, boxes) get the images' names."""
        try:
            losses: dict[str, Tensor] = self.model(batch)
        except (FloatingPointError, AssertionError) as error:
            text = str(error).rstrip(".")
            raise DivergedError(f"iteration {self.iter}: {text}{_of(batch)}") from error
        return losses


def check_targets(batch: list[Sample], num_classes: int) -> None:
    """Refuse targets that would ruin the training without a word.

    A box without area overlaps nothing, so that every anchor ties for its best one and becomes
    positive, or its log size is minus infinity. A class out of range ends in a device-side assert.

    Args:
        batch: Samples with ``instances`` (``gt_boxes`` XYXY in pixels of the network input,
            ``gt_classes``) and ``file_name``.
        num_classes: Number of classes, without background.

    Raises:
        TargetError: Naming the image and the first such box.
    """
    for sample in batch:
        boxes: Boxes = sample["instances"].gt_boxes
        classes: Tensor = sample["instances"].gt_classes
        corners = boxes.tensor
        sizes = corners[:, 2:] - corners[:, :2]
        bad = ~(torch.isfinite(corners).all(dim=1) & (sizes > 0).all(dim=1))
        if bad.any():
            row = int(bad.nonzero()[0])
            raise TargetError(
                f"{sample['file_name']}: target box {corners[row].tolist()} (XYXY, network input) "
                "has no area or is not finite; cleaning drops such labels: raise "
                "DATASETS.MIN_BOX_SIZE"
            )
        if len(classes) and (int(classes.min()) < 0 or int(classes.max()) >= num_classes):
            raise TargetError(
                f"{sample['file_name']}: class {sorted(set(classes.tolist()))} is out of range: "
                f"the model has {num_classes} classes (MODEL.ROI_HEADS.NUM_CLASSES)"
            )


def check_losses(losses: dict[str, float], batch: list[Sample], iteration: int) -> None:
    """Stop at a loss that is not finite, naming it and the images of the batch.

    Raises:
        DivergedError: If any loss is infinite or not a number.
    """
    if not all(math.isfinite(value) for value in losses.values()):
        named = ", ".join(f"{name}={value:.4g}" for name, value in losses.items())
        raise DivergedError(f"iteration {iteration}: the loss is not finite ({named}){_of(batch)}")


def check_gradients(model: nn.Module, batch: list[Sample], iteration: int) -> float:
    """Return the norm of all gradients together; stop where it is not finite.

    Raises:
        DivergedError: If a gradient is infinite or not a number although the loss is finite.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if not math.isfinite(norm):
        named = [
            name
            for name, p in model.named_parameters()
            if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        raise DivergedError(
            f"iteration {iteration}: the gradient is not finite in {len(named)} parameters "
            f"({', '.join(named[:3])}){_of(batch)}"
        )
    return norm


def _of(batch: list[Sample]) -> str:
    names = ", ".join(f"{sample['file_name']}" for sample in batch)
    return (
        f"; images of this batch: {names}. The last checkpoint is from before this step; "
        "a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_ITERS or SOLVER.CLIP_GRADIENTS.ENABLED "
        "True are the usual ways out"
    )
