import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import d2pd.embedded.rcnn  # noqa: F401  registers the model
from d2pd.embedded.box_head import FastRCNNConvFCHead
from d2pd.embedded.box_regression import Box2BoxTransform
from d2pd.embedded.boxes import Boxes
from d2pd.embedded.build import META_ARCH_REGISTRY, build_model
from d2pd.embedded.config import get_cfg
from d2pd.embedded.events import EventStorage
from d2pd.embedded.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference_single_image
from d2pd.embedded.instances import Instances
from d2pd.embedded.matcher import Matcher
from d2pd.embedded.postprocessing import detector_postprocess
from d2pd.embedded.proposal_utils import (
    GT_LOGIT,
    add_ground_truth_to_proposals,
    find_top_proposals,
    select_and_decode,
)
from d2pd.embedded.roi_heads import StandardROIHeads
from d2pd.embedded.rpn import RPN
from d2pd.embedded.rpn_head import StandardRPNHead
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError

UNIT = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))


def make_cfg(*pairs):
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
            *("MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.NORM", "BN"),
            *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
            *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.FPN.OUT_CHANNELS", 16),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64], [128], [256]]),
            *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"]),
            *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 100, "MODEL.RPN.PRE_NMS_TOPK_TEST", 100),
            *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 50, "MODEL.RPN.POST_NMS_TOPK_TEST", 30),
            *("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.NUM_CLASSES", 2),
            *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
            *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32),
            *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
            *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 2),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
            *pairs,
        ]
    )
    return cfg


def make_input(height=64, width=96, boxes=((10.0, 8.0, 40.0, 60.0),)):
    labels = Instances(
        (height, width),
        gt_boxes=Boxes(list(boxes)),
        gt_classes=torch.ones(len(boxes), dtype=torch.int64),
    )
    generator = torch.Generator().manual_seed(height)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    return {"image": image, "instances": labels}


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return build_model(make_cfg())


@pytest.fixture
def model(built):
    return copy.deepcopy(built)


def test_training_returns_four_finite_losses_and_scalars(model):
    with EventStorage() as storage:
        losses = model.train()([make_input(), make_input(70, 50)])
    assert list(losses) == ["loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"]
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert {
        "rpn/num_pos_anchors",
        "rpn/num_neg_anchors",
        "roi_head/num_fg_samples",
        "roi_head/num_bg_samples",
        "fast_rcnn/cls_accuracy",
        "fast_rcnn/fg_cls_accuracy",
        "fast_rcnn/false_negative",
    } == set(storage.latest())


def test_every_parameter_gets_a_gradient(model):
    with EventStorage():
        sum(model.train()([make_input()]).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_images_without_labels_train_on_background(model):
    with EventStorage() as storage:
        losses = model.train()([make_input(boxes=())])
        sum(losses.values()).backward()
    assert losses["loss_box_reg"] == 0
    assert losses["loss_rpn_loc"] == 0
    assert storage.latest()["roi_head/num_fg_samples"][0] == 0


def test_a_few_steps_on_one_image_lower_the_loss(model):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    history = []
    with EventStorage():
        for _ in range(12):
            loss = sum(model.train()([make_input()]).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
    assert history[-1] < 0.8 * history[0]


def test_detections_are_scaled_to_the_size_asked_for(model):
    small = make_input()
    large = {**small, "height": 128, "width": 192}
    with torch.no_grad():
        one, two = (model.eval()([each])[0]["instances"] for each in (small, large))
    assert len(one) > 0
    assert two.image_size == (128, 192)
    torch.testing.assert_close(two.pred_boxes.tensor, one.pred_boxes.tensor * 2)
    assert torch.equal(one.scores, one.scores.sort(descending=True).values)


def test_detections_do_not_depend_on_the_other_images_of_the_batch(model):
    inputs = [make_input(), make_input(64, 96, boxes=())]
    with torch.no_grad():
        together = [each["instances"] for each in model.eval()(inputs)]
        alone = [model([each])[0]["instances"] for each in inputs]
    for one, other in zip(together, alone, strict=True):
        # Another batch size adds up in another order.
        torch.testing.assert_close(
            one.pred_boxes.tensor, other.pred_boxes.tensor, rtol=1e-4, atol=1e-2
        )
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)


def test_no_proposals_give_no_detections(model):
    model.eval().proposal_generator.min_box_size = 1e6
    with torch.no_grad():
        assert len(model([make_input()])[0]["instances"]) == 0


def test_nan_in_the_weights_stops_training_and_empties_detections(model):
    torch.nn.init.constant_(model.proposal_generator.rpn_head.anchor_deltas.bias, float("nan"))
    with EventStorage(), pytest.raises(FloatingPointError, match="training has diverged"):
        model.train()([make_input(boxes=())])
    with torch.no_grad():
        assert len(model.eval()([make_input()])[0]["instances"]) == 0


def test_training_without_labels_is_refused(model):
    with pytest.raises(ValueError, match="'instances'"):
        model.train()([{"image": make_input()["image"]}])


@pytest.mark.parametrize(
    "pair",
    [
        ("MODEL.META_ARCHITECTURE", "RetinaNet"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
        ("MODEL.RPN.HEAD_NAME", "Other"),
        ("MODEL.RPN.IN_FEATURES", ["p9"]),
        ("MODEL.RPN.CONV_DIMS", [0]),
        ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads"),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["p7"]),
        ("MODEL.ROI_BOX_HEAD.NAME", "Other"),
        ("MODEL.ROI_BOX_HEAD.NUM_FC", 0),
    ],
)
def test_what_the_engine_does_not_have_is_named_by_key(pair):
    with pytest.raises(ConfigError, match=pair[0].rsplit(".", 1)[0]):
        build_model(make_cfg(*pair))


def test_models_are_built_by_name_from_the_configuration_alone():
    @META_ARCH_REGISTRY.register()
    class OnlyForThisTest(torch.nn.Linear):
        def __init__(self, cfg):
            super().__init__(1, cfg.MODEL.ROI_HEADS.NUM_CLASSES)

    assert build_model(make_cfg("MODEL.META_ARCHITECTURE", "OnlyForThisTest")).out_features == 2


def test_the_top_anchors_of_each_level_are_decoded():
    anchors = [Boxes([[0.0, 0, 4, 4], [4.0, 0, 8, 4], [8.0, 0, 12, 4]]), Boxes([[0.0, 0, 8, 8]])]
    logits = [torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[0.0]])]
    deltas = [torch.zeros(1, 3, 4), torch.tensor([[[0.5, 0.0, 0.0, 0.0]]])]
    boxes, scores, levels = select_and_decode(anchors, logits, deltas, UNIT, 2)
    assert scores.tolist() == [[3.0, 2.0, 0.0]]
    assert levels.tolist() == [0, 0, 1]
    assert boxes.tolist() == [[[4.0, 0, 8, 4], [8.0, 0, 12, 4], [4.0, 0, 12, 8]]]


def test_proposals_are_clipped_filtered_and_suppressed_within_levels():
    boxes = torch.tensor(
        [[-5.0, 0, 10, 10], [0.0, 0, 10, 10], [0.0, 0, 10, 10], [30.0, 0, 40, 10], [0.0, 0, 1, 9]]
    )
    logits = torch.tensor([1.0, 2.0, 0.5, 9.0, 0.0])
    levels = torch.tensor([0, 0, 1, 0, 0])
    found = find_top_proposals(boxes, logits, levels, (20, 20), 0.7, 10, 2.0, training=False)
    assert found.objectness_logits.tolist() == [2.0, 0.5]
    assert found.proposal_boxes.tensor.tolist() == [[0.0, 0, 10, 10], [0.0, 0, 10, 10]]


def test_infinite_proposals_are_dropped_in_inference_only():
    boxes = torch.tensor([[0.0, 0, float("inf"), 10], [0.0, 0, 10, 10]])
    arguments = (boxes, torch.zeros(2), torch.zeros(2, dtype=torch.int64), (20, 20), 0.7, 10, 0.0)
    assert len(find_top_proposals(*arguments, training=False)) == 1
    with pytest.raises(FloatingPointError, match="1 of 2 boxes"):
        find_top_proposals(*arguments, training=True)


def test_labels_join_the_proposals_with_a_probability_just_under_one():
    proposals = Instances(
        (20, 20), proposal_boxes=Boxes([[0.0, 0, 5, 5]]), objectness_logits=torch.tensor([0.1])
    )
    (joined,) = add_ground_truth_to_proposals([make_input()["instances"]], [proposals])
    assert joined.proposal_boxes.tensor[1].tolist() == [10.0, 8.0, 40.0, 60.0]
    assert joined.objectness_logits[1].item() == pytest.approx(GT_LOGIT) == pytest.approx(23.02585)
    assert set(joined.get_fields()) == {"proposal_boxes", "objectness_logits"}


def make_heads(**kwargs):
    predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=4), box2box_transform=UNIT, num_classes=3, **kwargs
    )
    return StandardROIHeads(
        num_classes=3,
        batch_size_per_image=4,
        positive_fraction=0.5,
        proposal_matcher=Matcher([0.5], [0, 1]),
        box_in_features=["p2"],
        box_pooler=torch.nn.Identity(),
        box_head=torch.nn.Identity(),
        box_predictor=predictor,
    )


def test_proposals_are_labelled_by_the_box_they_overlap():
    targets = Instances(
        (50, 50),
        gt_boxes=Boxes([[0.0, 0, 10, 10], [20.0, 20, 40, 40]]),
        gt_classes=torch.tensor([2, 0]),
    )
    proposals = Instances(
        (50, 50),
        proposal_boxes=Boxes([[0.0, 0, 10, 4], [20.0, 20, 40, 38]]),
        objectness_logits=torch.zeros(2),
    )
    heads = make_heads()
    heads.batch_size_per_image, heads.positive_fraction = 10, 1.0
    with EventStorage() as storage:
        (sampled,) = heads.label_and_sample_proposals([proposals], [targets])
    by_box = {
        tuple(box.tolist()): (cls.item(), gt.tolist())
        for box, cls, gt in zip(
            sampled.proposal_boxes, sampled.gt_classes, sampled.gt_boxes, strict=True
        )
    }
    assert by_box == {
        (0.0, 0, 10, 4): (3, [0.0, 0, 10, 10]),
        (20.0, 20, 40, 38): (0, [20.0, 20, 40, 40]),
        (0.0, 0, 10, 10): (2, [0.0, 0, 10, 10]),
        (20.0, 20, 40, 40): (0, [20.0, 20, 40, 40]),
    }
    assert storage.latest()["roi_head/num_fg_samples"][0] == 3
    assert storage.latest()["roi_head/num_bg_samples"][0] == 1


def test_second_stage_losses_by_hand():
    predictor = make_heads(loss_weight={"loss_box_reg": 3.0}).box_predictor
    proposals = Instances(
        (50, 50),
        proposal_boxes=Boxes([[0.0, 0, 10, 10], [0.0, 0, 20, 20]]),
        gt_boxes=Boxes([[1.0, 0, 11, 10], [0.0, 0, 10, 10]]),
        gt_classes=torch.tensor([1, 3]),
    )
    logits = torch.zeros(2, 4)
    deltas = torch.zeros(2, 12)
    deltas[0, 4:8] = torch.tensor([0.1, 0.5, 0.0, 0.0])  # class 1; the target is .1, 0, 0, 0
    deltas[0, :4] = 100.0  # class 0 is not this object's: must not count
    with EventStorage() as storage:
        losses = predictor.losses((logits, deltas), [proposals])
    assert losses["loss_cls"].item() == pytest.approx(torch.log(torch.tensor(4.0)).item())
    assert losses["loss_box_reg"].item() == pytest.approx(3.0 * 0.5 / 2)
    assert storage.latest()["fast_rcnn/cls_accuracy"][0] == 0
    assert storage.latest()["fast_rcnn/false_negative"][0] == 0


def test_rpn_losses_by_hand():
    anchors = [Boxes([[0.0, 0, 10, 10], [10.0, 0, 20, 10], [20.0, 0, 30, 10], [0.0, 0, 4, 4]])]
    rpn = RPN(
        in_features=["p2"],
        head=torch.nn.Identity(),
        anchor_generator=torch.nn.Identity(),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1]),
        box2box_transform=UNIT,
        batch_size_per_image=8,
        positive_fraction=0.5,
        pre_nms_topk=(1, 1),
        post_nms_topk=(1, 1),
        loss_weight={"loss_rpn_loc": 2.0},
    )
    labels = [torch.tensor([1, 0, -1, 0], dtype=torch.int8)]
    target = [torch.tensor([[2.0, 0, 12, 10]] * 4)]
    logits = [torch.tensor([[0.0, 0.0, 50.0, 0.0]])]
    with EventStorage() as storage:
        losses = rpn.losses(anchors, logits, labels, [torch.zeros(1, 4, 4)], target)
    assert losses["loss_rpn_cls"].item() == pytest.approx(3 * 0.6931472 / 8)
    assert losses["loss_rpn_loc"].item() == pytest.approx(2.0 * 0.2 / 8)
    assert storage.latest()["rpn/num_pos_anchors"][0] == 1
    assert storage.latest()["rpn/num_neg_anchors"][0] == 2


def test_the_rpn_head_orders_predictions_by_location_then_anchor():
    head = StandardRPNHead(1, num_anchors=2)
    torch.nn.init.dirac_(head.conv.weight)
    torch.nn.init.ones_(head.objectness_logits.weight)
    torch.nn.init.ones_(head.anchor_deltas.weight)
    head.objectness_logits.bias.data = torch.tensor([0.0, 0.5])
    head.anchor_deltas.bias.data = torch.arange(8.0) / 10
    (logits,), (deltas,) = head([torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])])
    assert logits.tolist() == [[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]]
    torch.testing.assert_close(deltas[0, 3], torch.tensor([2.4, 2.5, 2.6, 2.7]))


def test_several_hidden_convolutions_are_numbered():
    assert [n for n, _ in StandardRPNHead(8, 3, [16, -1]).named_parameters()][:3] == [
        "conv.conv0.weight",
        "conv.conv0.bias",
        "conv.conv1.weight",
    ]


def test_detections_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10, 50, 50, 70, 70], [0.0, 0, 10, 9, 0, 0, 5, 5]])
    scores = torch.tensor([[0.6, 0.3, 0.1], [0.7, 0.05, 0.25]])
    found, regions = fast_rcnn_inference_single_image(boxes, scores, (60, 60), 0.05, 0.5, 100)
    assert found.pred_classes.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.3]))
    assert found.pred_boxes.tensor.tolist() == [[0.0, 0, 10, 9], [50.0, 50, 60, 60]]
    assert regions.tolist() == [1, 0]
    best, _ = fast_rcnn_inference_single_image(boxes, scores, (60, 60), 0.05, 0.5, 1)
    assert best.pred_classes.tolist() == [0]


def test_one_box_serves_all_classes():
    found, _ = fast_rcnn_inference_single_image(
        torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.5, 0.4, 0.1]]), (9, 9), 0.2, 0.5, -1
    )
    assert found.pred_classes.tolist() == [0, 1]
    assert found.pred_boxes.tensor.tolist() == [[0.0, 0, 8, 8]] * 2


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_postprocessing_back_and_forth_is_the_identity(height, width):
    results = Instances((20, 30), pred_boxes=Boxes([[3.0, 2.0, 20.0, 18.0]]))
    there = detector_postprocess(results, height, width)
    back = detector_postprocess(there, 20, 30)
    torch.testing.assert_close(back.pred_boxes.tensor, results.pred_boxes.tensor)
    assert results.pred_boxes.tensor.tolist() == [[3.0, 2.0, 20.0, 18.0]]


def test_postprocessing_drops_boxes_outside():
    results = Instances(
        (20, 20), proposal_boxes=Boxes([[25.0, 2, 30, 8], [0.0, 0, 9, 9]]), scores=torch.ones(2)
    )
    assert len(detector_postprocess(results, 20, 20)) == 1


def test_the_box_head_tells_its_output_shape():
    pooled = ShapeSpec(channels=8, height=7, width=7)
    flat = FastRCNNConvFCHead(pooled, conv_dims=[32], fc_dims=[16, 4], conv_norm="GN")
    assert flat.output_shape == ShapeSpec(channels=4)
    assert flat(torch.zeros(3, 8, 7, 7)).shape == (3, 4)
    conv = FastRCNNConvFCHead(pooled, conv_dims=[4], fc_dims=[])
    assert conv.output_shape == ShapeSpec(channels=4, height=7, width=7)
