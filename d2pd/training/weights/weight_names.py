"""Translates the parameter names of other sources into Detectron2's, and tells models apart."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from d2pd.training.weights.vgg_names import BACKBONE, to_ssd_backbone, vgg16_names

TORCHVISION_BODY = "backbone.bottom_up.body."
"""What stands before torchvision's names where a model has a backbone of torchvision."""

Renames = tuple[tuple[re.Pattern[str], str], ...]

_NORM_WORDS = {
    **{"s": "weight", "gamma": "weight", "b": "bias", "beta": "bias"},
    **{"rm": "running_mean", "running_mean": "running_mean"},
    **{"riv": "running_var", "running_var": "running_var"},
}
_PARAMETER_WORDS = {"w": "weight", "b": "bias"}


def _renames(*pairs: tuple[str, str]) -> Renames:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


# torchvision: resnet.py, classes ResNet, BasicBlock and Bottleneck; its layer1 is called res2 here.
_TORCHVISION = _renames(
    (r"conv1\.(weight)", r"stem.conv1.\1"),
    (r"bn1\.(\w+)", r"stem.conv1.norm.\1"),
    (r"(res\d\.\d+\.conv\d\.weight)", r"\1"),
    (r"(res\d\.\d+)\.bn(\d)\.(\w+)", r"\1.conv\2.norm.\3"),
    (r"(res\d\.\d+)\.downsample\.0\.(weight)", r"\1.shortcut.\2"),
    (r"(res\d\.\d+)\.downsample\.1\.(\w+)", r"\1.shortcut.norm.\2"),
)
# Caffe2 and Detectron: the part before the last word, which is w, b, bn_* or gn_*.
_CAFFE2 = _renames(
    (r"(res_)?conv1", r"stem.conv1"),
    (r"res(\d)_(\d+)_branch1", r"res\1.\2.shortcut"),
    (r"res(\d)_(\d+)_branch2a", r"res\1.\2.conv1"),
    (r"res(\d)_(\d+)_branch2b", r"res\1.\2.conv2"),
    (r"res(\d)_(\d+)_branch2c", r"res\1.\2.conv3"),
    (r"fpn_inner_res(\d)_\d+_sum(_lateral)?", r"fpn_lateral\1"),
    (r"fpn_res(\d)_\d+_sum", r"fpn_output\1"),
    (r"conv_rpn(_fpn2)?", "proposal_generator.rpn_head.conv"),
    (r"rpn_cls_logits(_fpn2)?", "proposal_generator.rpn_head.objectness_logits"),
    (r"rpn_bbox_pred(_fpn2)?", "proposal_generator.rpn_head.anchor_deltas"),
    (r"fc6", "box_head.fc1"),
    (r"fc7", "box_head.fc2"),
    (r"head_conv(\d+)", r"box_head.conv\1"),
    (r"cls_score", "cls_score"),
    (r"bbox_pred", "bbox_pred"),
)
_CAFFE2_NAME = re.compile(
    r"(?P<layer>\w+?)_((?:bn|gn)_(?P<norm>s|b|rm|riv|gamma|beta|running_mean|running_var)"
    r"|(?P<parameter>[wb]))"
)
_BLOCK = re.compile(r"(?:^|.*\.)res([2-5])\.(\d+)\.conv([123])\.weight")
_TORCHVISION_BLOCK = re.compile(r"(features\.\d+|layer\d)\.(\d+)\.")
_RESNETS = {
    (False, (2, 2, 2, 2)): "ResNet-18",
    (False, (3, 4, 6, 3)): "ResNet-34",
    (True, (3, 4, 6, 3)): "ResNet-50",
    (True, (3, 4, 23, 3)): "ResNet-101",
    (True, (3, 8, 36, 3)): "ResNet-152",
}
_SIGNATURES = (
    ("network.heads.", "an SSDSeg detector of d2pd"),
    (TORCHVISION_BODY, "a detector on a backbone of torchvision"),
    (f"{BACKBONE}front.", "a VGG16 of torchvision"),
    ("proposal_generator.rpn_head.", "a Detectron2 R-CNN detector"),
    ("backbone.bottom_up.", "a Detectron2 detector"),
    ("backbone.body.", "a detector of torchvision, whose arithmetic is another one"),
    ("backbone.layer1.", "a detector of MMDetection or the like"),
    ("transformer.", "a detector of the DETR family"),
    ("features.", "a classifier of torchvision (VGG, MobileNet, Swin or the like)"),
    ("trunk_output.", "a RegNet of torchvision"),
    ("layer1.", "a ResNet of torchvision"),
    ("model.0.", "a detector of the YOLO family"),
)


def _rename(name: str, renames: Renames) -> str | None:
    for pattern, replacement in renames:
        if found := pattern.fullmatch(name):
            return found.expand(replacement)
    return None


def name_layout(names: Iterable[str]) -> str:
    """Tell whose names these are.

    Returns:
        ``torchvision`` (a ResNet), ``torchvision VGG16``, ``torchvision classifier`` (another
        one), ``caffe2``, or ``detectron2`` for all others.
    """
    names = set(names)
    if vgg16_names(names):
        return "torchvision VGG16"
    if "conv1.weight" in names and "layer1.0.conv1.weight" in names:
        return "torchvision"
    if "conv1_w" in names and any(name.startswith("res2_0_branch2") for name in names):
        return "caffe2"
    if any(name.startswith(("features.", "trunk_output.")) for name in names):
        return "torchvision classifier"
    return "detectron2"


def is_classifier(name: str) -> bool:
    """Tell whether a parameter of torchvision belongs to what a detector has no place for."""
    return name.startswith(("classifier.", "fc."))


def blocks_by_stage(names: Iterable[str]) -> dict[str, int]:
    """Count the blocks of each stage in names of torchvision, such as ``features.5`` of a Swin."""
    blocks: dict[str, int] = {}
    for name in names:
        if found := _TORCHVISION_BLOCK.match(name.removeprefix(TORCHVISION_BODY)):
            blocks[found[1]] = max(blocks.get(found[1], 0), int(found[2]) + 1)
    return blocks


def _torchvision_name(name: str) -> str | None:
    staged = re.sub(r"^layer([1-4])", lambda stage: f"res{int(stage[1]) + 1}", name)
    return _rename(staged, _TORCHVISION)


def _caffe2_name(name: str) -> str | None:
    parts = _CAFFE2_NAME.fullmatch(name)
    layer = _rename(parts["layer"], _CAFFE2) if parts else None
    if parts is None or layer is None:
        return None
    if parts["norm"]:
        return f"{layer}.norm.{_NORM_WORDS[parts['norm']]}"
    return f"{layer}.{_PARAMETER_WORDS[parts['parameter']]}"


def _background_last(name: str, tensor: Tensor) -> Tensor:
    """Move Caffe2's background from class 0 to class K, where Detectron2 has it.

    The background's row of the box regression is dropped: Detectron2 has none.
    """
    if name.startswith("cls_score."):
        return torch.cat([tensor[1:], tensor[:1]])
    if name.startswith("bbox_pred."):
        return tensor[4:]
    return tensor


def to_detectron2_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ResNet or VGG16 of torchvision, or a model of Caffe2; other names are kept.

    The classifier of an ImageNet model has no place in a detector and is left out.

    Args:
        state: Tensors by the names of the file.

    Returns:
        Tensors by Detectron2's names, without the prefix of the module they will live in: a
        backbone's begin with ``stem.`` and ``res2.`` to ``res5.``. A VGG16 becomes SSD's
        backbone, whose names begin with ``backbone.``.
    """
    vgg16 = vgg16_names(state)
    if vgg16:
        return to_ssd_backbone(state, vgg16)
    layout = name_layout(state)
    if layout in ("detectron2", "torchvision classifier"):
        return dict(state)
    rename = _torchvision_name if layout == "torchvision" else _caffe2_name
    renamed = ((rename(name), tensor) for name, tensor in state.items())
    named = {name: tensor for name, tensor in renamed if name is not None}
    if layout == "caffe2":
        named = {name: _background_last(name, tensor) for name, tensor in named.items()}
    return named


def resnet_blocks(names: Iterable[str]) -> tuple[bool, dict[int, int]]:
    """Count the residual blocks in Detectron2 names.

    Returns:
        Whether the blocks are bottlenecks, and the number of blocks of each stage (2 to 5).
    """
    blocks: dict[int, int] = {}
    is_bottleneck = False
    for name in names:
        if found := _BLOCK.fullmatch(name):
            stage, block = int(found[1]), int(found[2])
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
            is_bottleneck = is_bottleneck or found[3] == "3"
    return is_bottleneck, blocks


def resnet_name(names: Iterable[str]) -> str | None:
    """Name the ResNet in Detectron2 names, such as ``ResNet-50``; None where there is none."""
    is_bottleneck, blocks = resnet_blocks(names)
    for (bottleneck, counts), name in _RESNETS.items():
        expected = dict(zip(range(2, 6), counts, strict=True))
        if blocks and is_bottleneck == bottleneck and blocks.items() <= expected.items():
            return name
    return None


def describe_model(names: Iterable[str]) -> str:
    """Say in words which model these Detectron2 (or unknown) names look like."""
    names = sorted(names)
    resnet = resnet_name(names)
    for prefix, words in _SIGNATURES:
        if any(name.startswith(prefix) for name in names):
            return f"{words} with {resnet}" if resnet else words
    if resnet:
        return f"a {resnet} backbone"
    return f"a model with names such as {', '.join(names[:3])}"
