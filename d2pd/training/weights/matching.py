"""Matches a file's weights with a model: what is loaded, what starts anew and what is wrong."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from d2pd.errors import WeightsError
from d2pd.training.weights.first_layer import is_first_layer
from d2pd.training.weights.weight_names import (
    TORCHVISION_BODY,
    blocks_by_stage,
    describe_model,
    resnet_blocks,
    resnet_name,
)
from d2pd.training.weights.weights_file import WeightsFile, read_checkpoint, read_weights
from d2pd.training.weights.weights_location import resolve_weights

__all__ = [
    "Match",
    "OtherShape",
    "WeightsFile",
    "match_weights",
    "read_checkpoint",
    "read_weights",
    "resolve_weights",
]

# Counters, and what Detectron2 once saved and now makes from the configuration.
_NOT_LEARNT = ("num_batches_tracked", "pixel_mean", "pixel_std", "anchor_generator.cell_anchors")
_SCOPES = ("backbone.bottom_up.", "backbone.", "network.backbone.")
_CAMERA = re.compile(r"(?<=\bbackbone\.front\.)(visible|lwir)\.")


@dataclass(frozen=True)
class OtherShape:
    """A parameter that the file has in another shape."""

    name: str
    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} ({_by(self.file_shape)} in the file, {_by(self.model_shape)} here)"


@dataclass(frozen=True)
class Match:
    """How a file fits a model; names are the model's unless they are said to be the file's.

    Attributes:
        loaded: Name in the file, by name in the model.
        adapted: Of those loaded, the first layers: the file has them for RGB images, the model for
            other channels.
        renewed: Found in another shape: they start anew (the layers that depend on the classes).
        missing: Not in the file, though in the part of the model that it covers.
        unused: Names of the file that the model has no place for.
        scope: The prefix of the part of the model that the file covers: ``""`` for all of it,
            ``"backbone.bottom_up."`` for a backbone.
        matched_fraction: Loaded parameters over all parameters of the scope, in [0, 1].
    """

    loaded: dict[str, str]
    adapted: list[OtherShape]
    renewed: list[OtherShape]
    missing: list[str]
    unused: list[str]
    scope: str
    matched_fraction: float


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape) or "scalar"


def _is_learnt(name: str) -> bool:
    return not any(word in name for word in _NOT_LEARNT)


def _of_one_camera(name: str) -> str:
    """Return the name that a layer has where one stream of layers sees all channels."""
    return _CAMERA.sub("", name)


def _name_in_file(name: str, file_names: Mapping[str, Tensor]) -> str | None:
    """Find the longest name in the file that ends the model's name at a dot.

    Both streams of halfway fusion take what a file has for one.
    """
    for candidate in dict.fromkeys((name, _of_one_camera(name))):
        parts = candidate.split(".")
        suffixes = (".".join(parts[start:]) for start in range(len(parts)))
        found = next((suffix for suffix in suffixes if suffix in file_names), None)
        if found:
            return found
    return None


def _pair_names(file_names: Mapping[str, Tensor], model_names: Iterable[str]) -> dict[str, str]:
    """Pair the model's names with the file's; one that would fit several places fits none."""
    pairs = {name: found for name in model_names if (found := _name_in_file(name, file_names))}
    places = {(_of_one_camera(name), found) for name, found in pairs.items()}
    times = Counter(found for _, found in places)
    return {name: found for name, found in pairs.items() if name == found or times[found] == 1}


def _scope_of(names: Iterable[str]) -> str:
    names = list(names)
    covers = (scope for scope in _SCOPES if names and all(n.startswith(scope) for n in names))
    return next(covers, "")


def _check_depth(state: Mapping[str, Tensor], model_names: Iterable[str], source: str) -> None:
    """Refuse a ResNet of another depth, of which more than half of the names may well fit."""
    model_names = list(model_names)
    file_bottleneck, file_blocks = resnet_blocks(state)
    bottleneck, blocks = resnet_blocks(model_names)
    shared = file_blocks.keys() & blocks.keys()
    is_same = all(file_blocks[stage] == blocks[stage] for stage in shared)
    if not shared or (is_same and file_bottleneck == bottleneck):
        return
    theirs = resnet_name(state) or f"a ResNet with {sorted(file_blocks.items())} blocks"
    ours = resnet_name(model_names) or f"a ResNet with {sorted(blocks.items())} blocks"
    raise WeightsError(
        f"{source} holds the weights of {theirs}, but the model is built on {ours}: set "
        "MODEL.RESNETS.DEPTH (and RES2_OUT_CHANNELS) for the file, or take another file"
    )


def _check_stages(state: Mapping[str, Tensor], model_names: Iterable[str], source: str) -> None:
    """Refuse a classifier of torchvision with more or fewer blocks than the backbone has."""
    in_file = blocks_by_stage(state)
    in_model = blocks_by_stage(n for n in model_names if n.startswith(TORCHVISION_BODY))
    for stage in sorted(in_file.keys() & in_model.keys()):
        if in_file[stage] != in_model[stage]:
            raise WeightsError(
                f"{source} has {in_file[stage]} blocks in {stage}, the backbone has "
                f"{in_model[stage]}: it is of another model; set MODEL.TORCHVISION.NAME for the "
                "file, or take a file of that model"
            )


def _check_norm(
    state: Mapping[str, Tensor], model_names: Collection[str], pairs: Mapping[str, str], source: str
) -> None:
    """Refuse a VGG16 with batch norm for one without, or the other way round.

    Its convolutions would fit, and compute something else.
    """
    layer = "backbone.front.conv1_1"
    if f"{layer}.weight" not in state or not any(name.startswith("network.") for name in pairs):
        return
    in_file = f"{layer}.norm.weight" in state
    in_model = any(name.endswith("conv1_1.norm.weight") for name in model_names)
    if in_file != in_model:
        what = [("without", "vgg16"), ("with", "vgg16_bn")]
        theirs, ours = what[in_file], what[in_model]
        raise WeightsError(
            f"{source} holds a VGG16 {theirs[0]} batch norm, but the model has one {ours[0]} it: "
            f"set MODEL.BACKBONE.NAME {theirs[1]}, or take a file of {ours[1]}"
        )


def match_weights(
    state: Mapping[str, Tensor],
    model_shapes: Mapping[str, Sequence[int]],
    *,
    source: str = "the weights file",
) -> Match:
    """Match the tensors of a file with the parameters and buffers of a model.

    A name fits when it is the model's, or ends it at a dot (``res2.0.conv1.weight`` fits
    ``backbone.bottom_up.res2.0.conv1.weight``) and only it; both streams of halfway fusion count
    as one.

    Args:
        state: Tensors by Detectron2's names, as ``read_weights`` returns them.
        model_shapes: Shapes by the names of the model's ``state_dict``.
        source: The file, for messages.

    Raises:
        WeightsError: If fewer than half of the parameters fit (of the backbone, where the file
            holds nothing else), or the file is of a ResNet of another depth, or of a VGG16 that
            has batch norm where the model has none.
    """
    learnt = [name for name in model_shapes if _is_learnt(name)]
    pairs = _pair_names(state, model_shapes)
    _check_depth(state, learnt, source)
    _check_stages(state, learnt, source)
    _check_norm(state, learnt, pairs, source)
    shapes = {name: tuple(state[found].shape) for name, found in pairs.items()}
    changed = [
        OtherShape(name, shape, tuple(model_shapes[name]))
        for name, shape in shapes.items()
        if shape != tuple(model_shapes[name])
    ]
    adapted = [one for one in changed if is_first_layer(one.file_shape, one.model_shape)]
    renewed = [one for one in changed if one not in adapted]
    other_shape = {entry.name for entry in renewed}
    loaded = {name: found for name, found in pairs.items() if name not in other_shape}
    scope = _scope_of(name for name in pairs if _is_learnt(name))
    expected = [name for name in learnt if name.startswith(scope)]
    fitting = sum(name in loaded for name in expected)
    if fitting < 0.5 * len(expected) or fitting == 0:
        raise WeightsError(_misfit(state, source, fitting, len(expected), scope, renewed))
    return Match(
        loaded=loaded,
        adapted=adapted,
        renewed=renewed,
        missing=[name for name in expected if name not in pairs],
        unused=[n for n in state if n not in set(pairs.values()) and _is_learnt(n)],
        scope=scope,
        matched_fraction=fitting / len(expected),
    )


def _misfit(
    state: Mapping[str, Tensor],
    source: str,
    fitting: int,
    expected: int,
    scope: str,
    renewed: Sequence[OtherShape],
) -> str:
    part = f"the model's {scope.rstrip('.')}" if scope else "the model"
    shapes = f" ({len(renewed)} have another shape, such as {renewed[0]})" if renewed else ""
    return (
        f"{source} does not fit the model: {fitting} of {expected} parameters of {part} are in "
        f"it{shapes}. It looks like a file for {describe_model(state)}; give one for this model, "
        "or MODEL.WEIGHTS '' for none"
    )
