import base64

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.evaluation.arrays import UNKNOWN, detection_arrays, label_arrays
from d2pd.evaluation.error_analysis import find_errors
from d2pd.evaluation.error_cases import REASONS, ErrorCase
from d2pd.reporting.report.cards import Gallery, choose_cases
from d2pd.reporting.report.measured import Evaluated
from d2pd.reporting.report.pictures import LEAST_SIDE, crop_uri, frame_uri, view_around

SIDES = st.floats(-1e6, 1e6, allow_nan=False) | st.just(float("nan")) | st.just(float("inf"))


def case(kind, reason, *, score=0.5, height=60.0, image=0):
    return ErrorCase(kind, reason, image, None, None, None, score, height, UNKNOWN, False)


def decoded(uri):
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


@given(st.tuples(SIDES, SIDES, SIDES, SIDES), st.integers(1, 700), st.integers(1, 700))
def test_view_lies_inside_the_image_whatever_the_box(box, height, width):
    x, y, w, h = view_around(box, (height, width))

    assert x >= 0
    assert y >= 0
    assert w >= 1
    assert h >= 1
    assert x + w <= width
    assert y + h <= height


@given(st.floats(0, 500), st.floats(0, 400), st.floats(1, 100), st.floats(1, 100))
def test_view_holds_the_box_with_its_surroundings(x, y, w, h):
    left, top, width, height = view_around((x, y, w, h), (512, 640))

    assert left <= x + 1
    assert top <= y + 1
    assert x + w <= left + width + 1
    assert y + h <= top + height + 1
    assert width == height == max(round(2.6 * max(w, h)), LEAST_SIDE)


def test_pictures_are_of_the_place_and_no_larger_than_they_must_be():
    image = np.zeros((1000, 2000, 3), np.uint8)
    image[100:200, 300:400] = 255

    crop = decoded(crop_uri(image, (300, 100, 100, 100)))
    frame = decoded(frame_uri(image))

    assert crop.shape == (100, 100, 3)
    assert crop.mean() > 250
    assert frame.shape == (360, 720, 3)


def test_worst_of_each_reason_come_first_and_kinds_take_turns():
    cases = [case("false positive", "background", score=s / 100) for s in range(50)]
    cases += [case("false positive", "duplicate", score=0.01), case("miss", "occluded")]
    cases += [case("not counted", "in an ignore region")]

    chosen = choose_cases(cases, 6)

    assert [(one.kind, one.reason, one.score) for one in chosen] == [
        ("false positive", "duplicate", 0.01),
        ("miss", "occluded", 0.5),
        ("false positive", "background", 0.49),
        ("not counted", "in an ignore region", 0.5),
        ("false positive", "background", 0.48),
        ("false positive", "background", 0.47),
    ]


@given(st.lists(st.sampled_from([(k, r) for k in REASONS for r in REASONS[k]])), st.integers(0, 20))
def test_as_many_are_chosen_as_are_wanted_and_there_and_none_twice(kinds, most):
    cases = [case(*kind, image=number) for number, kind in enumerate(kinds)]

    chosen = choose_cases(cases, most)

    assert len(chosen) == min(most, len(cases))
    assert len({one.image for one in chosen}) == len(chosen)


@pytest.fixture
def evaluated(tmp_path):
    """One image with a label that nothing finds, a region to ignore, a detection beside it."""
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.full((100, 120, 3), 77, np.uint8))
    boxes = [([10, 10, 30, 60], 0), ([80, 10, 100, 60], 1)]
    record = {
        "image_id": 7,
        "file_name": str(path),
        "im_name": "set09/V000/I00001",
        "height": 100,
        "width": 120,
        "annotations": [
            {"bbox": box, "category_id": 0, "ignore": ignore, "iscrowd": ignore, "occlusion": 2}
            for box, ignore in boxes
        ],
    }
    labels = label_arrays([record], ["person"])
    detections = detection_arrays(
        np.zeros(1, np.int64),
        np.array([[40.0, 20, 20, 50]]),
        np.array([0.9]),
        np.zeros(1, np.int64),
    )
    return [record], Evaluated("val", labels, detections)


def draw(records, given):
    cases = find_errors(given.labels, given.detections, score_threshold=0.5)
    gallery = Gallery(records, "visible", "0-", 0.5)
    return gallery, gallery.draw(choose_cases(cases, 9), given, quiet=True)


def test_card_shows_its_error_and_all_boxes_of_the_image(evaluated):
    gallery, [wrong, miss] = draw(*evaluated)

    assert (wrong.kind, wrong.reason, wrong.score) == ("false positive", "background", 0.9)
    assert (miss.kind, miss.score, miss.splits, miss.band) == ("miss", None, (), "45 to 55 px")
    assert "occlusion heavy" in miss.lines[0]
    assert [(b.kind, b.is_subject) for b in wrong.boxes] == [
        ("label", False),
        ("ignore", False),
        ("detection", True),
    ]
    assert [b.is_subject for b in miss.boxes] == [True, False, False]
    assert list(gallery.frames) == [wrong.frame] == ["0-0"]
    assert decoded(gallery.frames["0-0"]).shape == (100, 120, 3)


def test_picture_that_is_gone_or_another_one_leaves_the_boxes_and_the_reason(evaluated, caplog):
    records, given = evaluated
    cv2.imwrite(records[0]["file_name"], np.zeros((50, 60, 3), np.uint8))
    _, [changed, _] = draw(records, given)
    records[0]["file_name"] = "gone.png"
    gallery, [gone, _] = draw(records, given)

    assert "is now 60x50, its labels are for 120x100" in changed.trouble
    assert "gone.png: No such file" in gone.trouble
    assert (gone.crop, gone.frame, gallery.frames) == ("", "", {})
    assert len(gone.boxes) == 3
    assert "val: 1 pictures are not shown" in caplog.text
