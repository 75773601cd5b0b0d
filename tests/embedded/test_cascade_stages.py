"""What passes from one stage of a Cascade R-CNN to the next, by hand."""

import copy

import pytest
import torch
from test_faster_rcnn import make_cfg, make_input

from d2pd.embedded import cascade
from d2pd.embedded.boxes import Boxes
from d2pd.embedded.build import build_model
from d2pd.embedded.events import EventStorage
from d2pd.embedded.instances import Instances
from d2pd.modeling.rcnn_core import RCNNCore
from d2pd.training.weights.matching import match_weights

CASCADE = (
    *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
    *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
)
NAN = float("nan")


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return build_model(make_cfg(*CASCADE))


@pytest.fixture
def model(built):
    return copy.deepcopy(built)


def next_boxes(follow, boxes, size=(8, 9)):
    before = [Instances(size, proposal_boxes=Boxes(boxes))]
    (following,) = follow([torch.tensor(boxes)], before)
    assert following.image_size == size
    return following.proposal_boxes.tensor.tolist()


def test_boxes_are_clipped_between_stages_and_only_training_drops_the_empty():
    boxes = [[-5.0, 1, 20, 30], [10.0, 0, 12, 4], [2.0, 3, 4, 5]]
    clipped = [[0.0, 1, 9, 8], [9.0, 0, 9, 4], [2.0, 3, 4, 5]]
    assert next_boxes(cascade._next_proposals, boxes) == clipped
    assert next_boxes(cascade._next_training_proposals, boxes) == [clipped[0], clipped[2]]


def test_boxes_that_are_not_finite_stop_training_and_go_on_empty_in_inference():
    boxes = [[NAN, 1.0, 5, 6], [2.0, 3, float("inf"), 5], [2.0, 3, 4, 5]]
    with pytest.raises(FloatingPointError, match="2 of 3 boxes"):
        next_boxes(cascade._next_training_proposals, boxes)
    followed = next_boxes(cascade._next_proposals, boxes)
    assert followed == [[0.0, 1, 5, 6], [2.0, 3, 0, 5], [2.0, 3, 4, 5]]


def test_a_region_lost_in_one_stage_is_not_found_again_by_the_next(model, monkeypatch):
    first = model.eval().roi_heads.box_predictor[0]
    predict = first.predict_boxes

    def lose_all_but_one(*arguments):
        (boxes,) = predict(*arguments)
        return [torch.cat([boxes[:1], torch.full_like(boxes[1:], NAN)])]

    with torch.no_grad():
        (before,) = model.inference([make_input()], do_postprocess=False)
        monkeypatch.setattr(first, "predict_boxes", lose_all_but_one)
        (found,) = model.inference([make_input()], do_postprocess=False)  # which drops empty boxes
    assert len(before) > 2
    assert sorted(found.pred_classes.tolist()) == [0, 1]  # of the one region
    assert torch.isfinite(found.scores).all()


@pytest.mark.parametrize("stage", range(3))
def test_nan_in_the_boxes_of_any_stage_empties_detections_of_model_and_core(model, stage):
    image = make_input()["image"]
    core = RCNNCore(model.eval()).eval()
    with torch.no_grad():
        assert core(image[None]).counts.item() > 0
        model.roi_heads.box_predictor[stage].bbox_pred.bias.fill_(NAN)
        assert len(model([{"image": image}])[0]["instances"]) == 0
        assert core(image[None]).counts.item() == 0


@pytest.mark.parametrize("stage", [0, 1])
def test_nan_in_the_boxes_of_a_stage_stops_training_before_the_next(model, stage):
    model.roi_heads.box_predictor[stage].bbox_pred.bias.data.fill_(NAN)
    with EventStorage(), pytest.raises(FloatingPointError, match="boxes hold infinite or NaN"):
        model.train()([make_input()])


def test_nan_in_the_boxes_of_the_last_stage_shows_in_its_loss(model):
    model.roi_heads.box_predictor[2].bbox_pred.bias.data.fill_(NAN)
    with EventStorage():
        losses = model.train()([make_input()])
    assert [name for name, loss in losses.items() if loss.isnan()] == ["loss_box_reg_stage2"]


def gradients(model):
    torch.manual_seed(3)
    model.train().zero_grad(set_to_none=True)
    with EventStorage():
        losses = model([make_input(), make_input(70, 50)])
    sum(loss for name, loss in losses.items() if "_stage" in name).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_three_heads_learn_at_full_rate_and_move_the_features_by_a_third(model, monkeypatch):
    scaled = gradients(model)
    monkeypatch.setattr(cascade, "_scale_gradient", lambda pooled, factor: pooled)
    unscaled = gradients(model)
    assert scaled.keys() == unscaled.keys()
    assert any(name.startswith("backbone.bottom_up.") for name in scaled)
    for name, gradient in scaled.items():
        share = 1.0 if name.startswith("roi_heads.") else 1 / 3
        torch.testing.assert_close(gradient, unscaled[name] * share, rtol=1e-4, atol=1e-7)


def test_a_stage_without_any_box_costs_nothing(model):
    with torch.no_grad():  # the first stage moves all boxes out of the picture
        model.roi_heads.box_predictor[0].bbox_pred.bias[0] = 1e4
    with EventStorage() as storage:
        losses = model.train()([make_input()])
        sum(losses.values()).backward()
    for name in ("loss_cls_stage1", "loss_box_reg_stage1", "loss_cls_stage2"):
        assert losses[name].item() == 0
    assert losses["loss_cls_stage0"] > 0
    assert storage.latest()["stage1/roi_head/num_bg_samples"][0] == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_all_weights_of_a_cascade_mask_rcnn_but_its_mask_head_are_taken(model):
    state = model.state_dict()
    masks = {f"roi_heads.mask_head.{layer}.weight": torch.zeros(1) for layer in ("deconv", "a")}
    shapes = {name: tensor.shape for name, tensor in state.items()}
    match = match_weights({**state, **masks}, shapes)
    assert match.unused == list(masks)
    assert (match.missing, match.renewed, match.matched_fraction) == ([], [], 1.0)
