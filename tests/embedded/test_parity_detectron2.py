"""One state dict in both engines: the same proposals, losses, gradients and detections.

Runs where Detectron2 is installed next to d2pd; the largest differences are printed with ``-s``.
"""

import pytest
import torch

detectron2 = pytest.importorskip("detectron2", reason="compares with an installed Detectron2")
from detectron2.config import get_cfg as d2_get_cfg  # noqa: E402
from detectron2.modeling import build_model as d2_build_model  # noqa: E402
from detectron2.structures import Boxes as D2Boxes  # noqa: E402
from detectron2.structures import Instances as D2Instances  # noqa: E402
from detectron2.utils.events import EventStorage as D2EventStorage  # noqa: E402

import d2pd.embedded.rcnn  # noqa: E402, F401
from d2pd.embedded.boxes import Boxes  # noqa: E402
from d2pd.embedded.build import build_model  # noqa: E402
from d2pd.embedded.config import get_cfg  # noqa: E402
from d2pd.embedded.events import EventStorage  # noqa: E402
from d2pd.embedded.instances import Instances  # noqa: E402

BASE = {
    "MODEL.DEVICE": "cpu",
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
NORM, FREEZE = "MODEL.RESNETS.NORM", "MODEL.BACKBONE.FREEZE_AT"
CASES = {
    "r18_frozen": R18,
    "r18_bn_one_class": {**R18, NORM: "BN", FREEZE: 0, "MODEL.ROI_HEADS.NUM_CLASSES": 1},
    "r18_bn_freeze_2": {**R18, NORM: "BN", FREEZE: 2},
    "r18_syncbn": {**R18, NORM: "SyncBN", FREEZE: 0},
    "r50_frozen_stride_1x1": {"MODEL.RESNETS.STRIDE_IN_1X1": True},
    "r50_frozen_stride_3x3_one_class": {
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    },
    "r50_bn": {NORM: "BN", FREEZE: 0, "MODEL.RESNETS.STRIDE_IN_1X1": False},
    "r50_gn": {
        NORM: "GN",
        FREEZE: 0,
        "MODEL.FPN.NORM": "GN",
        "MODEL.ROI_BOX_HEAD.NORM": "GN",
        "MODEL.ROI_BOX_HEAD.NUM_CONV": 2,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    },
    "r50_groups": {"MODEL.RESNETS.NUM_GROUPS": 32, "MODEL.RESNETS.WIDTH_PER_GROUP": 4},
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
QUICK = ("r18_frozen", "r18_bn_one_class", "r50_gn", "other_losses")
SIZES_AND_BOXES = {
    "odd_sizes": [((127, 161), 3), ((95, 203), 1)],
    "one_without_labels": [((128, 160), 0), ((97, 64), 5)],
    "no_labels_at_all": [((101, 99), 0)],
    "three_images": [((64, 64), 2), ((160, 128), 7), ((33, 190), 1)],
}


def set_keys(cfg, options):
    cfg.merge_from_list([item for pair in options.items() for item in pair])
    return cfg


def both_models(options):
    """Both engines built from the same seed, weights made uneven enough to matter."""
    built = []
    for make_cfg, build in ((d2_get_cfg, d2_build_model), (get_cfg, build_model)):
        cfg = set_keys(make_cfg(), {**BASE, **options})
        torch.manual_seed(7)
        built.append(build(cfg))
    return built


def measure_statistics(norm, inputs):
    """Pre-hook of a frozen norm: take over the statistics of what comes in."""
    norm.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
    norm.running_var.copy_(inputs[0].var(dim=(0, 2, 3)))


@torch.no_grad()
def stir(model, inputs):
    """Give norms statistics and heads predictions as uneven as those of a trained model."""
    frozen = [each for each in model.modules() if type(each).__name__ == "FrozenBatchNorm2d"]
    hooks = [norm.register_forward_pre_hook(measure_statistics) for norm in frozen]
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


def make_inputs(case, num_classes, boxes_class, instances_class):
    generator = torch.Generator().manual_seed(3)
    inputs = []
    for index, ((height, width), count) in enumerate(SIZES_AND_BOXES[case]):
        limits = torch.tensor([width, height, width, height])
        start = torch.rand(count, 2, generator=generator) * 0.6
        extent = 0.08 + torch.rand(count, 2, generator=generator) * 0.3
        boxes = torch.cat([start, start + extent], dim=1) * limits
        classes = torch.randint(0, num_classes, (count,), generator=generator)
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        labels = instances_class((height, width), gt_boxes=boxes_class(boxes), gt_classes=classes)
        inputs.append(
            {
                "image": image,
                "instances": labels,
                "height": height * 2 + index,
                "width": width + 5,
                "image_id": index,
            }
        )
    return inputs


def train_step(model, inputs, storage_class):
    model.train()
    model.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    with storage_class() as storage:
        losses = model(inputs)
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    scalars = {name: value for name, (value, _) in storage.latest().items()}
    return {name: loss.detach() for name, loss in losses.items()}, gradients, scalars


def relative(ours, reference):
    """Largest difference of a tensor in units of its largest element."""
    assert torch.isfinite(ours).all()
    assert torch.isfinite(reference).all()
    if not reference.numel():
        return 0.0
    return float((ours - reference).abs().max()) / max(float(reference.abs().max()), 1e-8)


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_gives_the_same_weights_in_the_same_order(case):
    reference, ours = both_models(CASES[case])
    expected, got = reference.state_dict(), ours.state_dict()
    assert list(got) == list(expected)
    for name in expected:
        assert torch.equal(got[name], expected[name]), name
    trainable = [name for name, p in reference.named_parameters() if p.requires_grad]
    assert [name for name, p in ours.named_parameters() if p.requires_grad] == trainable


def check_case(case, images):
    options = CASES[case]
    reference, ours = both_models(options)
    num_classes = {**BASE, **options}["MODEL.ROI_HEADS.NUM_CLASSES"]
    d2_inputs = make_inputs(images, num_classes, D2Boxes, D2Instances)
    inputs = make_inputs(images, num_classes, Boxes, Instances)
    stir(reference, d2_inputs)
    ours.load_state_dict(reference.state_dict(), strict=True)

    expected_losses, expected_grads, expected_scalars = train_step(
        reference, d2_inputs, D2EventStorage
    )
    losses, grads, scalars = train_step(ours, inputs, EventStorage)
    assert list(losses) == list(expected_losses)
    assert scalars == pytest.approx(expected_scalars)
    assert list(grads) == list(expected_grads)
    loss_difference = max(relative(losses[name], expected_losses[name]) for name in losses)
    grad_difference = max(relative(grads[name], expected_grads[name]) for name in grads)

    reference.eval(), ours.eval()
    with torch.no_grad():
        expected_proposals, proposals = (
            model.proposal_generator(
                model.preprocess_image(batch),
                model.backbone(model.preprocess_image(batch).tensor),
                None,
            )[0]
            for model, batch in ((reference, d2_inputs), (ours, inputs))
        )
        expected_found, found = reference(d2_inputs), ours(inputs)
    box_difference = score_difference = 0.0
    count = 0
    pairs = [
        (one.proposal_boxes, one.objectness_logits, other.proposal_boxes, other.objectness_logits)
        for one, other in zip(proposals, expected_proposals, strict=True)
    ]
    for one, other in zip(found, expected_found, strict=True):
        one, other = one["instances"], other["instances"]
        assert one.image_size == other.image_size
        assert one.pred_classes.tolist() == other.pred_classes.tolist()
        pairs.append((one.pred_boxes, one.scores, other.pred_boxes, other.scores))
        count += len(other)
    for boxes, scores, expected_boxes, expected_scores in pairs:
        assert len(boxes) == len(expected_boxes)
        if len(boxes):
            box_difference = max(
                box_difference, float((boxes.tensor - expected_boxes.tensor).abs().max())
            )
            score_difference = max(score_difference, float((scores - expected_scores).abs().max()))
    print(
        f"\n{case} {images}: {count} detections, box {box_difference:.2e} px, score "
        f"{score_difference:.2e}, loss {loss_difference:.2e}, gradient {grad_difference:.2e}"
    )
    assert count >= 5
    assert box_difference < 0.01
    assert score_difference < 1e-4
    assert loss_difference < 1e-4
    assert grad_difference < 1e-3


def test_five_steps_of_training_end_at_the_same_weights():
    options = CASES["r18_bn_one_class"]
    ends = []
    for model, classes in zip(
        both_models(options),
        ((D2Boxes, D2Instances, D2EventStorage), (Boxes, Instances, EventStorage)),
        strict=True,
    ):
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9, weight_decay=1e-4)
        inputs = make_inputs("odd_sizes", 1, *classes[:2])
        for _ in range(5):
            train_step(model, inputs, classes[2])
            optimizer.step()
        ends.append(model.state_dict())
    assert any((ends[0][name] - value).abs().max() > 1e-3 for name, value in start.items())
    difference = max(relative(ends[1][name].float(), ends[0][name].float()) for name in ends[0])
    print(f"\nfive steps: largest relative difference of a tensor {difference:.2e}")
    assert difference < 1e-4


@pytest.mark.parametrize("images", SIZES_AND_BOXES)
@pytest.mark.parametrize("case", QUICK)
def test_training_and_detection_agree(case, images):
    check_case(case, images)


@pytest.mark.slow
@pytest.mark.parametrize("images", SIZES_AND_BOXES)
@pytest.mark.parametrize("case", [case for case in CASES if case not in QUICK])
def test_training_and_detection_agree_in_every_variant(case, images):
    check_case(case, images)
