"""Errors side by side: where the boxes lie, and what a picture that is gone leaves."""

import cv2
import numpy as np
import pytest
from report_toys import HOSTILE, made_up_card

from d2pd.reporting.error_sheet import _tile, draw_errors
from d2pd.reporting.report.content import Box, Card
from d2pd.reporting.report.pictures import crop_uri
from d2pd.reporting.sheet import DETECTION, FAULT, LABEL


def make_card(boxes, view=(100.0, 50.0, 400.0, 400.0)):
    image = np.zeros((512, 640, 3), np.uint8)
    image[:, :, 0] = 200  # BGR: blue
    return Card(
        kind="miss",
        reason="too small",
        splits=(),
        band="",
        score=None,
        lines=("person, 40 px high", "more"),
        image_name="a",
        image_size=(512, 640),
        view=view,
        crop=crop_uri(image, view),
        frame="0",
        boxes=boxes,
    )


def test_boxes_lie_where_they_are_in_the_part_that_is_shown():
    tile = _tile(make_card((Box((140, 90, 20, 40), "label", "", is_subject=True),)))
    assert tile.image.shape == (320, 320, 3)  # 400 px as the gallery shows them
    [mark] = tile.marks
    assert mark.bbox == pytest.approx([32, 32, 48, 64])
    assert mark.kind == FAULT
    assert tile.caption == "too small: person, 40 px high"
    assert tile.image[0, 0].tolist() == pytest.approx([0, 0, 200], abs=3)  # RGB


def test_the_error_is_on_top_and_what_is_out_of_sight_is_left_out():
    boxes = (
        Box((140, 90, 20, 40), "label", "", is_subject=True),
        Box((300, 90, 20, 40), "detection", "0.50"),
        Box((450, 200, 100, 40), "label"),  # reaches in
        Box((10, 10, 80, 30), "detection", "0.90"),  # outside
        Box((550, 200, 50, 40), "label"),
    )
    assert [mark.kind for mark in _tile(make_card(boxes)).marks] == [DETECTION, LABEL, FAULT]


def test_a_sheet_comes_of_any_cards_with_pictures_or_without(tmp_path):
    cards = [made_up_card(n, has_picture=n != 1, text=HOSTILE) for n in range(4)]
    path = tmp_path / "new folder" / "errors.png"
    draw_errors(cards, path)
    height, width, _ = cv2.imread(str(path)).shape
    assert width == 3 * (420 + 12) + 12
    assert height > 2 * 300
    draw_errors(cards[:1], path)
    assert cv2.imread(str(path)).shape[1] == 420 + 2 * 12


def test_no_card_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no picture to draw"):
        draw_errors([], tmp_path / "errors.png")
