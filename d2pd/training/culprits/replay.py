"""A step that was not finite, in a file that can be run again."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import torch
import yaml
from torch import Tensor, nn

from d2pd.d2 import Boxes, CfgNode, EventStorage, Instances, build_model
from d2pd.errors import ConfigError, MissingFileError, WeightsError
from d2pd.training.culprits.culprit import (
    Alone,
    Scene,
    Suspect,
    Violation,
    try_alone,
)
from d2pd.training.culprits.gradients import gradient_norm
from d2pd.training.culprits.model_check import MODEL_CHECKS, told
from d2pd.training.culprits.sample_faults import Fault, find_faults
from d2pd.training.precision import Precision

FORMAT = "d2pd step 1"

BuildModel = Callable[[str], nn.Module]


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


def write_step(
    file: IO[bytes],
    violation: Violation,
    scene: Scene,
    *,
    rank: int,
    text: str,
    config_text: str,
) -> None:
    """Write all that the forward pass of the suspects depends on.

    Args:
        file: Open for writing.
        violation: Its suspects' samples are stored: tensors, numbers and strings in them.
        scene: Weights as before the step; where steps are never skipped, batch statistics may
            hold it already, which no forward pass in training reads.
        rank: Of this process.
        text: What was seen, and the verdict.
        config_text: The configuration as YAML; empty where it is not known.
    """
    content = {
        "format": FORMAT,
        "iteration": scene.iteration,
        "rank": rank,
        "text": text,
        "precision": scene.precision.name,
        "num_classes": scene.num_classes,
        "losses": dict(violation.losses),
        "batch": [{"seed": s.seed, **_plain_sample(s.sample)} for s in violation.suspects],
        "model": {name: tensor.cpu() for name, tensor in scene.model.state_dict().items()},
        "config": config_text,
    }
    torch.save(content, file)


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
    content = _read(Path(path))
    scene = _scene(content, path, build or model_of_config)
    suspects = [
        Suspect(number, _sample(row), row["seed"]) for number, row in enumerate(content["batch"])
    ]
    faults = find_faults([suspect.sample for suspect in suspects], scene.num_classes)
    alone: list[tuple[str, Alone]] = []
    losses: dict[str, float] = {}
    norm, refusal = None, ""
    if not faults:  # with them the run did not get as far as the model
        with EventStorage(scene.iteration):
            # First: it leaves no trace, while the step changes what the model keeps of its batches.
            alone = [(str(s), try_alone(scene, s, with_gradient=True)) for s in suspects]
            norm, refusal = _run_again(scene, suspects, losses)
    seen = (content["iteration"], content["rank"], content["text"], content["losses"])
    return Replayed(*seen, losses, norm, refusal, faults, alone)


def _scene(content: Mapping[str, Any], path: str | Path, build: BuildModel) -> Scene:
    model = build(content["config"]).train()
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} is of another model: {first}") from None
    precision = Precision(content["precision"], next(model.parameters()).device.type)
    return Scene(content["iteration"], model, precision, content["num_classes"], control=None)


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
    except (yaml.YAMLError, AssertionError, AttributeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"the recorded configuration cannot be used: {reason}") from None
    return build_model(cfg)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"no file {path}; steps are in OUTPUT_DIR/non_finite/*.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged zip and a refused pickle have many types
        raise WeightsError(
            f"{path} cannot be read as a recorded step: it is damaged or another file, or asks for "
            "code; nothing of it was run"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise WeightsError(f"{path} is not a recorded step (of OUTPUT_DIR/non_finite/*.pt)")
    return content


def _plain_sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    plain = (Tensor, str, int, float)
    kept = {key: value for key, value in sample.items() if isinstance(value, plain)}
    instances = sample["instances"]
    fields = {
        name: value.tensor if name == "gt_boxes" else value
        for name, value in instances.get_fields().items()
        if name == "gt_boxes" or isinstance(value, Tensor)
    }
    return {"sample": kept, "image_size": list(instances.image_size), "instances": fields}


def _sample(row: Mapping[str, Any]) -> dict[str, Any]:
    instances = Instances(tuple(row["image_size"]))
    for name, value in row["instances"].items():
        instances.set(name, Boxes(value) if name == "gt_boxes" else value)
    return {**row["sample"], "instances": instances}
