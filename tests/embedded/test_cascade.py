import copy

import pytest
import torch
from test_faster_rcnn import make_cfg, make_input

from d2pd.embedded import cascade
from d2pd.embedded.boxes import Boxes
from d2pd.embedded.build import build_model
from d2pd.embedded.cascade import CascadeROIHeads, _scale_gradient
from d2pd.embedded.events import EventStorage
from d2pd.embedded.instances import Instances
from d2pd.errors import ConfigError
from d2pd.modeling.rcnn_core import RCNNCore
from d2pd.training.weights.matching import match_weights

CASCADE = (
    *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
    *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
)
STAGES = range(3)
NAN = float("nan")


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return build_model(make_cfg(*CASCADE))


@pytest.fixture
def model(built):
    return copy.deepcopy(built)


def train_losses(model, inputs):
    with EventStorage() as storage:
        losses = model.train()(inputs)
    return losses, {name: value for name, (value, _) in storage.latest().items()}


def test_parameters_have_detectron2s_names_in_its_order(model):
    names = [name for name in model.state_dict() if name.startswith("roi_heads.")]
    layers = ("box_head.{}.fc1", "box_head.{}.fc2")
    layers = [layer.format(k) for k in STAGES for layer in layers]
    layers += [f"box_predictor.{k}.{part}" for k in STAGES for part in ("cls_score", "bbox_pred")]
    assert names == [f"roi_heads.{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    assert model.roi_heads.box_predictor[0].bbox_pred.out_features == 4


def test_each_stage_reports_its_losses_and_scalars(model):
    losses, scalars = train_losses(model, [make_input(), make_input(70, 50)])
    stages = [f"{name}_stage{k}" for k in STAGES for name in ("loss_cls", "loss_box_reg")]
    assert list(losses) == [*stages, "loss_rpn_cls", "loss_rpn_loc"]
    assert all(torch.isfinite(loss) for loss in losses.values())
    samples = {"roi_head/num_fg_samples", "roi_head/num_bg_samples"}
    assert samples <= set(scalars)
    for k in STAGES:
        assert f"stage{k}/fast_rcnn/cls_accuracy" in scalars
        assert k == 0 or {f"stage{k}/{name}" for name in samples} <= set(scalars)


def test_every_parameter_gets_a_gradient(model):
    losses, _ = train_losses(model, [make_input()])
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_features_get_a_share_of_the_gradient_and_heads_all_of_it():
    features = torch.ones(2, requires_grad=True)
    weight = torch.ones(2, requires_grad=True)
    scaled = _scale_gradient(features * 1.0, 0.25)
    (scaled * weight * 8.0).sum().backward()
    assert features.grad.tolist() == [2.0, 2.0]
    assert weight.grad.tolist() == [8.0, 8.0]
    with torch.no_grad():  # nothing to scale
        assert torch.equal(_scale_gradient(features, 0.25), features)


def test_later_stages_call_less_an_object(model):
    heads = model.roi_heads
    proposals = [
        Instances(
            (100, 100),
            # IoU with the label: 1, .65, .55, 0
            proposal_boxes=Boxes(
                [[0.0, 0, 20, 20], [0.0, 0, 20, 13], [0.0, 0, 20, 11], [50.0, 50, 60, 60]]
            ),
        )
    ]
    targets = [
        Instances((100, 100), gt_boxes=Boxes([[0.0, 0, 20, 20]]), gt_classes=torch.tensor([1]))
    ]
    expected = [[1, 1, 1, 2], [1, 1, 2, 2], [1, 2, 2, 2]]
    for stage, classes in enumerate(expected):
        with EventStorage() as storage:
            heads._label(proposals, targets, stage)
        assert proposals[0].gt_classes.tolist() == classes
        assert storage.latest()[f"stage{stage}/roi_head/num_fg_samples"][0] == 3 - stage
        assert storage.latest()[f"stage{stage}/roi_head/num_bg_samples"][0] == 1 + stage
        assert proposals[0].gt_boxes.tensor.tolist() == [[0.0, 0, 20, 20]] * 4


def test_scores_are_the_mean_of_the_stages_and_boxes_those_of_the_last(model, monkeypatch):
    heads = model.eval().roi_heads
    inputs = [make_input()]
    probabilities, boxes = [], []
    for predictor in heads.box_predictor:
        torch.nn.init.normal_(predictor.cls_score.weight, std=1.0)
        torch.nn.init.normal_(predictor.bbox_pred.weight, std=0.1)
        probs_of, boxes_of = predictor.predict_probs, predictor.predict_boxes
        monkeypatch.setattr(
            predictor, "predict_probs", lambda *a, f=probs_of: probabilities.append(f(*a)) or f(*a)
        )
        monkeypatch.setattr(
            predictor, "predict_boxes", lambda *a, f=boxes_of: boxes.append(f(*a)) or f(*a)
        )
    with torch.no_grad():
        found = model(inputs)[0]["instances"]
    assert len(probabilities) == len(boxes) == 3
    means = torch.stack([of_stage[0] for of_stage in probabilities]).mean(dim=0)[:, :-1]
    assert len(found) > 3
    limits = torch.tensor([96.0, 64.0, 96.0, 64.0])
    last = boxes[-1][0].clamp(min=torch.zeros(4), max=limits)
    for score, class_, box in zip(
        found.scores, found.pred_classes, found.pred_boxes.tensor, strict=True
    ):
        is_here = ((last - box).abs() < 1e-4).all(dim=1)
        assert ((means[is_here, class_] - score).abs() < 1e-6).any()
    assert not torch.allclose(boxes[0][0], boxes[-1][0], atol=0.1)


def test_images_without_labels_train_on_background(model):
    losses, scalars = train_losses(model, [make_input(boxes=())])
    sum(losses.values()).backward()
    for k in STAGES:
        assert losses[f"loss_box_reg_stage{k}"] == 0
        assert k == 0 or scalars[f"stage{k}/roi_head/num_fg_samples"] == 0


def test_no_proposals_give_no_detections(model):
    model.eval().proposal_generator.min_box_size = 1e6
    with torch.no_grad():
        assert len(model([make_input()])[0]["instances"]) == 0


def test_nan_in_a_head_stops_training_and_empties_detections(model):
    torch.nn.init.constant_(model.roi_heads.box_head[0].fc1.bias, float("nan"))
    with EventStorage(), pytest.raises(FloatingPointError, match="boxes hold infinite or NaN"):
        model.train()([make_input()])
    with torch.no_grad():
        assert len(model.eval()([make_input()])[0]["instances"]) == 0


def test_labels_are_needed_in_training(model):
    proposals = [Instances((64, 96), proposal_boxes=Boxes([[0.0, 0, 9, 9]]))]
    with pytest.raises(ValueError, match="need 'instances' with labels"):
        model.train().roi_heads(None, {}, proposals)


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (
            ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False),
            "CLS_AGNOSTIC_BBOX_REG is False: .* set it to True",
        ),
        (
            ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5, 0.6]),
            "has 2 IOUS and 3 BBOX_REG_WEIGHTS: give one of each for every stage",
        ),
        (
            ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.4, 0.5, 0.6]),
            r"IOUS starts with 0.4 and MODEL.ROI_HEADS.IOU_THRESHOLDS is \[0.5\]",
        ),
    ],
)
def test_keys_that_do_not_fit_are_told(pair, told):
    with pytest.raises(ConfigError, match=told):
        build_model(make_cfg(*CASCADE, *pair))


def test_the_number_of_stages_is_that_of_the_configuration():
    weights = [[10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0]]
    options = (
        *("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5, 0.7]),
        *("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", weights),
    )
    heads = build_model(make_cfg(*CASCADE, *options)).roi_heads
    assert isinstance(heads, CascadeROIHeads)
    assert len(heads.stages) == len(heads.proposal_matchers) == 2
    assert [list(p.box2box_transform.weights) for _, p in heads.stages] == weights


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
