"""Detections drawn on a picture."""

import numpy as np
import pytest

from d2pd.inference.detections import Detections
from d2pd.reporting.drawing import COLOURS, DARK, draw_boxes


def found(boxes, image, scores=None, classes=None, names=("person",)):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores or [0.9] * count, np.float32),
        np.array(classes or [0] * count, np.int64),
        names,
        image,
    )


def grey(height=200, width=300, channels=3):
    return np.full((height, width, channels), 128, np.uint8)


def test_the_frame_lies_on_the_outermost_pixels_of_the_box_and_a_dark_line_around_it():
    picture = draw_boxes(found([[50, 60, 90, 160]], grey()))

    for row, column in ((100, 50), (100, 89), (60, 70), (159, 70), (159, 89)):
        assert tuple(picture[row, column]) == COLOURS[0]
    for row, column in ((100, 49), (100, 90), (160, 70)):
        assert tuple(picture[row, column]) == DARK
    assert (picture[70:150, 60:80] == 128).all()
    assert (picture[161:] == 128).all()


def test_the_image_given_stays_as_it_is():
    image = grey()
    draw_boxes(found([[50, 60, 90, 160]], image))
    assert (image == 128).all()


def test_without_detections_it_is_the_image():
    assert np.array_equal(draw_boxes(found([], grey())), grey())


def test_the_two_of_a_pair_are_side_by_side_with_the_same_boxes():
    image = np.dstack([np.full((200, 300, 3), 30, np.uint8), grey()])

    picture = draw_boxes(found([[50, 60, 90, 160]], image))

    assert picture.shape == (200, 600, 3)
    assert tuple(picture[10, 10]) == (30, 30, 30)
    assert tuple(picture[10, 310]) == (128, 128, 128)
    assert tuple(picture[100, 50]) == tuple(picture[100, 350]) == COLOURS[0]


def test_classes_have_colours_of_their_own_and_names_where_there_are_several():
    names = [f"class {n}" for n in range(9)]
    boxes = [[20, 60, 60, 160], [120, 60, 160, 160], [220, 60, 260, 160]]

    picture = draw_boxes(found(boxes, grey(), classes=[0, 1, 8], names=names))

    assert tuple(picture[100, 20]) == tuple(picture[100, 220]) == COLOURS[0]
    assert tuple(picture[100, 120]) == COLOURS[1]
    of_one = draw_boxes(found(boxes[:1], grey()))
    assert (of_one[:60] != 128).sum() < (
        draw_boxes(found(boxes[:1], grey(), names=names))[:60] != 128
    ).sum()


def test_the_best_one_is_drawn_on_top():
    boxes = [[50, 60, 90, 160], [50, 60, 90, 160]]

    picture = draw_boxes(found(boxes, grey(), scores=[0.9, 0.2], classes=[0, 1], names="ab"))

    assert tuple(picture[100, 50]) == COLOURS[0]


@pytest.mark.parametrize(
    "box", [[0, 0, 40, 60], [260, 0, 300, 60], [0, 140, 40, 200], [260, 140, 300, 200]]
)
def test_score_and_frame_are_seen_at_every_rim(box):
    picture = draw_boxes(found([box], grey(), names=("a rather long name", "b")))

    left, top, right, bottom = box
    middle = (top + bottom) // 2
    assert tuple(picture[middle, left]) == COLOURS[0]
    assert tuple(picture[middle, right - 1]) == COLOURS[0]
    is_text = (picture == COLOURS[0]).all(axis=2)
    assert is_text.sum() > 2 * (40 + 60) * 2 + 200  # more than a frame: a field with the score


@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (2000, 3), (2, 2)])
def test_pictures_of_any_shape_can_be_drawn_on(shape):
    height, width = shape

    picture = draw_boxes(found([[0, 0, width, height]], grey(*shape)))

    assert picture.shape == (*shape, 3)
    assert tuple(picture[-1, -1]) == COLOURS[0]


@pytest.mark.parametrize("box", [[10.2, 10.2, 10.6, 10.6], [10, 10, 11, 11], [10, 10, 12, 40]])
def test_a_box_of_a_pixel_is_seen(box):
    picture = draw_boxes(found([box], grey()))

    assert tuple(picture[10, 10]) == COLOURS[0]


def test_there_must_be_an_image():
    with pytest.raises(ValueError, match="no image to draw on"):
        draw_boxes(found([], None))
