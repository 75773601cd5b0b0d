"""Runs a step again that was not finite."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from d2pd.d2 import CfgNode, EventStorage
from d2pd.errors import ConfigError, UserError, WeightsError
from d2pd.modeling.build import build_model
from d2pd.training.culprits.culprit import Alone, Scene, Suspect, try_alone
from d2pd.training.culprits.gradients import gradient_norm
from d2pd.training.culprits.model_check import MODEL_CHECKS, told
from d2pd.training.culprits.recorded_step import RecordedStep, read_step
from d2pd.training.culprits.sample_faults import Fault, find_faults
from d2pd.training.precision import Precision

BuildModel = Callable[[str], nn.Module]

_CONFIG_ERRORS = (
    yaml.YAMLError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What building a model from any words that are YAML can raise."""


@dataclass(frozen=True)
class Replayed:
    """A step that was run again.

    Attributes:
        iteration: Of the step in its run.
        rank: Process that it was on.
        text: What the run saw, and the verdict.
        recorded: The losses that the run saw, by name; empty where it had none yet.
        losses: Those of now, the means over the parts of the batch that were recorded.
        gradient_norm: Of all parameters together, of now; None where the forward pass stopped.
        refusal: What the model's own check said now; empty where it said nothing.
        faults: Labels and pixels that break the contract.
        alone: What each image gives by itself now, by its name.
    """

    iteration: int
    rank: int
    text: str
    recorded: Mapping[str, float]
    losses: Mapping[str, float]
    gradient_norm: float | None
    refusal: str
    faults: Sequence[Fault]
    alone: Sequence[tuple[str, Alone]]

    @property
    def is_finite(self) -> bool:
        """Whether there is nothing to object to now."""
        numbers = [*self.losses.values(), self.gradient_norm or 0.0]
        return not (self.refusal or self.faults) and all(map(math.isfinite, numbers))

    def report(self) -> str:
        """Return what came out, a line for each thing."""
        lines = [f"iteration {self.iteration}, rank {self.rank}: {self.text}"]
        lines += [str(fault) for fault in self.faults]
        for name, value in self.losses.items():
            then = f" (in the run: {self.recorded[name]:.6g})" if name in self.recorded else ""
            lines.append(f"{name} = {value:.6g}{then}")
        if self.gradient_norm is not None:
            lines.append(f"norm of the gradients = {self.gradient_norm:.6g}")
        if self.refusal:
            lines.append(f"the model stopped: {self.refusal}")
        for name, one in self.alone:
            values = [f"{loss} = {value:.6g}" for loss, value in one.losses.items()]
            if one.gradient_norm is not None:
                values.append(f"norm of the gradients = {one.gradient_norm:.6g}")
            lines.append(f"{name} by itself: {', '.join(values) or one.error}")
        return "\n".join(lines)


def replay(path: str | Path, build: BuildModel | None = None) -> Replayed:
    """Run a recorded step again, forward and backward.

    The losses are those of the run, to the last bit, on the same device model, versions and number
    of threads.

    Args:
        path: A ``.pt`` file of ``OUTPUT_DIR/non_finite``. Nothing in it is run.
        build: From the text of the recorded configuration to a model, whose weights are then
            replaced; None builds the one that the configuration describes, on the CPU.

    Raises:
        MissingFileError: If there is no such file.
        WeightsError: If it is not such a file, or does not fit the model.
    """
    step = read_step(Path(path))
    scene = _scene(step, path, build or model_of_config)
    faults = find_faults([suspect.sample for suspect in step.suspects], scene.num_classes)
    alone: list[tuple[str, Alone]] = []
    losses: dict[str, float] = {}
    norm, refusal = None, ""
    if not faults:  # with them the run did not get as far as the model
        with EventStorage(scene.iteration):
            # First: it leaves no trace, while the step changes what the model keeps of its batches.
            alone = [(str(s), try_alone(scene, s, with_gradient=True)) for s in step.suspects]
            norm, refusal = _run_again(scene, step.suspects, losses)
    seen = (step.iteration, step.rank, step.text, step.losses)
    return Replayed(*seen, losses, norm, refusal, faults, alone)


def _scene(step: RecordedStep, path: str | Path, build: BuildModel) -> Scene:
    model = build(step.config_text).train()
    try:
        model.load_state_dict(step.model_state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} is of another model: {first}") from None
    precision = Precision(step.precision, next(model.parameters()).device.type)
    return Scene(step.iteration, model, precision, step.num_classes, control=None)


def _run_again(
    scene: Scene, suspects: Sequence[Suspect], losses: dict[str, float]
) -> tuple[float | None, str]:
    """Run forward and backward, part by part, and put the mean losses of the parts into ``losses``.

    Returns:
        The norm of the gradients, and what the model's own check said.
    """
    parts = [(seed, [*part]) for seed, part in groupby(suspects, key=lambda one: one.seed)]
    sums: dict[str, float] = {}
    try:
        for seed, part in parts:
            torch.manual_seed(seed)
            with scene.precision.autocast():
                found: dict[str, Tensor] = scene.model([suspect.sample for suspect in part])
            for name, loss in found.items():
                sums[name] = sums.get(name, 0.0) + float(loss.detach())
                losses[name] = sums[name] / len(parts)
            (torch.stack(list(found.values())).sum() / len(parts)).backward()
    except MODEL_CHECKS as error:
        return None, told(error)
    return gradient_norm(scene.model), ""


def model_of_config(config_text: str) -> nn.Module:
    """Build the model that a recorded configuration describes, on the CPU, without weights.

    Raises:
        ConfigError: If the file holds no configuration, or one that cannot be used.
    """
    if not config_text:
        raise ConfigError("the recorded step has no configuration: name it by --config-file")
    try:
        cfg = CfgNode.load_cfg(config_text)  # of text, which is read without running anything
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.WEIGHTS = ""
        return build_model(cfg)
    except UserError:
        raise
    except _CONFIG_ERRORS as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise ConfigError(f"the recorded configuration cannot be used: {reason}") from error
