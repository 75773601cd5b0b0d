"""Every miss and every false positive is listed once, and for the reason that is documented."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2pd.errors import ConfigError
from d2pd.evaluation.arrays import (
    DetectionArrays,
    LabelArrays,
    detection_arrays,
    label_arrays,
    labels_to_find,
    of_class,
)
from d2pd.evaluation.assignment import FALSE_POSITIVE, TRUE_POSITIVE, assign
from d2pd.evaluation.error_analysis import find_errors
from d2pd.evaluation.error_cases import REASONS, ErrorCase, worst

BOX = (100, 100, 40, 100)
FAR = (400, 100, 40, 100)


def shifted(pixels: float, box: tuple = BOX) -> tuple:
    """Return the box moved sideways: of BOX, the IoU with it is (40 - pixels) / (40 + pixels)."""
    return (box[0] + pixels, *box[1:])


def label(box: tuple, category: int = 0, **facts: int) -> dict:
    x, y, width, height = box
    corners = [x, y, x + width, y + height]
    return {"bbox": corners, "category_id": category, "occlusion": 0, **facts}


def dataset(*images: list[dict]) -> LabelArrays:
    """Return the labels of images of 640x512, one list each, of the classes car and person."""
    records = [
        {
            "image_id": index,
            "file_name": f"set{index:02d}/V000/I{index:05d}.png",
            "height": 512,
            "width": 640,
            "annotations": [row | {"row": position} for position, row in enumerate(rows)],
        }
        for index, rows in enumerate(images)
    ]
    return label_arrays(records, ["car", "person"])


def detected(*rows: tuple) -> DetectionArrays:
    """Collect (box, score), then the class where it is not 0, then the image where it is not 0."""
    full = [(*row, *(0, 0)[len(row) - 2 :]) for row in rows]
    boxes, scores, classes, images = zip(*full, strict=True) if full else ((), (), (), ())
    return detection_arrays(np.array(images, dtype=np.int64), boxes, scores, classes)


def errors(labels: list[dict], *detections: tuple, **options: object) -> list[ErrorCase]:
    """Return the cases of one image at score 0.5."""
    return find_errors(dataset(labels), detected(*detections), score_threshold=0.5, **options)


def reasons(cases: list[ErrorCase]) -> list[tuple[str, str]]:
    return [(case.kind, case.reason) for case in cases]


def miss_reason(labels: list[dict], *detections: tuple) -> str:
    """Return the reason of the one miss, that of label 0."""
    (miss,) = (case for case in errors(labels, *detections) if case.kind == "miss")
    assert miss.label == 0
    return miss.reason


# --- False positives


def test_perfect_detections_leave_nothing_to_list():
    assert errors([label(BOX), label(FAR, 1)], (BOX, 0.9), (FAR, 0.8, 1)) == []
    assert find_errors(dataset([]), detected(), score_threshold=0.5) == []


def test_a_second_detection_of_a_label_is_a_duplicate_even_if_it_fits_better():
    (case,) = errors([label(BOX)], (shifted(5), 0.9), (BOX, 0.8))
    assert case == ErrorCase(
        kind="false positive",
        reason="duplicate",
        image=0,
        label=0,
        detection=1,
        iou=1.0,
        score=0.8,
        height=100.0,
        occlusion=0,
        at_border=False,
    )


def test_a_box_of_the_wrong_class_is_confused_and_so_is_the_label_that_it_leaves_missed():
    wrong, miss = errors([label(FAR), label(BOX, 1)], (FAR, 0.95), (shifted(10), 0.9))
    assert reasons([wrong, miss]) == [
        ("false positive", "confused class"),
        ("miss", "confused class"),
    ]
    assert (wrong.label, wrong.detection) == (miss.label, miss.detection) == (1, 1)
    assert wrong.iou == miss.iou == pytest.approx(30 / 50)
    assert wrong.score == miss.score == 0.9


def test_a_loose_box_is_a_localisation_error_and_so_is_the_label_that_it_leaves_missed():
    wrong, miss = errors([label(BOX)], (shifted(20), 0.9))
    assert reasons([wrong, miss]) == [
        ("false positive", "localisation"),
        ("miss", "localisation"),
    ]
    assert wrong.iou == miss.iou == pytest.approx(20 / 60)


def test_a_loose_box_begins_at_an_iou_of_a_tenth():
    tenth, less = (100, 100, 40, 10), (100, 100, 40, 9.9)
    assert errors([label(BOX)], (tenth, 0.9))[0].reason == "localisation"
    assert errors([label(BOX)], (less, 0.9))[0].reason == "background"


def test_a_box_at_the_threshold_finds_its_label():
    half = (100, 100, 40, 50)
    assert errors([label(BOX)], (half, 0.9)) == []
    assert errors([label(BOX)], (half, 0.9), iou_threshold=0.51)[0].reason == "localisation"


def test_a_duplicate_and_a_wrong_class_begin_at_the_threshold():
    half = (100, 100, 40, 50)
    assert reasons(errors([label(BOX)], (BOX, 0.9), (half, 0.8))) == [
        ("false positive", "duplicate")
    ]
    assert errors([label(BOX, 1)], (half, 0.8))[0].reason == "confused class"


def test_between_labels_as_near_a_box_names_the_later_one():
    wrong, *_ = errors([label(BOX), label(shifted(40))], (shifted(20), 0.9))
    assert (wrong.reason, wrong.label) == ("localisation", 1)


def test_a_box_on_nothing_is_background():
    (case,) = errors([label(BOX)], (BOX, 0.9), (FAR, 0.8))
    assert (case.reason, case.label, case.iou, case.occlusion) == ("background", None, None, -1)


def test_a_loose_box_on_another_class_is_background_and_explains_no_miss():
    assert reasons(errors([label(BOX, 1)], (shifted(20), 0.9))) == [
        ("false positive", "background"),
        ("miss", "not found"),
    ]


def test_duplicate_comes_before_confused_class():
    labels = [label(BOX), label(shifted(10), 1)]
    cases = errors(labels, (BOX, 0.9), (shifted(10), 0.8), (shifted(10), 0.7, 1))
    assert reasons(cases) == [("false positive", "duplicate")]
    assert cases[0].label == 0


def test_duplicate_comes_before_localisation():
    found, missed = BOX, shifted(35)
    wrong, miss = errors([label(found), label(missed)], (found, 0.9), (shifted(12), 0.8))
    assert (wrong.reason, wrong.label) == ("duplicate", 0)
    assert (miss.reason, miss.label) == ("not found", 1)


def test_confused_class_comes_before_localisation():
    cases = errors([label(BOX), label(shifted(30), 1)], (BOX, 0.9), (shifted(20), 0.8))
    assert [(case.reason, case.label) for case in cases] == [("confused class", 1)] * 2


def test_a_loose_box_names_the_label_that_it_is_nearest_to():
    cases = errors([label(BOX), label(shifted(55))], (shifted(30), 0.8))
    assert [(case.kind, case.reason, case.label) for case in cases] == [
        ("false positive", "localisation", 1),
        ("miss", "not found", 0),
        ("miss", "localisation", 1),
    ]


# --- Misses


def test_a_label_that_a_lower_score_finds_is_below_the_threshold():
    (case,) = errors([label(BOX)], (shifted(10), 0.4), (BOX, 0.3))
    assert case[:5] == ("miss", "below the score threshold", 0, 0, 0)
    assert (case.score, case.iou) == (0.4, pytest.approx(30 / 50))


def test_a_score_at_the_threshold_is_shown():
    assert errors([label(BOX)], (BOX, 0.5)) == []


@pytest.mark.parametrize(
    ("box", "facts", "reason"),
    [
        ((100, 100, 20, 54.9), {}, "too small"),
        ((100, 100, 20, 55), {}, "not found"),
        (BOX, {"occlusion": 1}, "occluded"),
        (BOX, {"occlusion": 2}, "occluded"),
        (BOX, {"occlusion": None}, "not found"),
        ((4.9, 100, 40, 100), {}, "at the border"),
        ((100, 4.9, 40, 100), {}, "at the border"),
        ((595.1, 100, 40, 100), {}, "at the border"),
        ((100, 407.1, 40, 100), {}, "at the border"),
        ((5, 5, 630, 502), {}, "not found"),
    ],
)
def test_the_label_itself_may_be_the_reason(box, facts, reason):
    (case,) = errors([label(box, **facts)])
    assert (case.kind, case.reason) == ("miss", reason)
    assert (case.detection, case.iou, case.score) == (None, None, None)
    assert (case.height, case.at_border) == (pytest.approx(box[3]), reason == "at the border")


def test_small_comes_before_occluded_and_that_before_the_border_and_the_facts_stay():
    small, high = (0, 100, 20, 54), (0, 100, 40, 100)
    cases = errors([label(small, occlusion=2), label(high, occlusion=1)])
    assert [(case.reason, case.occlusion, case.at_border) for case in cases] == [
        ("too small", 2, True),
        ("occluded", 1, True),
    ]


def test_reasons_of_a_miss_go_by_their_order():
    hard = [label((0, 100, 20, 50), occlusion=2)]
    box, loose = (0, 100, 20, 50), (10, 100, 20, 50)
    confused, near, low = (box, 0.9, 1), (loose, 0.8), (box, 0.1)
    assert miss_reason(hard, confused, near, low) == "confused class"
    assert miss_reason(hard, near, low) == "localisation"
    assert miss_reason(hard, low) == "below the score threshold"
    assert miss_reason(hard) == "too small"


def test_the_best_of_several_false_positives_explains_a_miss():
    miss = errors([label(BOX)], (shifted(-25), 0.7), (shifted(20), 0.9))[-1]
    assert (miss.detection, miss.score) == (0, 0.9)


def test_a_detection_of_a_neighbour_explains_no_miss():
    assert miss_reason([label(shifted(15)), label(BOX)], (BOX, 0.9)) == "not found"
    assert miss_reason([label(BOX, 1), label(BOX)], (BOX, 0.9)) == "not found"


# --- Not counted


def test_a_detection_in_an_ignore_region_is_listed_but_no_error():
    crowd = label((90, 90, 200, 200), ignore=1)
    (case,) = errors([crowd], (BOX, 0.9), (shifted(5), 0.4))
    assert case[:5] == ("not counted", "in an ignore region", 0, 0, 0)
    assert (case.iou, case.score) == (pytest.approx(4000 / 40000), 0.9)


def test_a_region_without_a_class_absorbs_every_class():
    crowd = label((90, 90, 200, 200), -1, ignore=1)
    cases = errors([crowd, label(FAR)], (BOX, 0.9), (shifted(5), 0.8, 1))
    assert reasons(cases) == [
        ("miss", "not found"),
        *[("not counted", "in an ignore region")] * 2,
    ]
    assert [case.label for case in cases] == [1, 0, 0]


def test_a_label_that_a_setting_ignores_is_no_miss_but_still_explains_a_loose_box():
    only_first_ignored = {"is_ignored": np.array([True, False])}
    labels = [label(BOX), label(FAR)]
    assert reasons(errors(labels, (FAR, 0.9), **only_first_ignored)) == []
    absorbed, loose = (shifted(5), 0.8), (shifted(25), 0.7)
    assert reasons(errors(labels, (FAR, 0.9), absorbed, loose, **only_first_ignored)) == [
        ("false positive", "localisation"),
        ("not counted", "in an ignore region"),
    ]


def test_a_flagged_region_explains_nothing():
    assert reasons(errors([label(BOX, ignore=1)], (shifted(25), 0.9))) == [
        ("false positive", "background")
    ]


def test_flagged_labels_stay_ignored_whatever_a_setting_says():
    labels = dataset([label(BOX, ignore=1), label(FAR, -1), label(FAR)])
    assert labels_to_find(labels, np.zeros(3, dtype=bool)).tolist() == [False, False, True]


def test_detections_past_the_limit_of_an_image_are_listed():
    many = [(FAR, 1 - index / 10000) for index in range(1001)]
    cases = errors([label(FAR)], *many)
    assert Counter(reasons(cases)) == {
        ("false positive", "duplicate"): 999,
        ("not counted", "past the limit of detections"): 1,
    }


# --- What a caller can get wrong


def test_ignored_flags_of_other_labels_are_refused():
    with pytest.raises(ValueError, match=r"is_ignored has shape \(2,\) for 1 labels; it needs one"):
        errors([label(BOX)], is_ignored=np.zeros(2, dtype=bool))


def test_a_threshold_that_is_not_a_number_is_refused():
    with pytest.raises(ConfigError, match="the score threshold is NaN; give a number, such as 0.5"):
        find_errors(dataset([]), detected(), score_threshold=float("nan"))


# --- Order


def test_the_worst_are_sure_false_positives_and_large_misses_in_plain_sight():
    high, low, hidden = (10, 10, 80, 300), (10, 350, 30, 60), (300, 10, 90, 350)
    cases = errors(
        [label(hidden, occlusion=1), label(low), label(high), label(FAR, ignore=1)],
        (shifted(0, (550, 10, 30, 60)), 0.6),
        (shifted(0, (550, 200, 30, 60)), 0.9),
        (FAR, 0.7),
    )
    assert [(case.kind, case.score, case.height) for case in worst(cases, 2)] == [
        ("false positive", 0.9, 60),
        ("false positive", 0.6, 60),
        ("miss", None, 300),
        ("miss", None, 60),
        ("not counted", 0.7, 100),
    ]
    assert [case.label for case in worst(cases, 9) if case.kind == "miss"] == [2, 1, 0]


# --- Properties

COORDINATE = st.integers(0, 12).map(lambda number: number * 8.0)
SIZE = st.integers(1, 8).map(lambda number: number * 8.0)
ANY_BOX = st.tuples(COORDINATE, COORDINATE, SIZE, SIZE)
ANY_LABEL = st.builds(
    lambda box, category, occlusion, flag: label(
        box, category, occlusion=occlusion, ignore=int(flag or category < 0)
    ),
    ANY_BOX,
    st.sampled_from([0, 1, 0, 1, -1]),
    st.sampled_from([0, 1, 2, None]),
    st.sampled_from([False, False, True]),
)
ANY_DETECTION = st.tuples(
    ANY_BOX, st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.integers(0, 1), st.integers(0, 1)
)
SCENE = st.tuples(
    st.lists(ANY_LABEL, max_size=6),
    st.lists(ANY_LABEL, max_size=6),
    st.lists(ANY_DETECTION, max_size=16),
    st.integers(0, 2**12 - 1),
)


def drawn(scene: tuple) -> tuple[LabelArrays, list[tuple], np.ndarray]:
    first, second, rows, bits = scene
    labels = dataset(first, second)
    return labels, rows, np.array([bits >> bit & 1 for bit in range(len(labels.classes))], bool)


@settings(max_examples=200, deadline=None)
@given(SCENE)
def test_every_shown_detection_and_every_label_to_find_is_accounted_for_once(scene):
    labels, rows, is_ignored = drawn(scene)
    cases = find_errors(labels, detected(*rows), score_threshold=0.5, is_ignored=is_ignored)
    shown = detected(*(row for row in rows if row[1] >= 0.5))
    outcomes = Counter()
    ignored = ~labels_to_find(labels, is_ignored)
    for index in range(2):
        own = ignored[(labels.classes == index) | (labels.classes == -1)]
        outcomes += Counter(assign(*of_class(labels, shown, index), own).outcome.tolist())
    counts = Counter(case.kind for case in cases)
    assert counts["false positive"] == outcomes[FALSE_POSITIVE]
    assert counts["miss"] + outcomes[TRUE_POSITIVE] == np.count_nonzero(~ignored)
    assert counts["false positive"] + counts["not counted"] + outcomes[TRUE_POSITIVE] == len(
        shown.scores
    )
    listed = [case.detection for case in cases if case.kind != "miss"]
    assert len(set(listed)) == len(listed)
    missed = [case.label for case in cases if case.kind == "miss"]
    assert missed == sorted(set(missed))
    assert all(case.reason in REASONS[case.kind] for case in cases)


@settings(max_examples=100, deadline=None)
@given(SCENE, st.randoms(use_true_random=False))
def test_the_order_of_lines_changes_nothing(scene, random):
    labels, rows, is_ignored = drawn(scene)
    # A softmax scores one box for each class: equal scores, too.
    rows = [*rows, *((box, score, 1 - category, image) for box, score, category, image in rows)]
    shuffled = random.sample(rows, len(rows))
    assert listed(labels, rows, is_ignored) == listed(labels, shuffled, is_ignored)


def listed(labels: LabelArrays, rows: list[tuple], is_ignored: np.ndarray) -> list[ErrorCase]:
    return find_errors(labels, detected(*rows), score_threshold=0.5, is_ignored=is_ignored)
