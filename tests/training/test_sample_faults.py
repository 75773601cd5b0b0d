"""Labels and pixels that would ruin a training: which rule they break, and how that reads."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2pd.d2 import Boxes, Instances
from d2pd.training.culprits.sample_faults import (
    BOX_NOT_FINITE,
    BOX_OUTSIDE_IMAGE,
    BOX_WITHOUT_AREA,
    CLASS_OUT_OF_RANGE,
    PIXELS_NOT_FINITE,
    describe_faults,
    find_faults,
)

NAN = float("nan")
SOUND = (0, 0, 4, 8)


def sample(boxes=(SOUND,), classes=None, name="a.png", image=None, **extra):
    """A sample whose image is 30 pixels wide and 20 high."""
    classes = [0] * len(boxes) if classes is None else classes
    instances = Instances((20, 30))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    image = torch.zeros(3, 20, 30, dtype=torch.uint8) if image is None else image
    return {"file_name": name, "image": image, "instances": instances, **extra}


def rules(*samples, num_classes=1):
    return [fault.rule for fault in find_faults(samples, num_classes)]


def test_sound_batch_has_no_fault_and_an_image_without_objects_neither():
    rim_to_rim = sample(boxes=((0, 0, 30, 20),), image=torch.rand(3, 20, 30))
    assert find_faults([sample(), sample(boxes=()), rim_to_rim], num_classes=1) == []


@pytest.mark.parametrize(
    ("box", "rule"),
    [
        ((0, 0, NAN, 4), BOX_NOT_FINITE),
        ((0, 0, 1e40, 1), BOX_NOT_FINITE),
        ((5, 5, 5, 9), BOX_WITHOUT_AREA),
        ((5, 5, 9, 5), BOX_WITHOUT_AREA),
        ((9, 5, 5, 9), BOX_WITHOUT_AREA),
        ((20, 5, 31, 9), BOX_OUTSIDE_IMAGE),
        ((31, 5, 35, 9), BOX_OUTSIDE_IMAGE),
        ((5, 12, 9, 20.02), BOX_OUTSIDE_IMAGE),
        ((-0.02, 5, 9, 9), BOX_OUTSIDE_IMAGE),
        ((5, -1, 9, 9), BOX_OUTSIDE_IMAGE),
    ],
)
def test_box_breaks_its_rule_at_its_place(box, rule):
    bad = sample(boxes=(SOUND, box), name="set00/bad.png", row=1009)
    (fault,) = find_faults([sample(), bad], num_classes=1)
    assert (fault.index, fault.row, fault.file_name) == (1, 1009, "set00/bad.png")
    assert (fault.rule, fault.box) == (rule, 1)
    torch.testing.assert_close(fault.bbox_xyxy, Boxes([box]).tensor[0].tolist(), equal_nan=True)
    assert "\n" not in fault.message


def test_rim_is_exceeded_only_by_more_than_rounding():
    assert rules(sample(boxes=((-0.005, 0, 30.005, 20.005),))) == []


@pytest.mark.parametrize("label", [-1, 2])
def test_class_out_of_range_names_image_row_and_key(label):
    told = describe_faults(find_faults([sample(classes=[label], row=3)], num_classes=2))
    assert told.startswith(f"a.png (row 3): target box 0 has class {label}, but the model has 2 ")
    assert "MODEL.ROI_HEADS.NUM_CLASSES" in told


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_pixels_that_are_not_finite_are_counted(value):
    image = torch.rand(3, 20, 30)
    image[1, 4, 7] = value
    (fault,) = find_faults([sample(image=image)], num_classes=1)
    assert (fault.rule, fault.box, fault.bbox_xyxy, fault.row) == (PIXELS_NOT_FINITE, *3 * [None])
    assert fault.message.startswith("1 of 1800 pixel values")


def test_all_faults_are_found_a_box_and_its_class_apart():
    image = torch.full((3, 20, 30), NAN)
    bad = sample(boxes=((5, 5, 5, 9), SOUND, (40, 5, 45, 9)), classes=[7, 0, 0], image=image)
    expected = [BOX_WITHOUT_AREA, CLASS_OUT_OF_RANGE, BOX_OUTSIDE_IMAGE, PIXELS_NOT_FINITE]
    assert rules(bad, sample()) == expected
    assert rules(sample(), bad, bad) == expected * 2


def test_faults_are_told_in_one_line_with_the_first_fault_and_the_number_of_others():
    bad = sample(boxes=((5, 5, 5, 9), SOUND, (40, 5, 45, 9)), row=12)
    assert describe_faults(find_faults([sample(name="b.png"), bad], num_classes=1)) == (
        "a.png (row 12): target box 0 [5.0, 5.0, 5.0, 9.0] (XYXY, pixels of the network input) has "
        "no area: cleaning drops such labels; raise DATASETS.MIN_BOX_SIZE, or take the label out "
        "(1 more in this batch)"
    )


def test_centre_outside_is_told_from_a_corner_outside():
    (corner,) = find_faults([sample(boxes=((20, 5, 31, 9),))], 1)
    (centre,) = find_faults([sample(boxes=((29, 5, 40, 9),))], 1)
    assert "reaches outside its image of 30x20 pixels" in corner.message
    assert "has its centre outside its image of 30x20 pixels" in centre.message


@given(st.lists(st.tuples(*4 * [st.integers(-2, 32)]), max_size=5))
def test_box_is_faultless_exactly_when_it_has_area_within_the_image(boxes):
    found = {fault.box for fault in find_faults([sample(boxes=boxes)], 1)}
    expected = {
        number
        for number, (x1, y1, x2, y2) in enumerate(boxes)
        if not (0 <= x1 < x2 <= 30 and 0 <= y1 < y2 <= 20)
    }
    assert found == expected
