"""The file that holds a step which was not finite: all that its forward pass depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from d2pd.d2 import Boxes, Instances
from d2pd.errors import MissingFileError, WeightsError
from d2pd.training.checkpoints.plain_data import plain
from d2pd.training.culprits.culprit import Scene, Suspect, Violation
from d2pd.training.culprits.sample_faults import Sample
from d2pd.training.precision import PRECISIONS
from d2pd.training.weights.weights_file import read_content

FORMAT = "d2pd step 1"


@dataclass(frozen=True)
class RecordedStep:
    """What a file holds.

    Attributes:
        iteration: Of the step in its run.
        rank: Process that it was on.
        text: What the run saw, and the verdict.
        precision: Name of that of the forward pass.
        num_classes: Number of classes, without background.
        losses: That the run saw, by name; empty where it had none yet.
        suspects: The images of the forward pass, with their seeds.
        model_state: The weights.
        config_text: The configuration as YAML; empty where the run did not know it.
    """

    iteration: int
    rank: int
    text: str
    precision: str
    num_classes: int
    losses: Mapping[str, float]
    suspects: Sequence[Suspect]
    model_state: Mapping[str, Tensor]
    config_text: str


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


def read_step(path: Path) -> RecordedStep:
    """Read a file of ``write_step`` and check that all is there, and of the right kind.

    Raises:
        MissingFileError: If there is no such file.
        WeightsError: If it is cut off, damaged, asks for code, or is something else.
    """
    if not path.exists():
        raise MissingFileError(f"no file {path}; steps are in OUTPUT_DIR/non_finite/*.pt")
    content = read_content(path)
    form = dict.get(content, "format")
    if not isinstance(form, str) or form != FORMAT:
        raise WeightsError(f"{path} is not a recorded step (of OUTPUT_DIR/non_finite/*.pt)")
    try:
        return _recorded(plain(content, ""))
    except (KeyError, TypeError, RecursionError) as error:
        what = {
            KeyError: f"it has no {error}",
            RecursionError: "it is nested without end",
        }.get(type(error), str(error).lstrip("."))
        raise WeightsError(
            f"{path} is not a recorded step that a run has written ({what}): take a whole copy"
        ) from error


def _recorded(content: Mapping[str, Any]) -> RecordedStep:
    """Check every entry.

    Raises:
        KeyError: If one is missing.
        TypeError: If one is not what it should be.
    """
    losses, state = _of(dict, content, "losses"), _of(dict, content, "model")
    for name, value in losses.items():
        _check(isinstance(name, str) and isinstance(value, float), f"loss {name!r:.40}")
    for name, value in state.items():
        _check(isinstance(name, str) and isinstance(value, Tensor), f"weight {name!r:.40}")
    precision = _of(str, content, "precision")
    _check(precision in PRECISIONS, f"precision {precision!r:.40}")
    counts = {name: _of(int, content, name) for name in ("iteration", "rank", "num_classes")}
    for name, count in counts.items():
        _check(0 <= count < 2**53, f"{name} {count!r:.40}")
    batch = _of(list, content, "batch")
    return RecordedStep(
        **counts,
        text=_of(str, content, "text"),
        precision=precision,
        losses=losses,
        suspects=[_suspect(number, row) for number, row in enumerate(batch)],
        model_state=state,
        config_text=_of(str, content, "config"),
    )


def _suspect(number: int, row: Any) -> Suspect:
    where = f"batch[{number}]"
    _check(isinstance(row, dict), where)
    seed = _of(int, row, "seed")
    _check(0 <= seed < 2**63, f"{where}.seed")
    sample = _of(dict, row, "sample")
    _of(str, sample, "file_name")
    image = _of(Tensor, sample, "image")
    _check(image.dim() == 3 and image.numel() > 0 and not image.is_complex(), f"{where}.image")
    _check(type(sample.get("row", 0)) is int, f"{where}.row")
    return Suspect(number, {**sample, "instances": _instances(row, where)}, seed)


def _instances(row: Mapping[str, Any], where: str) -> Instances:
    size, fields = _of(list, row, "image_size"), _of(dict, row, "instances")
    _check(len(size) == 2 and all(type(side) is int for side in size), f"{where}.image_size")
    boxes, classes = _of(Tensor, fields, "gt_boxes"), _of(Tensor, fields, "gt_classes")
    _check(boxes.dtype == torch.float32 and boxes.shape[1:] == (4,), f"{where}.gt_boxes")
    _check(classes.dtype == torch.int64 and classes.dim() == 1, f"{where}.gt_classes")
    instances = Instances(tuple(size))
    for name, value in fields.items():
        is_field = isinstance(name, str) and isinstance(value, Tensor) and value.dim() > 0
        _check(is_field and len(value) == len(boxes), f"{where}.{name!r:.40}")
        instances.set(name, Boxes(value) if name == "gt_boxes" else value)
    return instances


def _of(kind: type, content: Mapping[str, Any], name: str) -> Any:
    # The type itself: a boolean is an int too.
    _check(type(content[name]) is kind, name)
    return content[name]


def _check(is_right: bool, what: str) -> None:
    if not is_right:
        raise TypeError(f"{what} is not what a step has there")


def _plain_sample(sample: Sample) -> dict[str, Any]:
    plain = (Tensor, str, int, float)
    kept = {key: value for key, value in sample.items() if isinstance(value, plain)}
    kept["file_name"] = str(sample["file_name"])
    instances = sample["instances"]
    size = [int(side) for side in instances.image_size]
    fields = {
        name: value.tensor if name == "gt_boxes" else value
        for name, value in instances.get_fields().items()
        if name == "gt_boxes" or isinstance(value, Tensor)
    }
    return {
        "sample": kept,
        "image_size": size,
        "instances": fields,
    }
