import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d2pd.data.targets import clip, is_seen, make_targets

SIZE = (60, 80)
IMAGE = torch.zeros(1, dtype=torch.uint8).expand(3, *SIZE)
COORDINATES = st.floats(-200, 200, width=32)


def label(category_id: int = 0, **more: int) -> dict:
    return {"category_id": category_id, "ignore": 0, "iscrowd": 0, **more}


def targets(boxes, annotations, min_box_size=1.0, min_visible=None):
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return make_targets(IMAGE, rows, annotations, min_box_size, min_visible)


def test_rows_say_which_annotation_a_label_is():
    boxes = [[0, 0, 9, 9], [3, 3, 3.5, 40], [5, 5, 20, 20], [0, 0, 5, 5], [50, 5, 90, 70]]
    annotations = [label(1, ignore=1), label(2), label(3), label(-1, iscrowd=1), label(4)]
    found = targets(boxes, annotations)
    assert found["instances"].gt_rows.tolist() == [2, 4]
    assert found["instances"].gt_rows.dtype == torch.int64
    assert found["instances"].gt_classes.tolist() == [3, 4]
    assert found["instances"].gt_boxes.tensor.tolist() == [[5, 5, 20, 20], [50, 5, 80, 60]]
    assert found["instances"].image_size == SIZE
    assert found["ignore_boxes"].tolist() == [[0, 0, 9, 9], [0, 0, 5, 5]]


@pytest.mark.parametrize(
    ("box", "share", "is_centre_inside"),
    [
        ([0, 0, 80, 60], 1.0, True),
        ([-10, 0, 30, 60], 0.75, True),
        ([-20, 0, 20, 60], 0.5, True),  # the centre on the rim counts as inside
        ([-21, 0, 20, 60], 20 / 41, False),
        ([60, -20, 100, 20], 0.25, True),
        ([70, 50, 89, 69], 100 / 361, True),
        ([70, 50, 91, 69], 100 / 399, False),
        ([-60, -60, 140, 120], 4800 / 36000, True),
        ([100, 0, 120, 9], 0.0, False),
    ],
)
def test_visible_share_and_centre_by_hand(box, share, is_centre_inside):
    row = torch.tensor([box], dtype=torch.float32)
    assert is_seen(row, SIZE, max(0, share - 1e-5)).tolist() == [is_centre_inside]
    assert is_seen(row, SIZE, min(1, share + 1e-5)).tolist() == [is_centre_inside and share == 1]


def test_labels_are_judged_before_they_are_clipped_and_only_where_that_is_asked():
    boxes = [[-30, 0, 20, 60], [-10, 0, 20, 60], [-60, -60, 140, 120]]
    annotations = [label(0), label(1), label(2)]
    kept = targets(boxes, annotations, min_visible=0.25)["instances"]
    assert kept.gt_rows.tolist() == [1]
    assert kept.gt_boxes.tensor.tolist() == [[0, 0, 20, 60]]
    assert targets(boxes, annotations, min_visible=0)["instances"].gt_rows.tolist() == [1, 2]
    assert targets(boxes, annotations)["instances"].gt_rows.tolist() == [0, 1, 2]


def test_regions_stay_while_something_of_them_is_there():
    boxes = [[-300, 0, 5, 60], [79.5, 0, 300, 60], [90, 0, 300, 60]]
    found = targets(boxes, [label(ignore=1)] * 3, min_box_size=0, min_visible=0.9)
    assert found["ignore_boxes"].tolist() == [[0, 0, 5, 60], [79.5, 0, 80, 60]]
    assert len(found["instances"]) == 0


@pytest.mark.parametrize("min_visible", [None, 0.0, 0.25])
def test_boxes_without_area_or_beyond_all_numbers_never_pass(min_visible):
    boxes = [[5, 5, 5, 9], [math.nan, 0, 5, 5], [9, 9, 5, 5], [200, 5, 300, 9]]
    found = targets(boxes, [label()] * 4, min_box_size=0, min_visible=min_visible)
    assert len(found["instances"]) == 0
    if min_visible is not None:
        endless = [[0, 0, math.inf, 9], [-math.inf, 0, math.inf, 9]]
        found = targets(endless, [label()] * 2, min_box_size=0, min_visible=min_visible)
        assert len(found["instances"]) == 0


def test_without_boxes_there_are_empty_targets_of_the_right_types():
    found = targets([], [])
    assert found["instances"].gt_boxes.tensor.shape == (0, 4)
    assert found["instances"].gt_classes.dtype == torch.int64
    assert found["instances"].gt_rows.dtype == torch.int64
    assert found["ignore_boxes"].shape == (0, 4)


@settings(deadline=None, max_examples=200)
@example([(0.0, 1e-10, 1.0, 1.0, 0, False, False)], 1.0, None)  # in float32 1 px high
@given(
    rows=st.lists(
        st.tuples(*[COORDINATES] * 4, st.integers(0, 9), st.booleans(), st.booleans()), max_size=8
    ),
    min_box_size=st.floats(0.25, 10, width=32),
    min_visible=st.none() | st.floats(0, 1),
)
def test_targets_are_those_of_a_plain_loop(rows, min_box_size, min_visible):
    height, width = SIZE
    boxes, regions, expected = [], [], []
    annotations = []
    for x1, y1, x2, y2, category, ignore, crowd in rows:
        boxes.append([x1, y1, x2, y2])
        annotations.append(label(category, ignore=int(ignore), iscrowd=int(crowd)))
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    for row, (box, annotation) in enumerate(zip(tensor, annotations, strict=True)):
        cut = [
            min(max(float(v), 0), limit) for v, limit in zip(box, (width, height) * 2, strict=True)
        ]
        sides = np.float32(cut[2:]) - np.float32(cut[:2])
        if min(sides) < min_box_size:
            continue
        if annotation["ignore"] or annotation["iscrowd"]:
            regions.append(cut)
        elif min_visible is None or bool(is_seen(box[None], SIZE, min_visible)):
            expected.append((cut, annotation["category_id"], row))
    found = make_targets(IMAGE, tensor, annotations, min_box_size, min_visible)
    instances = found["instances"]
    got = zip(
        instances.gt_boxes.tensor.tolist(),
        instances.gt_classes.tolist(),
        instances.gt_rows.tolist(),
        strict=True,
    )
    assert list(got) == expected
    assert found["ignore_boxes"].tolist() == regions


@settings(deadline=None, max_examples=200)
@given(st.tuples(*[COORDINATES] * 4), st.floats(0, 1))
def test_visible_share_is_that_of_a_plain_computation(corners, min_visible):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    area = (x2 - x1) * (y2 - y1)
    seen = max(0, min(x2, 80) - max(x1, 0)) * max(0, min(y2, 60) - max(y1, 0))
    is_inside = 0 <= x1 + x2 <= 160 and 0 <= y1 + y2 <= 120
    if area > 1e-3 and abs(seen / area - min_visible) > 1e-4:
        box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float64)
        expected = is_inside and seen / area >= min_visible
        assert is_seen(box, SIZE, min_visible).tolist() == [expected]


def test_clip_cuts_to_the_image():
    boxes = torch.tensor([[-5.0, -6, 100, 90], [10, 20, 30, 40]])
    assert clip(boxes, SIZE).tolist() == [[0, 0, 80, 60], [10, 20, 30, 40]]
