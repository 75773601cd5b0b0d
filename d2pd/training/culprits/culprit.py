"""Finds who is to blame for a step that is not finite: labels, an image or the training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from d2pd.d2 import EventStorage
from d2pd.training.culprits.model_check import MODEL_CHECKS, told
from d2pd.training.culprits.sample_faults import (
    Fault,
    Sample,
    describe_faults,
    find_faults,
    image_label,
)
from d2pd.training.isolation import without_other_processes
from d2pd.training.precision import BF16, FP16, Precision
from d2pd.training.snapshot import Snapshot

TARGETS, MODEL_CHECK, LOSS, GRADIENT = "targets", "model check", "loss", "gradient"
"""Where a violation is seen."""

DATA, IMAGE, DIVERGENCE, WHOLE_BATCH = "data", "image", "divergence", "whole batch"
"""The verdicts: labels or pixels break the contract; some images by themselves are not finite
though they are sound; the training has run away; the images are finite one by one."""
VERDICTS = (DATA, IMAGE, DIVERGENCE, WHOLE_BATCH)


@dataclass(frozen=True, eq=False)
class Suspect:
    """One image of a batch.

    Attributes:
        index: Its position in the batch of this process.
        sample: As the model gets it.
        seed: Of torch's generators, before the forward pass of the part of the batch it is in.
    """

    index: int
    sample: Sample
    seed: int

    def __str__(self) -> str:
        return image_label(str(self.sample["file_name"]), self.sample.get("row"))


@dataclass(frozen=True)
class Violation:
    """Something that is not finite, or breaks the contract of the data.

    Attributes:
        where: ``TARGETS``, ``MODEL_CHECK``, ``LOSS`` or ``GRADIENT``.
        text: What was seen, one line.
        suspects: The images it may come from.
        losses: Of these images together, by name; empty where there are none yet.
    """

    where: str
    text: str
    suspects: Sequence[Suspect]
    losses: Mapping[str, float]


@dataclass(frozen=True)
class Scene:
    """The training as it was before the step.

    Attributes:
        iteration: Of the step.
        model: In training mode, not wrapped: no other process takes part in its forward pass.
        precision: Of the forward pass.
        num_classes: Number of classes, without background.
        control: An image of the step before, which was finite then; None in the first step.
    """

    iteration: int
    model: nn.Module
    precision: Precision
    num_classes: int
    control: Suspect | None


@dataclass(frozen=True)
class Alone:
    """What one image gives by itself.

    Attributes:
        losses: By name; empty where the model stopped before.
        error: What the model's own check said; empty where it said nothing.
        gradient_norm: Of all parameters together; None where it was not asked for.
    """

    losses: Mapping[str, float]
    error: str = ""
    gradient_norm: float | None = None

    @property
    def is_finite(self) -> bool:
        """Whether there is nothing to object to."""
        numbers = [*self.losses.values(), self.gradient_norm or 0.0]
        return not self.error and all(map(math.isfinite, numbers))

    @property
    def is_usual(self) -> bool:
        """Whether it is finite and could be of a training that goes well."""
        return self.is_finite and sum(self.losses.values()) < RUNAWAY


@dataclass(frozen=True)
class Verdict:
    """Who is to blame.

    Attributes:
        kind: One of ``VERDICTS``.
        reason: Why, naming the images or parameters; one line.
        way_out: What to do; one line.
        blamed: The images to look at.
        faults: Labels and pixels that break the contract.
        parameters: Names of those that were not finite before the step.
        alone: What each suspect gives by itself; empty where that was not tried.
    """

    kind: str
    reason: str
    way_out: str
    blamed: Sequence[Suspect] = ()
    faults: Sequence[Fault] = ()
    parameters: Sequence[str] = ()
    alone: Sequence[Alone] = ()


RUNAWAY = 1e6
"""A loss that no training comes back from, whatever the model."""

CALM = (
    "a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_ITERS or SOLVER.CLIP_GRADIENTS.ENABLED True "
    "are the usual ways out; a checkpoint, if there is one, is from before this step"
)
LOOK = (
    "look at its picture; take its row out of the label file, or set NON_FINITE.POLICY skip to "
    "train on without such steps"
)
MORE_BITS = {
    FP16: "in float32 it is finite: set SOLVER.AMP.PRECISION bf16, or SOLVER.AMP.ENABLED False",
    BF16: "in float32 it is finite: set SOLVER.AMP.ENABLED False",
}


def isolate(violation: Violation, scene: Scene) -> Verdict:
    """Find who is to blame; buffers and random generators are left as they were.

    In this order: labels and pixels; were the weights finite; each image by itself, with the seed
    that its part of the batch had, and its gradients too where the violation is in the gradient;
    else the whole batch.
    """
    faults = find_faults([suspect.sample for suspect in violation.suspects], scene.num_classes)
    if faults:
        return _blame_data(violation.suspects, faults)
    parameters = [
        name for name, p in scene.model.named_parameters() if not torch.isfinite(p.detach()).all()
    ]
    if parameters:
        reason = f"{len(parameters)} parameters were not finite before this step"
        return Verdict(DIVERGENCE, f"{reason} ({_first(parameters)})", CALM, parameters=parameters)
    with EventStorage(scene.iteration), without_other_processes(scene.model):
        return _blame_images(violation, scene)


def _blame_data(suspects: Sequence[Suspect], faults: Sequence[Fault]) -> Verdict:
    blamed = [suspects[number] for number in dict.fromkeys(fault.index for fault in faults)]
    placed = [replace(fault, index=suspects[fault.index].index) for fault in faults]
    way_out = "`d2pd diagnose` lists all such images of the training set"
    return Verdict(DATA, describe_faults(placed), way_out, blamed, placed)


def _blame_images(violation: Violation, scene: Scene) -> Verdict:
    with_gradient = violation.where == GRADIENT
    suspects = violation.suspects
    alone = [try_alone(scene, suspect, with_gradient) for suspect in suspects]
    bad = [suspect for suspect, one in zip(suspects, alone, strict=True) if not one.is_finite]
    has_usual = any(one.is_usual for one in alone)
    if has_usual and not bad:
        reason = f"each of the {len(suspects)} images is finite by itself: {_first(suspects)}"
        return Verdict(WHOLE_BATCH, reason, CALM, suspects, alone=alone)
    peers = ""
    if has_usual:
        peers = "unlike other images of the batch"
    elif bad and _is_control_usual(scene, with_gradient):
        peers = f"unlike {scene.control} of the step before"
    elif bad and len(suspects) == 1 and scene.control is None:
        peers = "and there is no image to compare it with yet"
    more_bits = _more_bits(scene, bad, with_gradient)
    if not peers:
        reason = "every image by itself is not finite, or its loss is beyond all bounds, though "
        reason += f"all are sound: {_first(suspects)}"
        return Verdict(DIVERGENCE, reason, more_bits or CALM, suspects, alone=alone)
    reason = f"{_first(bad)}: not finite by itself, {peers}"
    return Verdict(IMAGE, reason, more_bits or LOOK, bad, alone=alone)


def _is_control_usual(scene: Scene, with_gradient: bool) -> bool:
    control = scene.control
    return control is not None and try_alone(scene, control, with_gradient).is_usual


def _more_bits(scene: Scene, bad: Sequence[Suspect], with_gradient: bool) -> str:
    """Return the way out where float32 would do; empty where it would not."""
    if not bad or scene.precision.name not in MORE_BITS:
        return ""
    in_full = replace(scene, precision=Precision())
    is_finite = try_alone(in_full, bad[0], with_gradient).is_finite
    return MORE_BITS[scene.precision.name] if is_finite else ""


def try_alone(scene: Scene, suspect: Suspect, with_gradient: bool) -> Alone:
    """Compute the losses of one image, and the norm of their gradient where it is asked for.

    Needs an open ``EventStorage``. Gradients, buffers and random generators stay as they are.
    """
    before = Snapshot(scene.model)
    try:
        return _try_alone(scene, suspect, with_gradient)
    finally:
        before.restore()


def _try_alone(scene: Scene, suspect: Suspect, with_gradient: bool) -> Alone:
    torch.manual_seed(suspect.seed)
    try:
        with torch.set_grad_enabled(with_gradient), scene.precision.autocast():
            losses: dict[str, Tensor] = scene.model([suspect.sample])
    except MODEL_CHECKS as error:
        return Alone({}, error=told(error))
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    if not with_gradient:
        return Alone(values)
    total = torch.stack(list(losses.values())).sum()
    parameters = [p for p in scene.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
    return Alone(values, gradient_norm=float(norm))


def _first(names: Sequence[object], count: int = 4) -> str:
    named = ", ".join(str(name) for name in names[:count])
    return named + (f" and {len(names) - count} more" if len(names) > count else "")
