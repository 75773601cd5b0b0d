import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2pd.embedded.boxes import Boxes, BoxMode, pairwise_iou
from d2pd.embedded.image_list import ImageList
from d2pd.embedded.instances import Instances
from d2pd.embedded.nms import batched_nms

coordinate = st.integers(-64, 64).map(lambda n: n / 4)
side = st.integers(1, 64).map(lambda n: n / 4)
xywh = st.tuples(coordinate, coordinate, side, side)


@given(st.lists(xywh, min_size=1, max_size=5))
def test_xywh_and_back_is_the_identity(boxes):
    boxes_xywh = torch.tensor(boxes)
    boxes_xyxy = BoxMode.convert(boxes_xywh, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert torch.equal(BoxMode.convert(boxes_xyxy, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS), boxes_xywh)


@given(st.lists(xywh, min_size=1, max_size=5), st.lists(xywh, min_size=1, max_size=5))
def test_iou_is_symmetric_within_zero_and_one_and_one_with_itself(first, second):
    one, other = (
        Boxes(BoxMode.convert(torch.tensor(boxes), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
        for boxes in (first, second)
    )
    iou = pairwise_iou(one, other)
    assert torch.equal(iou, pairwise_iou(other, one).T)
    assert ((iou >= 0) & (iou <= 1)).all()
    assert torch.equal(pairwise_iou(one, one).diagonal(), torch.ones(len(one)))


def test_iou_by_hand():
    one = Boxes([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    other = Boxes([[1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 4.0, 2.0], [0.0, 0.0, 1.0, 2.0]])
    expected = torch.tensor([[1 / 7, 0.0, 0.5], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(pairwise_iou(one, other), expected)


@pytest.mark.parametrize("make", [list, tuple])
def test_a_single_box_keeps_its_type(make):
    assert BoxMode.convert(make([1, 2, 3, 5]), 0, 1) == make([1, 2, 2, 3])


def test_arrays_keep_their_dtype_and_are_not_modified():
    box = np.array([[5, 5, 10, 10]])
    out = BoxMode.convert(box, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    assert out.dtype == box.dtype
    assert out.tolist() == [[5, 5, 5, 5]]
    assert box.tolist() == [[5, 5, 10, 10]]


def test_rotated_boxes_are_enclosed():
    rotated = torch.tensor([[50.0, 50.0, 30.0, 20.0, 90.0]])
    upright = BoxMode.convert(rotated, BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    torch.testing.assert_close(upright, torch.tensor([[40.0, 35.0, 60.0, 65.0]]))
    assert BoxMode.convert([50, 50, 30, 20], BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS) == [
        65,
        60,
        30,
        20,
        0,
    ]


def test_clip_area_and_nonempty_by_hand():
    boxes = Boxes([[-5.0, 2.0, 4.0, 30.0], [11.0, 0.0, 15.0, 3.0]])
    assert boxes.area().tolist() == [252.0, 12.0]
    boxes.clip((20, 10))
    assert boxes.tensor.tolist() == [[0.0, 2.0, 4.0, 20.0], [10.0, 0.0, 10.0, 3.0]]
    assert boxes.nonempty().tolist() == [True, False]
    assert boxes.nonempty(threshold=4.0).tolist() == [False, False]
    assert boxes.get_centers().tolist() == [[2.0, 11.0], [10.0, 1.5]]


def test_inside_box_allows_the_threshold():
    boxes = Boxes([[-1.0, 0.0, 9.0, 9.0], [0.0, 0.0, 10.0, 9.0]])
    assert boxes.inside_box((10, 10)).tolist() == [False, False]
    assert boxes.inside_box((10, 10), 1).tolist() == [True, True]


def test_clip_of_a_nan_says_how_many_boxes():
    boxes = Boxes([[0.0, 0.0, float("nan"), 1.0], [0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(FloatingPointError, match="1 of 2 boxes"):
        boxes.clip((4, 4))


def test_no_boxes_have_four_columns():
    assert Boxes([]).tensor.shape == (0, 4)
    assert Boxes.cat([]).tensor.shape == (0, 4)
    assert pairwise_iou(Boxes([]), Boxes(torch.ones(3, 4))).shape == (0, 3)


@pytest.mark.parametrize("bad", [torch.ones(4), torch.ones(2, 5)])
def test_boxes_refuse_other_shapes(bad):
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        Boxes(bad)


def test_relative_modes_are_not_converted():
    with pytest.raises(NotImplementedError, match="XYXY_REL"):
        BoxMode.convert([0, 0, 1, 1], BoxMode.XYXY_REL, BoxMode.XYXY_ABS)


def make_instances():
    return Instances(
        (8, 9), gt_boxes=Boxes(torch.arange(12.0).view(3, 4)), gt_classes=torch.tensor([4, 5, 6])
    )


def test_indexing_selects_in_every_field():
    picked = make_instances()[torch.tensor([True, False, True])]
    assert picked.gt_classes.tolist() == [4, 6]
    assert picked.gt_boxes.tensor[:, 0].tolist() == [0.0, 8.0]
    assert picked.image_size == (8, 9)
    assert make_instances()[-1].gt_classes.tolist() == [6]
    with pytest.raises(IndexError):
        make_instances()[3]


def test_fields_must_agree_in_length():
    with pytest.raises(ValueError, match="2 entries, but there are 3"):
        make_instances().scores = torch.ones(2)


def test_unknown_field_is_named():
    with pytest.raises(AttributeError, match="'scores'"):
        _ = make_instances().scores


def test_cat_joins_tensors_boxes_and_lists():
    one, other = make_instances(), make_instances()
    one.names, other.names = list("abc"), list("def")
    joined = Instances.cat([one, other])
    assert joined.names == list("abcdef")
    assert joined.gt_classes.tolist() == [4, 5, 6, 4, 5, 6]
    assert len(joined.gt_boxes) == 6


def test_instances_survive_pickle_and_deepcopy():
    for again in (pickle.loads(pickle.dumps(make_instances())), copy.deepcopy(make_instances())):
        assert again.gt_classes.tolist() == [4, 5, 6]


def test_images_are_padded_right_and_below():
    images = ImageList.from_tensors([torch.ones(3, 5, 7), torch.ones(3, 9, 2)], 4, pad_value=-1.0)
    assert images.tensor.shape == (2, 3, 12, 8)
    assert images.image_sizes == [(5, 7), (9, 2)]
    assert images.tensor[0].sum() == 3 * 5 * 7 - 3 * (12 * 8 - 5 * 7)
    assert torch.equal(images[1], torch.ones(3, 9, 2))


def test_square_padding_overrides():
    constraints = {"square_size": 16, "size_divisibility": 0}
    batch = ImageList.from_tensors([torch.ones(1, 3, 4)], 32, padding_constraints=constraints)
    assert batch.tensor.shape == (1, 1, 16, 16)


def test_nms_works_within_groups():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 10.0]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    assert batched_nms(boxes, scores, torch.tensor([0, 0, 1]), 0.5).tolist() == [1, 2]
