"""Which detection finds which label."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miss_rate_toys import SMALL, cases, make_detections, make_labels, plain

from d2pd.errors import ConfigError
from d2pd.evaluation import assignment
from d2pd.evaluation.arrays import of_class
from d2pd.evaluation.assignment import (
    BEYOND,
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    assign,
    assign_each,
    overlaps,
)
from d2pd.evaluation.subsets import ignored

TP, FP = TRUE_POSITIVE, FALSE_POSITIVE


def assign_boxes(labels, detections, *, regions=(), iou_threshold=0.5):
    """One image; detections (x, y, w, h) by descending score. Returns outcomes and labels."""
    rows = [(0, *box, n in regions, 0) for n, box in enumerate(labels)]
    found = [(0, *box, -float(n)) for n, box in enumerate(detections)]
    names = make_labels(["set00/V000/I0"], rows)
    result = assign(names, make_detections(found), names.is_ignore, iou_threshold)
    return result.outcome.tolist(), result.label.tolist()


def test_a_detection_takes_the_label_of_the_largest_iou():
    labels = [(0, 0, 10, 20), (0, 2, 10, 20), (0, 4, 10, 20)]
    assert assign_boxes(labels, [(0, 2, 10, 20)]) == ([TP], [1])


def test_a_tie_goes_to_the_later_label():
    assert assign_boxes([(0, 0, 10, 20), (0, 4, 10, 20)], [(0, 2, 10, 20)]) == ([TP], [1])
    assert assign_boxes([(0, 4, 10, 20), (0, 0, 10, 20)], [(0, 2, 10, 20)]) == ([TP], [1])


def test_the_better_score_chooses_first_and_the_other_takes_what_is_left():
    labels = [(0, 0, 10, 20), (0, 4, 10, 20)]
    assert assign_boxes(labels, [(0, 4, 10, 20), (0, 4, 10, 20)]) == ([TP, TP], [1, 0])
    far = [(0, 0, 10, 20), (50, 4, 10, 20)]
    assert assign_boxes(far, [(0, 1, 10, 20), (0, 0, 10, 20)]) == ([TP, FP], [0, -1])


def test_detections_displace_each_other_down_a_row_of_labels():
    # All like label 0 best; each finds one, the next that is left.
    labels = [(0, 2 * n, 10, 40) for n in range(6)]
    assert assign_boxes(labels, [(0, -1, 10, 40)] * 7) == (
        [TP] * 6 + [FP],
        [0, 1, 2, 3, 4, 5, -1],
    )


def test_an_overlap_just_at_the_threshold_counts():
    assert assign_boxes([(0, 0, 10, 10)], [(0, 0, 10, 20)]) == ([TP], [0])
    assert assign_boxes([(0, 0, 10, 10)], [(0, 0, 10, 21)]) == ([FP], [-1])
    assert assign_boxes([(0, 0, 10, 10)], [(0, 0, 10, 20)], iou_threshold=0.51) == ([FP], [-1])
    assert assign_boxes([(0, 0, 10, 10)], [(0, 0, 10, 10)], iou_threshold=1.0) == ([TP], [0])


def test_a_region_absorbs_by_the_detections_area_and_any_number():
    region = [(0, 0, 100, 100)]
    inside = [(0, 0, 5, 5), (40, 40, 10, 20), (95, 0, 10, 10), (96, 0, 10, 10)]
    assert assign_boxes(region, inside, regions=[0]) == ([IGNORED] * 3 + [FP], [0, 0, 0, -1])


def test_a_label_goes_before_a_region_and_the_region_takes_the_second():
    labels = [(0, 0, 10, 20), (0, 0, 100, 100)]
    found = [(0, 2, 10, 20), (0, 0, 10, 20)]
    assert assign_boxes(labels, found, regions=[1]) == ([TP, IGNORED], [0, 1])


def test_the_region_that_holds_the_largest_part_absorbs_a_tie_the_later():
    regions = [(0, 0, 8, 100), (0, 0, 9, 100), (0, 0, 9, 100), (0, 0, 7, 100)]
    assert assign_boxes(regions, [(0, 0, 10, 20)], regions=range(4)) == ([IGNORED], [2])


def test_boxes_without_area_find_nothing():
    assert assign_boxes([(0, 0, 0, 10), (0, 0, 10, 10)], [(5, 5, 0, 5), (0, 0, 0, 0)]) == (
        [FP, FP],
        [-1, -1],
    )
    assert assign_boxes([(0, 0, 10, 10)], [(5, 5, 1e-200, 1e-200)], regions=[0]) == ([FP], [-1])


def test_only_the_first_thousand_of_an_image_count():
    labels = make_labels(["a", "b"], [(0, 0, 0, 10, 10, 0, 0), (1, 0, 0, 10, 10, 0, 0)])
    rows = [(0, 50, 50, 9, 9, 1000.0 - n) for n in range(1000)]
    found = make_detections([*rows, (0, 0, 0, 10, 10, -1.0), (1, 0, 0, 10, 10, -5.0)])
    result = assign(labels, found, labels.is_ignore)
    assert result.outcome.tolist() == [FP] * 1000 + [BEYOND, TP]
    assert result.label.tolist() == [-1] * 1001 + [1]


def test_images_keep_to_themselves():
    labels = make_labels(["a", "b"], [(1, 0, 0, 10, 10, 0, 0)])
    found = make_detections([(0, 0, 0, 10, 10, 0.9), (1, 0, 0, 10, 10, 0.1)])
    assert assign(labels, found, labels.is_ignore).outcome.tolist() == [FP, TP]


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_nothing_is_assigned_where_nothing_is(names):
    labels, found = make_labels(names, []), make_detections([])
    result = assign(labels, found, labels.is_ignore)
    assert result.outcome.shape == result.label.shape == (0,)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ConfigError, match="above 0 and at most 1, got"):
        assign_boxes([], [], iou_threshold=threshold)


@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_the_plain_reference_counts_the_same_in_every_image(case, threshold):
    labels, found = case.arrays
    for setting in SMALL.settings:
        is_ignored = ignored(labels, setting)
        result = assign(labels, found, is_ignored, threshold)
        for image in range(len(case.names)):
            own = labels.image_index == image
            ours = found.image_index == image
            boxes = labels.boxes_xywh.tolist()
            counted = plain.judge(
                np.column_stack([found.boxes_xywh, found.scores])[ours].tolist(),
                [boxes[n] for n in np.flatnonzero(own & ~is_ignored)],
                [boxes[n] for n in np.flatnonzero(own & is_ignored)],
                threshold,
            )
            is_counted = ours & np.isin(result.outcome, [TP, FP])
            is_true = result.outcome[is_counted] == TP
            assert counted == list(zip(found.scores[is_counted], is_true, strict=True))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_what_is_taken_is_named_and_taken_once(case):
    labels, found = case.arrays
    is_ignored = ignored(labels, SMALL.settings[1])
    result = assign(labels, found, is_ignored)
    taken = result.label[result.outcome == TP]
    assert len(set(taken.tolist())) == taken.size
    assert not is_ignored[taken].any()
    assert is_ignored[result.label[result.outcome == IGNORED]].all()
    assert (result.label[result.outcome == FP] == -1).all()
    has_label = result.label >= 0
    own_image = labels.image_index[result.label[has_label]]
    assert (own_image == found.image_index[has_label]).all()


@settings(max_examples=50, deadline=None)
@given(cases())
def test_overlaps_are_those_of_all_pairs_however_they_are_cut(case):
    labels, found = case.arrays
    pairs = [
        (d, g, plain.overlap(a, b, False), plain.overlap(a, b, True))
        for d, a in enumerate(found.boxes_xywh.tolist())
        for g, b in enumerate(labels.boxes_xywh.tolist())
        if found.image_index[d] == labels.image_index[g] and plain.overlap(a, b, False) > 0
    ]
    whole = overlaps(labels, found)
    columns = (whole.detection, whole.label, whole.iou, whole.coverage)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == pairs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "PAIRS_AT_ONCE", 2)
        in_parts = overlaps(labels, found)
    for field in fields(whole):
        np.testing.assert_array_equal(getattr(in_parts, field.name), getattr(whole, field.name))


@settings(max_examples=30, deadline=None)
@given(cases())
def test_several_choices_of_regions_are_as_one_by_one(case):
    labels, found = case.arrays
    masks = [ignored(labels, setting) for setting in SMALL.settings]
    for mask, result in zip(masks, assign_each(labels, found, masks), strict=True):
        alone = assign(labels, found, mask)
        np.testing.assert_array_equal(result.outcome, alone.outcome)
        np.testing.assert_array_equal(result.label, alone.label)


def test_one_class_keeps_regions_without_a_class_and_all_images():
    from dataclasses import replace

    labels = make_labels(["a", "b"], [(0, n, 0, 9, 9, 0, 0) for n in range(3)])
    labels = replace(labels, classes=np.array([0, 1, -1]), class_names=("dog", "cat"))
    found = make_detections([(0, n, 0, 9, 9, 0.5) for n in range(2)])
    found = replace(found, classes=np.array([1, 0]))
    cats, found_cats = of_class(labels, found, 1)
    assert cats.boxes_xywh[:, 0].tolist() == [1, 2]
    assert found_cats.boxes_xywh[:, 0].tolist() == [0]
    assert cats.image_names == ("a", "b")
    with pytest.raises(ValueError, match=r"0..1, got 2; the classes are dog, cat"):
        of_class(labels, found, 2)
