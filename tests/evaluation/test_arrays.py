"""Labels and detections as arrays: as the files state them, in one order, or refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.errors import AnnotationError
from d2pd.evaluation.arrays import (
    UNKNOWN,
    arrays_of_predictions,
    detection_arrays,
    label_arrays,
    labels_to_find,
)


def record(image_id, *annotations):
    size = {"height": 512, "width": 640}
    return {"image_id": image_id, "file_name": f"{image_id}.png", "annotations": annotations} | size


def annotation(x, y, width, height, **facts):
    return {"bbox": [x, y, x + width, y + height], "category_id": 0, **facts}


HUNDREDTHS = st.integers(0, 64_000).map(lambda number: number / 100)


@given(HUNDREDTHS, HUNDREDTHS, HUNDREDTHS, HUNDREDTHS)
def test_a_box_is_what_its_file_states_to_the_last_bit(x, y, width, height):
    labels = label_arrays([record("a", annotation(x, y, width, height))], ["person"])
    assert labels.boxes_xywh.tolist() == [[x, y, width, height]]


def test_a_height_of_55_stays_55():
    heights = [annotation(5, number / 10, 20, 55) for number in range(4000)]
    assert set(label_arrays([record("a", *heights)], ["person"]).boxes_xywh[:, 3]) == {55}


def test_what_a_file_does_not_state_is_unknown_and_what_is_flagged_is_not_to_be_found():
    rows = [
        annotation(0, 0, 9, 9),
        annotation(0, 0, 9, 9, occlusion=None, ignore=1),
        annotation(0, 0, 9, 9, occlusion=2, iscrowd=1),
        annotation(0, 0, 9, 9) | {"category_id": -1},
    ]
    labels = label_arrays([record("a", *rows)], ["person"])
    assert labels.occlusion.tolist() == [UNKNOWN, UNKNOWN, 2, UNKNOWN]
    assert labels_to_find(labels).tolist() == [True, False, False, False]


def test_labels_that_are_no_numbers_are_left_out_and_counted(caplog):
    rows = [annotation(0, 0, 9, 9), annotation(0, np.nan, 9, 9), annotation(0, 0, np.inf, 9)]
    labels = label_arrays([record("a", *rows), record("b", rows[0])], ["person"])
    assert labels.image_index.tolist() == [0, 1]
    assert "2 labels are left out: their boxes are not finite numbers" in caplog.text


def test_an_id_that_is_there_twice_is_refused():
    with pytest.raises(AnnotationError, match="image_id 'a' is there 2 times"):
        label_arrays([record("a"), record("b"), record("a")], ["person"])


def test_detections_stand_by_image_score_and_box_whatever_their_order():
    rows = [(1, 5, 0, 9, 9, 0.5), (0, 3, 0, 9, 9, 0.1), (0, 2, 0, 9, 9, 0.1), (0, 9, 0, 9, 9, 0.7)]
    for order in (rows, rows[::-1]):
        table = np.array(order)
        found = detection_arrays(table[:, 0], table[:, 1:5], table[:, 5], np.zeros(4))
        assert found.boxes_xywh[:, 0].tolist() == [9, 2, 3, 5]
        assert found.image_index.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": "z"}, "detection 1 is on image 'z', which is not in the dataset of 1 images"),
        ({"category_id": 2}, r"\(image 'a'\) has class 2; the dataset has 2: person, cyclist"),
        ({"category_id": -1}, "has class -1"),
        ({"score": float("nan")}, "not finite, or of negative size: .* score nan"),
        ({"bbox": [0, 0, -1, 5]}, r"detection 1 .* negative size: \[0, 0, -1, 5\]"),
    ],
)
def test_predictions_that_do_not_fit_the_labels_are_named(change, words):
    good = {"image_id": "a", "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
    labels = label_arrays([record("a")], ["person", "cyclist"])
    assert arrays_of_predictions([good], labels).classes.tolist() == [1]
    with pytest.raises(AnnotationError, match=words):
        arrays_of_predictions([good, good | change], labels)
