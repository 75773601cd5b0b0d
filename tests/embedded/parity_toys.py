"""The same Faster R-CNN under both engines: cases, inputs, weights, and how far two results differ.

To be imported where Detectron2 is installed; d2pd's engine may be either.
"""

from dataclasses import dataclass, field
from typing import Any

import detectron2.config
import detectron2.modeling
import detectron2.structures
import detectron2.utils.events
import torch
from torch import nn

import d2pd.embedded.boxes
import d2pd.embedded.build
import d2pd.embedded.config
import d2pd.embedded.events
import d2pd.embedded.instances
import d2pd.embedded.rcnn


@dataclass(frozen=True)
class Engine:
    """What one engine calls the things that both have."""

    get_cfg: Any
    build_model: Any
    boxes: Any
    instances: Any
    storage: Any


DETECTRON2 = Engine(
    detectron2.config.get_cfg,
    detectron2.modeling.build_model,
    detectron2.structures.Boxes,
    detectron2.structures.Instances,
    detectron2.utils.events.EventStorage,
)
EMBEDDED = Engine(
    d2pd.embedded.config.get_cfg,
    d2pd.embedded.build.build_model,
    d2pd.embedded.boxes.Boxes,
    d2pd.embedded.instances.Instances,
    d2pd.embedded.events.EventStorage,
)

BASE = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 500,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 300,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 300,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 200,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 128,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
}
R18 = {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64}
R34 = {**R18, "MODEL.RESNETS.DEPTH": 34}
R50 = {"MODEL.RESNETS.DEPTH": 50}
R101 = {"MODEL.RESNETS.DEPTH": 101}
X101 = {**R101, "MODEL.RESNETS.NUM_GROUPS": 32, "MODEL.RESNETS.WIDTH_PER_GROUP": 8}
IN_1X1 = {"MODEL.RESNETS.STRIDE_IN_1X1": True}
IN_3X3 = {"MODEL.RESNETS.STRIDE_IN_1X1": False}
TRAINED = {"MODEL.RESNETS.NORM": "BN", "MODEL.BACKBONE.FREEZE_AT": 0}
GROUP = {
    "MODEL.RESNETS.NORM": "GN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.FPN.NORM": "GN",
    "MODEL.ROI_BOX_HEAD.NORM": "GN",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 2,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
}
ONE_CLASS = {"MODEL.ROI_HEADS.NUM_CLASSES": 1}
CASCADE = {
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
}

# Frozen is Detectron2's default: FrozenBN, and nothing learnt up to res2.
DETECTORS = {
    "r18_frozen": R18,
    "r18_trained_one_class": {**R18, **TRAINED, **ONE_CLASS},
    "r18_group": {**R18, **GROUP},
    "r34_frozen_one_class": {**R34, **ONE_CLASS},
    "r34_trained": {**R34, **TRAINED},
    "r34_group": {**R34, **GROUP},
    "r50_frozen_1x1": {**R50, **IN_1X1},
    "r50_frozen_3x3_one_class": {**R50, **IN_3X3, **ONE_CLASS},
    "r50_trained_3x3": {**R50, **IN_3X3, **TRAINED},
    "r50_group_1x1": {**R50, **IN_1X1, **GROUP},
    "r101_frozen_1x1": {**R101, **IN_1X1},
    "r101_frozen_3x3": {**R101, **IN_3X3},
    "r101_trained_1x1": {**R101, **IN_1X1, **TRAINED},
    "r101_group_3x3_one_class": {**R101, **IN_3X3, **GROUP, **ONE_CLASS},
    "x101_32x8d_frozen_3x3": {**X101, **IN_3X3},
    "x101_32x8d_trained_1x1": {**X101, **IN_1X1, **TRAINED},
    "r18_cascade_frozen": {**R18, **CASCADE},
    "r50_cascade_trained_one_class": {**R50, **IN_3X3, **TRAINED, **CASCADE, **ONE_CLASS},
    "r50_cascade_group_1x1": {**R50, **IN_1X1, **GROUP, **CASCADE},
    "x101_32x8d_cascade_frozen_3x3": {**X101, **IN_3X3, **CASCADE},
}
OPTIONS = {
    "r18_bn_freeze_2": {**R18, "MODEL.RESNETS.NORM": "BN", "MODEL.BACKBONE.FREEZE_AT": 2},
    "r18_syncbn": {**R18, "MODEL.RESNETS.NORM": "SyncBN", "MODEL.BACKBONE.FREEZE_AT": 0},
    "other_losses": {
        **R18,
        "MODEL.RPN.BBOX_REG_LOSS_TYPE": "giou",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "ciou",
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
        "MODEL.FPN.FUSE_TYPE": "avg",
        "MODEL.RPN.BOUNDARY_THRESH": 0,
        "MODEL.RPN.CONV_DIMS": [32, -1],
    },
    "smooth_l1_roi_align_v1": {
        **R18,
        "MODEL.RPN.SMOOTH_L1_BETA": 0.5,
        "MODEL.RPN.LOSS_WEIGHT": 2.0,
        "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 0.7,
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1.0,
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 3.0,
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
        "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False,
    },
}
CASES = {**DETECTORS, **OPTIONS}
QUICK = (
    "r18_frozen",
    "r18_trained_one_class",
    "r18_cascade_frozen",
    "r50_group_1x1",
    "other_losses",
)

# Height, width and number of labels of each picture of a batch.
BATCHES = {
    "odd_sizes": [((95, 127), 3), ((61, 103), 1)],
    "one_without_labels": [((64, 96), 0), ((97, 64), 5)],
    "no_labels_at_all": [((65, 99), 0)],
    "three_images": [((64, 64), 2), ((96, 128), 7), ((33, 130), 1)],
}

BARS = {
    "features": 1e-4,  # relative, as all without a unit
    "proposal boxes, px": 0.01,
    "proposal logits": 1e-4,
    "pooled": 1e-4,
    "box head": 1e-4,
    "boxes, px": 0.01,
    "scores, absolute": 1e-4,
    "losses": 1e-4,
    "gradients": 1e-3,
}
"""Below these differences two engines count as one."""

SCALARS_OF_RPN = {"rpn/num_pos_anchors", "rpn/num_neg_anchors"}
SCALARS_OF_HEADS = {
    *("roi_head/num_fg_samples", "roi_head/num_bg_samples"),
    *("fast_rcnn/cls_accuracy", "fast_rcnn/fg_cls_accuracy", "fast_rcnn/false_negative"),
}
SCALARS = SCALARS_OF_RPN | SCALARS_OF_HEADS
"""What Detectron2's Faster R-CNN logs of each step, losses aside."""


@dataclass
class Step:
    """What one step of training gives, by names."""

    losses: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    scalars: dict[str, float]


@dataclass
class Found:
    """What inference gives, from the first stage to the last; a list has an item per image."""

    features: dict[str, torch.Tensor]
    pooled: torch.Tensor
    described: torch.Tensor
    proposals: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    detections: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    classes: list[list[int]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)


def config(engine: Engine, options):
    cfg = engine.get_cfg()
    words = {**BASE, **options}
    cfg.merge_from_list([item for pair in words.items() for item in pair])
    return cfg


def build(engine: Engine, options, seed=7) -> nn.Module:
    torch.manual_seed(seed)
    return engine.build_model(config(engine, options))


def build_pair(options) -> tuple[nn.Module, nn.Module]:
    """Build Detectron2's model and ours with one set of weights, uneven enough to matter."""
    reference, ours = (build(engine, options) for engine in (DETECTRON2, EMBEDDED))
    stir(reference, make_inputs("three_images", 1, DETECTRON2))
    ours.load_state_dict(reference.state_dict(), strict=True)
    return reference, ours


def measure_statistics(norm, inputs):
    """Pre-hook of a batch norm, frozen or not: take over the statistics of what comes in."""
    norm.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
    norm.running_var.copy_(inputs[0].var(dim=(0, 2, 3)))


@torch.no_grad()
def stir(model, inputs):
    """Give norms statistics and heads predictions as uneven as those of a trained model."""
    norms = [each for each in model.modules() if hasattr(each, "running_mean")]
    hooks = [norm.register_forward_pre_hook(measure_statistics) for norm in norms]
    model.eval().backbone(model.preprocess_image(inputs).tensor)
    for hook in hooks:
        hook.remove()
    generator = torch.Generator().manual_seed(11)
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.rand(tensor.shape, generator=generator)
        if name.endswith(("running_var", "norm.weight")):
            tensor.mul_(0.75 + 0.5 * noise)
        elif name.endswith(("running_mean", "norm.bias")):
            tensor.add_(0.2 * (noise - 0.5))
        elif any(part in name for part in ("deltas", "bbox_pred", "cls_score", "objectness")):
            tensor.mul_(20)


def make_inputs(batch: str, num_classes: int, engine: Engine):
    """Draw a batch from its own seed: the same one for each engine."""
    generator = torch.Generator().manual_seed(3)
    inputs = []
    for index, ((height, width), count) in enumerate(BATCHES[batch]):
        limits = torch.tensor([width, height, width, height])
        start = torch.rand(count, 2, generator=generator) * 0.6
        extent = 0.08 + torch.rand(count, 2, generator=generator) * 0.3
        boxes = torch.cat([start, start + extent], dim=1) * limits
        classes = torch.randint(0, num_classes, (count,), generator=generator)
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        labels = engine.instances((height, width), gt_boxes=engine.boxes(boxes), gt_classes=classes)
        entry = {"image": image, "instances": labels, "image_id": index}
        inputs.append({**entry, "height": height * 2 + index, "width": width + 5})
    return inputs


def train_step(model, inputs, engine: Engine, seed=5) -> Step:
    """Compute losses and gradients; the seed fixes which anchors and proposals are drawn."""
    model.train()
    model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    with engine.storage() as storage:
        losses = model(inputs)
    sum(losses.values()).backward()
    return Step(
        {name: loss.detach() for name, loss in losses.items()},
        {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        {name: value for name, (value, _) in storage.latest().items()},
    )


@torch.no_grad()
def detect(model, inputs) -> Found:
    """Run inference stage by stage, then as a whole."""
    model.eval()
    heads = model.roi_heads
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, features, None)
    pooled = heads.box_pooler(
        [features[name] for name in heads.box_in_features],
        [each.proposal_boxes for each in proposals],
    )
    is_cascade = isinstance(heads.box_head, nn.ModuleList)
    found = Found(features, pooled, (heads.box_head[0] if is_cascade else heads.box_head)(pooled))
    for each in proposals:
        found.proposals.append((each.proposal_boxes.tensor, each.objectness_logits))
    for each in (result["instances"] for result in model(inputs)):
        found.detections.append((each.pred_boxes.tensor, each.scores))
        found.classes.append(each.pred_classes.tolist())
        found.sizes.append(each.image_size)
    return found


def relative(ours, reference) -> float:
    """Return the largest difference of a tensor in units of its largest element."""
    assert torch.isfinite(ours).all()
    assert torch.isfinite(reference).all()
    assert ours.shape == reference.shape
    if not reference.numel():
        return 0.0
    return float((ours - reference).abs().max()) / max(float(reference.abs().max()), 1e-8)


def largest(ours, reference) -> float:
    """Return the largest difference of two tensors, in their unit."""
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max()) if reference.numel() else 0.0


def of_all(difference, ours, reference) -> float:
    """Return the largest of the differences by name or position."""
    pairs = (
        [(ours[name], reference[name]) for name in reference]
        if isinstance(reference, dict)
        else zip(ours, reference, strict=True)
    )
    return max((difference(*pair) for pair in pairs), default=0.0)


def differences_of_steps(ours: Step, reference: Step) -> dict[str, float]:
    assert list(ours.losses) == list(reference.losses)
    assert list(ours.gradients) == list(reference.gradients)
    return {
        "losses": of_all(relative, ours.losses, reference.losses),
        "gradients": of_all(relative, ours.gradients, reference.gradients),
    }


def differences_of_found(ours: Found, reference: Found) -> dict[str, float]:
    """Compare two inferences; classes, sizes and counts must be the same.

    A proposal or detection that only one engine has is no small difference: the shapes then tell.
    """
    assert ours.sizes == reference.sizes
    assert ours.classes == reference.classes
    columns = {}
    for stage in ("proposals", "detections"):
        columns[stage] = [
            list(zip(*getattr(each, stage), strict=True)) for each in (ours, reference)
        ]
    proposals, detections = columns["proposals"], columns["detections"]
    return {
        "features": of_all(relative, ours.features, reference.features),
        "proposal boxes, px": of_all(largest, proposals[0][0], proposals[1][0]),
        "proposal logits": of_all(relative, proposals[0][1], proposals[1][1]),
        "pooled": relative(ours.pooled, reference.pooled),
        "box head": relative(ours.described, reference.described),
        "boxes, px": of_all(largest, detections[0][0], detections[1][0]),
        "scores, absolute": of_all(largest, detections[0][1], detections[1][1]),
    }


def beyond_bars(differences: dict[str, float]) -> dict[str, float]:
    """Return the differences that are not below their bar; NaN is below none."""
    return {name: value for name, value in differences.items() if not value < BARS[name]}


NARROW = {
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
}
"""Layers so narrow that a checkpoint has 2 MB."""


def batch_of(iteration: int, num_classes: int, engine: Engine):
    """Return the batch of an iteration: those with labels in turn."""
    labelled = ("odd_sizes", "three_images")
    return make_inputs(labelled[iteration % 2], num_classes, engine)
