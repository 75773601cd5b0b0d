"""Numbers of a tiny Faster R-CNN whose parameters and images follow from formulas.

Nothing is drawn at random except where a test says so, hence every number is a property of the
engine. Tolerances allow for other builds of torch, not for other arithmetic.
"""

import math
from typing import Any

import pytest
import torch
from contract_detector import ALL_SAMPLED, image, inputs, tiny, waves
from contract_recording import Contract
from torch import Tensor, nn

from d2pd.d2 import Boxes, CfgNode, EventStorage, Instances, get_event_storage


def summary(value: Tensor) -> dict[str, Any]:
    """Return shape, mean, mean size and some numbers of a tensor."""
    flat = value.detach().double().flatten()
    picked = flat[:: max(len(flat) // 5, 1)][:6]
    return {
        "shape": list(value.shape),
        "mean": float(flat.mean()),
        "mean size": float(flat.abs().mean()),
        "some": picked,
    }


def test_anchors(contract: Contract, cfg: CfgNode) -> None:
    model = tiny(cfg)
    generator = model.proposal_generator.anchor_generator
    sizes = ((16, 24), (8, 12), (4, 6), (2, 3), (1, 2))
    found = generator([torch.zeros(1, 8, *size) for size in sizes])
    # Ratio 1, first cell of p2: centred on the corner, not rounded.
    assert found[0].tensor[1].tolist() == [-4.0, -4.0, 4.0, 4.0]
    assert [len(each) for each in found] == [3 * height * width for height, width in sizes]
    contract(
        {
            "counts": [len(each) for each in found],
            "first": [each.tensor[:4] for each in found],
            "last": [each.tensor[-1] for each in found],
            "in all": generator.num_anchors,
        },
        rtol=1e-6,
        atol=1e-4,
    )


def test_images_become_one_batch(contract: Contract, cfg: CfgNode) -> None:
    model = tiny(cfg)
    batch = model.preprocess_image(inputs(labels=False))
    assert batch.tensor.shape == (2, 3, 64, 96)
    mean = torch.tensor(cfg.MODEL.PIXEL_MEAN)
    first_pixel = image(60, 90, "a")[:, 0, 0] - mean
    torch.testing.assert_close(batch.tensor[0, :, 0, 0], first_pixel)
    contract({"sizes": batch.image_sizes, "batch": summary(batch.tensor)}, rtol=1e-5)


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "GN"])
@pytest.mark.parametrize("stride", ["1x1", "3x3"])
def test_features(contract: Contract, cfg: CfgNode, norm: str, stride: str) -> None:
    # Four channels do not divide by the 32 groups of a group norm.
    wide = {
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 32,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 32,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
    }
    model = tiny(
        cfg,
        **{"MODEL.RESNETS.NORM": norm, "MODEL.RESNETS.STRIDE_IN_1X1": stride == "1x1"},
        **(wide if norm == "GN" else {}),
    ).eval()
    with torch.no_grad():
        features = model.backbone(model.preprocess_image(inputs()).tensor)
    assert list(features) == ["p2", "p3", "p4", "p5", "p6"]
    assert all(torch.isfinite(each).all() and each.abs().max() > 0 for each in features.values())
    contract({name: summary(each) for name, each in features.items()}, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("nms_thresh", [0.7, 0.2])
def test_proposals(contract: Contract, cfg: CfgNode, nms_thresh: float) -> None:
    """The low threshold shows that maps do not suppress each other's proposals."""
    settings = {"MODEL.RPN.NMS_THRESH": nms_thresh, "MODEL.RPN.POST_NMS_TOPK_TEST": 100}
    model = tiny(cfg, **settings).eval()
    with torch.no_grad():
        images = model.preprocess_image(inputs(labels=False))
        proposals, losses = model.proposal_generator(images, model.backbone(images.tensor), None)
    assert losses == {}
    for each, size in zip(proposals, images.image_sizes, strict=True):
        assert len(each) <= 100
        assert each.image_size == size
        assert each.objectness_logits.diff().max() <= 0
        assert bool(each.proposal_boxes.inside_box(size, 1e-3).all())
    contract(
        {
            "fields": list(proposals[0].get_fields()),
            "counts": [len(each) for each in proposals],
            "logits": [each.objectness_logits for each in proposals],
            "boxes": [each.proposal_boxes.tensor[:8] for each in proposals],
        },
        rtol=1e-3,
        atol=1e-2,
    )


def test_regions_of_all_sizes(contract: Contract, cfg: CfgNode) -> None:
    """Each is pooled from the map that its size stands for; 112, 224 and 448 px are the bounds."""
    pooler = tiny(cfg).roi_heads.box_pooler
    maps = [
        waves(2 * side * side, f"p{level}").float().reshape(1, 2, side, side)
        for level, side in zip((2, 3, 4, 5), (160, 80, 40, 20), strict=True)
    ]
    sides = [6.0, 30.5, 111.9, 112.1, 150.0, 223.9, 224.1, 300.0, 447.0, 449.0, 600.0]
    boxes = [[5.25, 7.5, 5.25 + side, 7.5 + side] for side in sides]
    boxes.append([-20.0, -10.0, 90.0, 130.0])
    pooled = pooler(maps, [Boxes(torch.tensor(boxes))])
    assert pooled.shape == (len(boxes), 2, 7, 7)
    contract({"pooled": pooled[:, :, ::3, ::3]}, rtol=1e-3, atol=1e-5)


def test_predictions_of_huge_boxes(contract: Contract, cfg: CfgNode) -> None:
    """A predicted growth ends at 1000 / 16, before it overflows."""
    model = tiny(cfg, **{"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}).eval()
    predictor = model.roi_heads.box_predictor
    proposals = Instances(
        (4000, 4000), proposal_boxes=Boxes([[1000.0, 1000.0, 1010.0, 1020.0]] * 3)
    )
    # In units of a fifth: no growth, twofold, without end.
    deltas = torch.tensor([[0.0] * 4, [0, 0, 5 * math.log(2), 0], [0, 0, 500, 500]])
    boxes = predictor.predict_boxes((torch.zeros(3, 3), deltas), [proposals])[0]
    widths = (boxes[:, 2] - boxes[:, 0]).tolist()
    assert widths == pytest.approx([10, 20, 10 * 1000 / 16])
    contract({"boxes": boxes}, rtol=1e-5)


def test_detections(contract: Contract, cfg: CfgNode) -> None:
    model = tiny(cfg).eval()
    with torch.no_grad():
        scaled = [each["instances"] for each in model(inputs(labels=False))]
        raw = model.inference(inputs(labels=False), do_postprocess=False)
    # The first picture is twice as large as what the network gets.
    torch.testing.assert_close(scaled[0].pred_boxes.tensor, raw[0].pred_boxes.tensor * 2)
    assert scaled[0].image_size == (120, 180)
    for each in scaled:
        assert each.scores.diff().max() <= 0
        assert each.scores.min() > 0.05
    contract(
        {
            "fields": list(scaled[0].get_fields()),
            "counts": [len(each) for each in scaled],
            "boxes": [each.pred_boxes.tensor[:6] for each in scaled],
            "scores": [each.scores[:6] for each in scaled],
            "classes": [each.pred_classes[:6] for each in scaled],
            "of each class": [each.pred_classes.bincount(minlength=2) for each in scaled],
        },
        rtol=1e-3,
        atol=1e-2,
    )


def losses_of(model: nn.Module) -> tuple[dict[str, Any], EventStorage]:
    with EventStorage() as storage:
        losses = model.train()(inputs())
        sum(losses.values()).backward()
        get_event_storage()
    return losses, storage


def observed_training(model: nn.Module) -> dict[str, Any]:
    losses, storage = losses_of(model)
    gradients = {
        name: float(each.grad.double().norm())
        for name, each in model.named_parameters()
        if each.grad is not None
    }
    chosen = [name for name in gradients if not name.startswith("backbone.bottom_up")]
    chosen += [name for name in gradients if "res5.0" in name]
    return {
        "losses": {name: float(each.detach()) for name, each in losses.items()},
        "scalars": {name: value for name, (value, _) in storage.latest().items()},
        "gradients": {name: gradients[name] for name in chosen},
        "number of gradients": len(gradients),
    }


def test_losses_and_gradients(contract: Contract, cfg: CfgNode) -> None:
    observed = observed_training(tiny(cfg, **ALL_SAMPLED))
    assert set(observed["losses"]) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
    assert all(math.isfinite(value) and value > 0 for value in observed["losses"].values())
    contract(observed, rtol=1e-3, atol=1e-6)


def test_losses_of_drawn_samples(contract: Contract, cfg: CfgNode) -> None:
    """Anchors and proposals are drawn with the same calls of the generator."""
    settings = {"MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16}
    model = tiny(cfg, **settings)
    torch.manual_seed(5)
    observed = observed_training(model)
    scalars = observed["scalars"]
    assert scalars["rpn/num_pos_anchors"] + scalars["rpn/num_neg_anchors"] == 32
    # The second image has fewer proposals than places.
    assert scalars["roi_head/num_fg_samples"] + scalars["roi_head/num_bg_samples"] <= 16
    contract({"losses": observed["losses"], "scalars": scalars}, rtol=1e-3, atol=1e-6)


def test_smooth_losses_and_other_kinds(contract: Contract, cfg: CfgNode) -> None:
    observed = {}
    kinds = {
        "smooth": {"MODEL.RPN.SMOOTH_L1_BETA": 0.5, "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5},
        "giou": {
            "MODEL.RPN.BBOX_REG_LOSS_TYPE": "giou",
            "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "giou",
        },
        "weighted": {
            "MODEL.RPN.LOSS_WEIGHT": 2.0,
            "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 3.0,
            "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 5.0,
        },
        "agnostic": {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True},
    }
    for name, settings in kinds.items():
        losses, _ = losses_of(tiny(cfg.clone(), **ALL_SAMPLED, **settings))
        observed[name] = {key: float(value.detach()) for key, value in losses.items()}
    contract(observed, rtol=1e-3, atol=1e-6)
