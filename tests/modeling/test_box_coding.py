import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder

from d2pd.modeling.box_coding import decode, encode

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@st.composite
def boxes(draw, number=4):
    coordinate = st.floats(-200, 800, width=32)
    side = st.floats(1, 600, width=32)
    rows = [[draw(coordinate), draw(coordinate), draw(side), draw(side)] for _ in range(number)]
    xywh = torch.tensor(rows)
    return torch.cat((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), dim=1)


def within_reach(gt_boxes, anchors):
    """Decoding is bounded: a box is at most 62.5 times as large as its anchor."""
    return (gt_boxes[:, 2:] - gt_boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2]) < 60


@given(boxes(), boxes())
def test_decoding_inverts_encoding(gt_boxes, anchors):
    found = decode(encode(gt_boxes, anchors, WEIGHTS), anchors, WEIGHTS)

    near = within_reach(gt_boxes, anchors).all(1)
    torch.testing.assert_close(found[near], gt_boxes[near], rtol=1e-4, atol=2e-2)


@given(boxes(), boxes())
def test_equals_torchvision(gt_boxes, anchors):
    coder = BoxCoder(WEIGHTS)
    deltas = encode(gt_boxes, anchors, WEIGHTS)

    torch.testing.assert_close(deltas, coder.encode_single(gt_boxes, anchors), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        decode(deltas, anchors, WEIGHTS),
        coder.decode_single(deltas, anchors),
        rtol=1e-5,
        atol=1e-2,
    )


def test_an_anchor_is_no_deltas_from_itself():
    anchor = torch.tensor([[10.0, 20, 40, 90]])

    assert encode(anchor, anchor, WEIGHTS).tolist() == [[0, 0, 0, 0]]
    assert decode(torch.zeros(1, 4), anchor, WEIGHTS).tolist() == anchor.tolist()


def test_deltas_by_hand():
    anchor = torch.tensor([[0.0, 0, 20, 40]])
    box = torch.tensor([[12.0, 16, 22, 56]])  # centre 17, 36; 10 wide, 40 high

    deltas = encode(box, anchor, WEIGHTS)

    expected = torch.tensor([[10 * 7 / 20, 10 * 16 / 40, 5 * math.log(0.5), 0]])
    torch.testing.assert_close(deltas, expected)


def test_a_batch_of_deltas_goes_with_the_anchors_of_one_image():
    torch.manual_seed(0)
    anchors = torch.tensor([[0.0, 0, 20, 40], [5, 5, 10, 10], [-3, 0, 3, 9]])
    deltas = torch.randn(2, 3, 4)

    batch = decode(deltas, anchors, WEIGHTS)

    assert batch.shape == (2, 3, 4)
    assert torch.equal(batch[1], decode(deltas[1], anchors, WEIGHTS))


def test_huge_log_sizes_stay_finite():
    anchor = torch.tensor([[0.0, 0, 16, 16]])

    box = decode(torch.tensor([[0.0, 0, 1e6, 1e6]]), anchor, WEIGHTS)

    torch.testing.assert_close(box, torch.tensor([[-492.0, -492, 508, 508]]))


@pytest.mark.parametrize("box", [[5.0, 5, 5, 30], [5.0, 30, 20, 30]])
def test_a_box_without_area_gives_infinite_deltas(box):
    deltas = encode(torch.tensor([box]), torch.tensor([[0.0, 0, 20, 40]]), WEIGHTS)

    assert not deltas.isfinite().all()


def test_gradients_of_decoding_reach_the_deltas():
    deltas = torch.zeros(1, 4, requires_grad=True)

    decode(deltas, torch.tensor([[0.0, 0, 20, 40]]), WEIGHTS).sum().backward()

    assert deltas.grad.tolist() == [[4, 8, 0, 0]]
