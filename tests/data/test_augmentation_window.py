import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from d2pd.data.augmentation.sizes import FixedSize, ShortestEdge
from d2pd.data.augmentation.window import (
    IoUCrop,
    LookThrough,
    ResizedCrop,
    Window,
    ZoomOut,
    see_through,
)

PICTURE = (100, 200)
WHOLE = Window(0, 0, *PICTURE)
NONE = torch.zeros(0, 4)


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def overlap(window: Window, box: list[float]) -> float:
    """Return the IoU, by hand."""
    sides = [
        min(window.left + window.width, box[2]) - max(window.left, box[0]),
        min(window.top + window.height, box[3]) - max(window.top, box[1]),
    ]
    shared = max(0, sides[0]) * max(0, sides[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return shared / (window.height * window.width + area - shared)


def holds_centre(window: Window, box: list[float]) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    inside = window.left < x < window.left + window.width
    return inside and window.top < y < window.top + window.height


def test_zoom_out_happens_every_other_time_and_holds_the_whole_last_window():
    torch.manual_seed(0)
    windows = [ZoomOut(4.0)(Window(10, -20, 50, 80), PICTURE, NONE) for _ in range(400)]
    zoomed = [window for window in windows if window.height > 50]
    assert 160 < len(zoomed) < 240
    for window in zoomed:
        assert window.top <= 10
        assert window.left <= -20
        assert window.top + window.height >= 60
        assert window.left + window.width >= 60
        assert abs(window.width - 1.6 * window.height) <= 2
    assert max(window.height for window in zoomed) > 180
    assert max(window.height for window in zoomed) <= 200
    assert {"top", "bottom"} == {"top" if w.top > -w.height / 4 else "bottom" for w in zoomed}


def test_zoom_out_by_1_never_changes_anything():
    assert {ZoomOut(1.0)(WHOLE, PICTURE, NONE) for _ in range(20)} == {WHOLE}


def test_iou_crop_holds_a_labels_centre_and_overlaps_it_by_a_drawn_amount():
    torch.manual_seed(0)
    labels = [[20.0, 10, 120, 90], [150, 40, 160, 60]]
    found = Counter()
    for _ in range(300):
        window = IoUCrop()(WHOLE, PICTURE, torch.tensor(labels))
        assert window.top >= 0
        assert window.left >= 0
        assert window.top + window.height <= 100
        assert window.left + window.width <= 200
        if window != WHOLE:
            assert 0.5 <= window.width / window.height <= 2
            assert window.height >= 29
            assert window.width >= 59
            reached = [overlap(window, box) for box in labels if holds_centre(window, box)]
            assert reached
            found[math.floor(max(reached) * 10)] += 1
        else:
            found["whole"] += 1
    assert found["whole"] > 20
    assert sum(found[tenth] for tenth in (7, 8, 9)) > 40  # what the options .7 and .9 ask for


def test_iou_crop_knows_no_regions_and_nothing_outside_the_picture():
    """A label is too small for any overlap but 0: a region around it must not help."""
    small = torch.tensor([[100.0, 50, 102, 52]])
    outside = torch.tensor([[-300.0, 0, 90, 100]])
    torch.manual_seed(0)
    for _ in range(50):
        window = IoUCrop()(WHOLE, PICTURE, torch.cat([small, outside]))
        assert window == WHOLE or holds_centre(window, small[0].tolist())
    assert {IoUCrop()(WHOLE, PICTURE, outside) for _ in range(30)} == {WHOLE}


def test_without_labels_the_picture_stays_whole():
    assert {IoUCrop()(WHOLE, PICTURE, NONE) for _ in range(30)} == {WHOLE}


def test_iou_crop_is_as_torchvisions():
    """The same share of whole pictures and the same mean area, on the same labels."""
    boxes = torch.tensor([[20.0, 10, 120, 90], [150, 40, 160, 60]])
    torch.manual_seed(0)
    ours = [IoUCrop()(WHOLE, PICTURE, boxes) for _ in range(800)]
    labels = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=PICTURE)
    image = tv_tensors.Image(torch.zeros(3, *PICTURE, dtype=torch.uint8))
    theirs = [v2.RandomIoUCrop().make_params([image, labels]) for _ in range(800)]
    areas = [p["height"] * p["width"] if p else 20000 for p in theirs]
    our_areas = [w.height * w.width for w in ours]
    wholes = [sum(area == 20000 for area in kind) for kind in (areas, our_areas)]
    assert abs(wholes[0] - wholes[1]) < 90
    mean = sum(our_areas) / 800
    assert abs(mean - sum(areas) / 800) < 700


def test_resized_crop_draws_area_and_shape_and_stays_around_or_inside():
    torch.manual_seed(0)
    draw = ResizedCrop((0.25, 4.0), (0.8, 1.2))
    windows = [draw(WHOLE, PICTURE, NONE) for _ in range(600)]
    shares = [w.height * w.width / 20000 for w in windows]
    shapes = [w.width / w.height / 2 for w in windows]
    assert 0.24 < min(shares) < 0.3
    assert 3.3 < max(shares) < 4.1
    assert 240 < sum(share > 1 for share in shares) < 360
    assert 0.78 < min(shapes) < 0.83
    assert 1.15 < max(shapes) < 1.22
    for w in windows:
        for start, length, limit in ((w.top, w.height, 100), (w.left, w.width, 200)):
            assert min(0, limit - length) <= start <= max(0, limit - length)


def test_resized_crop_after_a_zoom_out_never_misses_the_picture():
    torch.manual_seed(0)
    far = Window(-900, 0, 1000, 2000)
    for _ in range(200):
        window = ResizedCrop((0.01, 0.02), (1, 1))(far, PICTURE, NONE)
        assert 0 <= window.top + window.height / 2 <= 100
        assert 0 <= window.left + window.width / 2 <= 200


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (WHOLE, (100, 200)),
        (Window(3, 4, 50, 150), (50, 150)),
        (Window(-50, -100, 200, 400), (100, 200)),
        (Window(-50, -100, 200, 200), (100, 100)),
        (Window(0, 0, 1, 4000), (1, 200)),
    ],
)
def test_canvas_is_never_larger_than_the_picture(window, expected):
    assert window.within(PICTURE) == expected


def test_window_inside_is_crop_and_resize():
    image = noise(100, 200)
    shown = see_through(image, Window(10, 20, 50, 60), (75, 90), (0, 0, 0))
    expected = F.resize(image[:, 10:60, 20:80], [75, 90], antialias=True)
    assert torch.equal(shown, expected)


def test_window_over_the_rim_is_filled_per_channel():
    image = torch.full((3, 100, 200), 250, dtype=torch.uint8)
    shown = see_through(image, Window(-50, -100, 200, 400), (100, 200), (1, 2, 3))
    assert shown[:, 25:75, 50:150].unique().tolist() == [250]
    beyond = shown.clone()
    beyond[:, 25:75, 50:150] = 0
    assert [plane[plane > 0].unique().tolist() for plane in beyond] == [[1], [2], [3]]
    assert (shown[0] == 250).sum() == 50 * 100


@settings(deadline=None, max_examples=100)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    sides=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_picture_lies_where_the_window_says_within_half_a_pixel(height, width, sides, place, size):
    """Any window that meets the picture, to any size, against the rectangle computed by hand."""
    top = round(1 - sides[0] + place[0] * (height + sides[0] - 2))
    left = round(1 - sides[1] + place[1] * (width + sides[1] - 2))
    image = torch.full((1, height, width), 255, dtype=torch.uint8)
    shown = see_through(image, Window(top, left, *sides), size, (0,))
    assert shown.shape == (1, *size)
    for dim, start, length, limit, new in (
        (2, top, sides[0], height, size[0]),
        (1, left, sides[1], width, size[1]),
    ):
        lit = torch.nonzero((shown == 255).any(dim=dim)[0]).flatten()
        first, last = int(lit.min()), int(lit.max()) + 1
        assert len(lit) == last - first
        wanted = [
            (edge - start) * new / length for edge in (max(0, start), min(limit, start + length))
        ]
        if wanted[1] - wanted[0] >= 1:
            assert abs(first - wanted[0]) <= 0.5
            assert abs(last - wanted[1]) <= 0.5
        else:  # a sliver is shown as one pixel
            assert last - first == 1
            assert first - 1 <= wanted[0] <= wanted[1] <= last + 1


def given_sample(boxes: list[list[float]], flags: list[bool]) -> dict:
    return {
        "image": tv_tensors.Image(noise(*PICTURE)),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes).reshape(-1, 4),
            format="XYXY",
            canvas_size=PICTURE,
            clamping_mode=None,
        ),
        "is_region": torch.tensor(flags, dtype=torch.bool),
    }


def test_boxes_go_where_their_pixels_go_unclipped_and_all_of_them():
    def draw(_window, _picture, _labels):
        return Window(-50, 100, 100, 100)

    sample = given_sample([[110.0, 10, 130, 30], [0, 0, 100, 100], [-10, 0, 0, 5]], [False] * 3)
    out = LookThrough([draw], FixedSize(50, 300), (1, 2, 3))(sample)
    assert out["boxes"].tolist() == [
        [30.0, 30.0, 90.0, 40.0],
        [-300.0, 25.0, 0.0, 75.0],
        [-330.0, 25.0, -300.0, 27.5],
    ]
    assert out["boxes"].canvas_size == (50, 300)
    assert out["boxes"].clamping_mode is None
    assert out["image"].shape == (3, 50, 300)
    assert isinstance(out["image"], tv_tensors.Image)


def test_labels_to_draw_by_are_those_that_are_no_regions():
    seen = []

    def draw(window, picture, labels):
        seen.append((window, picture, labels.tolist()))
        return window

    sample = given_sample([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 9, 10, 10]], [True, False, True])
    out = LookThrough([draw], ShortestEdge([0], 1), (0, 0, 0))(sample)
    assert seen == [(WHOLE, PICTURE, [[5, 6, 7, 8]])]
    assert torch.equal(out["image"], sample["image"])
    assert out["is_region"].tolist() == [True, False, True]
    del sample["is_region"]
    LookThrough([draw], ShortestEdge([0], 1), (0, 0, 0))(sample)
    assert len(seen[1][2]) == 3


def test_size_is_that_of_the_window_where_the_rule_leaves_it():
    window = Window(-100, 0, 200, 200)
    out = LookThrough([lambda *_: window], ShortestEdge([0], 1), (0, 0, 0))(given_sample([], []))
    assert out["image"].shape == (3, 100, 100)
    out = LookThrough([lambda *_: window], ShortestEdge([80], 200), (0, 0, 0))(given_sample([], []))
    assert out["image"].shape == (3, 80, 80)
