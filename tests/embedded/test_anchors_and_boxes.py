import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2pd.embedded.anchor_generator import DefaultAnchorGenerator, cell_anchors
from d2pd.embedded.box_regression import SCALE_CLAMP, Box2BoxTransform, box_regression_loss
from d2pd.errors import ConfigError

length = st.integers(4, 400).map(float)
corner = st.integers(-200, 200).map(float)
box = st.tuples(corner, corner, length, length).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@given(st.lists(st.tuples(box, box), min_size=1, max_size=6))
def test_applying_the_deltas_between_boxes_gives_the_target(pairs):
    src, target = (torch.tensor(boxes) for boxes in zip(*pairs, strict=True))
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0), scale_clamp=10.0)
    again = transform.apply_deltas(transform.get_deltas(src, target), src)
    torch.testing.assert_close(again, target, atol=2e-3, rtol=1e-5)


@given(box)
def test_a_box_relative_to_itself_has_zero_deltas(one):
    boxes = torch.tensor([one])
    assert Box2BoxTransform((1.0, 1.0, 1.0, 1.0)).get_deltas(boxes, boxes).abs().max() == 0


@given(st.floats(8, 512), st.floats(0.25, 4))
def test_an_anchor_has_the_area_and_the_ratio_asked_for(size, ratio):
    x1, y1, x2, y2 = cell_anchors([size], [ratio])[0].tolist()
    assert (x2 - x1) * (y2 - y1) == pytest.approx(size**2, rel=1e-4)
    assert (y2 - y1) / (x2 - x1) == pytest.approx(ratio, rel=1e-4)
    assert (x1 + x2, y1 + y2) == (0, 0)


def test_anchors_by_hand():
    generator = DefaultAnchorGenerator(
        sizes=[[32], [64]], aspect_ratios=[[0.25, 1.0]], strides=[4, 8], offset=0.0
    )
    fine, coarse = generator([torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 1)])
    # 32 pixels at a ratio of 0.25: 64 wide, 16 high
    assert fine.tensor.tolist() == [
        [-32.0, -8.0, 32.0, 8.0],
        [-16.0, -16.0, 16.0, 16.0],
        [-28.0, -8.0, 36.0, 8.0],
        [-12.0, -16.0, 20.0, 16.0],
    ]
    assert coarse.tensor.tolist() == [[-64.0, -16.0, 64.0, 16.0], [-32.0, -32.0, 32.0, 32.0]]
    assert generator.num_anchors == [2, 2]


def test_rows_come_before_columns_and_the_offset_counts_in_strides():
    generator = DefaultAnchorGenerator(sizes=[[2]], aspect_ratios=[[1.0]], strides=[10], offset=0.5)
    (anchors,) = generator([torch.zeros(1, 1, 2, 2)])
    assert anchors.get_centers().tolist() == [[5.0, 5.0], [15.0, 5.0], [5.0, 15.0], [15.0, 15.0]]


def test_anchors_stay_out_of_checkpoints():
    generator = DefaultAnchorGenerator(sizes=[[32]], aspect_ratios=[[1.0]], strides=[4])
    assert generator.state_dict() == {}


def test_number_of_anchor_lists_must_fit():
    with pytest.raises(ConfigError, match=r"SIZES has 2 lists for 3 feature maps"):
        DefaultAnchorGenerator(sizes=[[1], [2]], aspect_ratios=[[1.0]], strides=[4, 8, 16])


def test_deltas_by_hand():
    src = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    target = torch.tensor([[5.0, 10.0, 25.0, 20.0]])
    # centres (5, 10) and (15, 15); sizes (10, 20) and (20, 10)
    expected = torch.tensor([[10 * 1.0, 10 * 0.25, 5 * math.log(2), -5 * math.log(2)]])
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(transform.get_deltas(src, target), expected)


def test_growth_is_limited():
    deltas = torch.tensor([[0.0, 0.0, 50.0, 50.0]])
    grown = Box2BoxTransform((1.0, 1.0, 1.0, 1.0)).apply_deltas(
        deltas, torch.tensor([[-8.0, -8.0, 8.0, 8.0]])
    )
    torch.testing.assert_close(grown, torch.tensor([[-500.0, -500.0, 500.0, 500.0]]))
    assert pytest.approx(1000 / 16) == math.exp(SCALE_CLAMP)


def test_every_class_has_its_own_box():
    deltas = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
    boxes = Box2BoxTransform((1.0, 1.0, 1.0, 1.0)).apply_deltas(
        deltas, torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    )
    assert boxes.tolist() == [[0.0, 0.0, 4.0, 2.0, 4.0, 0.0, 8.0, 2.0]]


@pytest.mark.parametrize("width", [0.0, -3.0, float("nan")])
def test_a_source_box_without_width_is_an_error(width):
    src = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, width, 4.0]])
    with pytest.raises(FloatingPointError, match="1 of 2 anchors or proposals"):
        Box2BoxTransform((1.0, 1.0, 1.0, 1.0)).get_deltas(src, src)


def test_l1_loss_by_hand_and_smooth_inside_beta():
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    deltas = torch.tensor([[0.5, -2.0, 0.0, 0.0]])
    assert box_regression_loss(transform, boxes, deltas, boxes).item() == 2.5
    smooth = box_regression_loss(transform, boxes, deltas, boxes, smooth_l1_beta=1.0)
    assert smooth.item() == 0.5 * 0.25 + 1.5


@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou", "diou", "ciou"])
def test_a_perfect_prediction_costs_nothing_and_no_boxes_neither(loss_type):
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    boxes = torch.tensor([[0.0, 0.0, 4.0, 6.0]])
    for rows in (slice(None), slice(0)):
        loss = box_regression_loss(
            transform, boxes[rows], torch.zeros(1, 4)[rows], boxes[rows], loss_type
        )
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_unknown_loss_lists_the_known():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 6.0]])
    with pytest.raises(ConfigError, match="'l3', allowed are smooth_l1, giou, diou, ciou"):
        box_regression_loss(Box2BoxTransform((1, 1, 1, 1)), boxes, boxes, boxes, "l3")
