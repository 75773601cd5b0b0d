import math

import numpy as np
import pytest

from d2pd.evaluation.arrays import detection_arrays, label_arrays
from d2pd.evaluation.operating_points import OperatingCurve
from d2pd.evaluation.subsets import KAIST
from d2pd.reporting.report.dataset_part import describe
from d2pd.reporting.report.error_tables import shades_of_rows
from d2pd.reporting.report.measured import NO_THRESHOLD, Evaluated, common_threshold, measure


def scene(boxes, detections, class_names=("person",)):
    """One image by day: boxes XYXY with a class, detections XYWH with a score and a class."""
    record = {
        "image_id": 0,
        "file_name": "x.png",
        "im_name": "set06/V000/I00000",
        "height": 512,
        "width": 640,
        "annotations": [{"bbox": b, "category_id": c, "occlusion": 0} for b, c in boxes],
    }
    columns = [np.array([row[n] for row in detections]) for n in range(3)]
    found = detection_arrays(np.zeros(len(detections)), *columns)
    return label_arrays([record], class_names), found


ONE = [([100, 100, 140, 200], 0)]
RIGHT = ([100, 100, 40, 100], 0.9, 0)
WRONG = ([300, 100, 40, 100], 0.4, 0)


def measured(labels, detections, **keys):
    given = Evaluated("val", labels, detections, **keys)
    return given, measure(given)


def test_perfect_detection_and_a_weak_false_positive_by_hand():
    given, found = measured(*scene(ONE, [RIGHT, WRONG]), protocol=KAIST)
    part = describe(given, found)

    assert found.score_threshold == 0.9
    assert found.confusion.tolist() == [[1, 0], [0, 0]]
    assert found.cases == []
    assert found.rates.own["reasonable/all"].value == pytest.approx(1e-8)
    assert found.rates.main_subsets() == ["reasonable/all", "reasonable/day"]
    assert part.error_tables == []
    [operating] = [t for t in part.tables if t.title == "Operating points"]
    assert operating.rows[0] == ("best F1", "0.9", "1.000", "1.000", "1.000", "0.000")
    assert operating.rows[-1] == ("FPPI 1", "0.4", "0.500", "1.000", "0.667", "1.000")
    figures = {figure.label: figure.value for figure in part.figures}
    assert figures["MR reasonable/day"] == "0.00"


def test_brackets_hold_the_interval_and_the_other_rules_stand_below():
    given, found = measured(*scene(ONE, [WRONG, (*RIGHT[:1], 0.2, 0)]), protocol=KAIST)
    [rates] = [t for t in describe(given, found).tables if t.title.startswith("Log-average")]

    assert rates.head == ("setting", "all", "day", "recall, all", "labels, all")
    # Before the first point of the curve compat takes the recall of its end, which is 1.
    assert rates.rows[0][:2] == ("reasonable", "7.74 [7.74 to 7.74]\ncompat 0.00")
    assert "In brackets: 95 % interval" in rates.note
    assert rates.details[0] == "Why compat differs"


def test_without_detections_every_label_is_missed_and_the_page_says_why():
    labels, _ = scene(ONE, [RIGHT])
    none = detection_arrays(np.zeros(0), np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    given, found = measured(labels, none, protocol=KAIST)
    part = describe(given, found)

    assert found.score_threshold == NO_THRESHOLD
    assert found.rates.own["reasonable/all"].value == 100
    assert part.charts == []
    assert any(words.startswith("Not a single detection") for words in part.absent)
    [misses] = part.error_tables
    assert misses.rows[0][:2] == ("labels to find", "1")


def test_without_labels_nothing_is_divided_by_zero():
    given, found = measured(*scene([], [WRONG]), precision={"AP": math.nan}, reasons={"AP": "none"})
    part = describe(given, found)

    assert [figure.value for figure in part.figures] == ["–"]
    assert "AP cannot be computed: none." in part.absent
    assert any("MISS_RATE.SETTINGS" in words for words in part.absent)


def test_classes_have_lines_of_their_own_and_a_prefix_in_miss_rates():
    boxes = [*ONE, ([300, 100, 340, 200], 1)]
    detections = [RIGHT, ([300, 100, 40, 100], 0.8, 1)]
    given, found = measured(*scene(boxes, detections, ("a", "b")), protocol=KAIST)
    part = describe(given, found)

    assert found.rates.main_subsets()[:2] == ["a/reasonable/all", "a/reasonable/day"]
    assert [line.name for line in part.charts[1].lines] == ["a", "b"]
    assert part.confusion.head[1:] == ("a", "b", "background")
    assert found.score_threshold == 0.8


def curve(scores, f1):
    numbers = np.array(f1, dtype=float)
    return OperatingCurve(np.array(scores), numbers, numbers, numbers, numbers, 1, 1)


def test_threshold_is_where_the_mean_of_f1_is_best():
    one, other = curve([0.9, 0.5, 0.1], [0.2, 0.8, 0.6]), curve([0.8, 0.1], [0.3, 0.9])

    assert common_threshold([one]) == 0.5
    assert common_threshold([one, other]) == 0.1  # (.6 + .9) / 2 is more than (.8 + .3) / 2
    assert common_threshold([]) == NO_THRESHOLD


def test_shades_go_by_the_row_and_in_the_last_row_by_the_largest():
    assert shades_of_rows(np.array([[3, 1], [2, 0]])) == [[3, 1], [3, 0]]
    assert shades_of_rows(np.zeros((2, 2), np.int64)) == [[0, 0], [0, 0]]
