import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_scenes import (
    detections_of,
    labels_of,
    million_detections,
    plain_assignment,
    random_scene,
)

from d2pd.errors import ConfigError
from d2pd.evaluation.arrays import labels_where
from d2pd.evaluation.operating_points import OperatingPoint, curve
from d2pd.evaluation.subsets import KAIST, ignored

NAMES = ("person", "cyclist")
HERE, THERE, AWAY = (0, 0, 40, 100), (200, 0, 40, 100), (400, 300, 40, 100)
SEEDS = st.integers(0, 2**32)

LABELS = labels_of(
    [
        (0, 0, False, *HERE),
        (0, 0, False, *THERE),
        (1, 0, False, *HERE),
        (1, 0, False, *THERE),
        (2, 0, True, *HERE),
        (3, 1, False, *HERE),
    ],
    5,
    NAMES,
)
FOUND = detections_of(
    [
        (0, 0, 0.9, *HERE),  # right
        (1, 0, 0.8, *AWAY),  # wrong
        (2, 0, 0.75, *HERE),  # in a region
        (1, 0, 0.7, *HERE),  # right
        (1, 0, 0.7, *THERE),  # right, with the same score
        (0, 0, 0.2, *HERE),  # a duplicate: wrong
        (3, 0, 0.1, *HERE),  # of another class: wrong
    ]
)


def plain_point(labels, detections, class_index, threshold, is_ignored):
    """One point, counted by loops."""
    is_wanted = ~labels.is_ignore & (labels.classes >= 0) & ~is_ignored
    matched = plain_assignment(labels, detections, is_wanted, 0.5)
    right = wrong = 0
    for d, found in enumerate(matched):
        if detections.classes[d] == class_index and detections.scores[d] >= threshold:
            right += isinstance(found, int)
            wrong += found is None
    num_labels = sum(
        1 for g in range(len(labels.classes)) if is_wanted[g] and labels.classes[g] == class_index
    )
    recall = right / num_labels if num_labels else math.nan
    f1 = 2 * right / (right + wrong + num_labels) if num_labels else math.nan
    return right / (right + wrong), recall, f1, wrong / len(labels.image_ids)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, classes=st.integers(1, 3))
def test_every_point_is_equal_to_plain_loops(seed, classes):
    labels, found = random_scene(seed, classes)
    ignored = np.random.default_rng(seed).random(len(labels.classes)) < 0.2
    for index in range(classes):
        own = curve(labels, found, index, is_ignored=ignored)
        points = zip(own.scores, own.precision, own.recall, own.f1, own.fppi, strict=True)
        for score, *values in points:
            expected = plain_point(labels, found, index, score, ignored)
            np.testing.assert_array_equal(values, expected)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_a_higher_threshold_never_raises_recall_or_false_positives(seed):
    labels, found = random_scene(seed, 2)
    for own in (curve(labels, found, index) for index in range(2)):
        assert (np.diff(own.scores) < 0).all()
        assert (np.diff(own.fppi) >= 0).all()
        if own.num_labels:
            assert (np.diff(own.recall) >= 0).all()
            harmonic = [
                2 * p * r / (p + r) if p + r else 0.0
                for p, r in zip(own.precision, own.recall, strict=True)
            ]
            np.testing.assert_allclose(own.f1, harmonic, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, fppi=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 100.0]))
def test_chosen_points_are_the_best_of_all(seed, fppi):
    labels, found = random_scene(seed, 1)
    own = curve(labels, found, 0)
    best, within = own.best_f1(), own.at_fppi(fppi)
    allowed = [score for score, value in zip(own.scores, own.fppi, strict=True) if value <= fppi]
    assert (within.score if within else None) == min(allowed, default=None)
    if best is None:
        assert not own.num_labels or not own.f1.any()
    else:
        assert best.f1 == own.f1.max()
        assert best.score == own.scores[own.f1 == own.f1.max()].max()


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, factor=st.sampled_from([0.5, 4.0, 1024.0]))
def test_scale_of_scores_changes_only_the_thresholds(seed, factor):
    labels, found = random_scene(seed, 1)
    own = curve(labels, found, 0)
    rows = zip(found.image_index, found.classes, found.scores * factor, strict=True)
    scaled = detections_of([(*row, *box) for row, box in zip(rows, found.boxes_xywh, strict=True)])
    other = curve(labels, scaled, 0)
    assert other.scores.tolist() == (own.scores * factor).tolist()
    np.testing.assert_array_equal(other.f1, own.f1)
    np.testing.assert_array_equal(other.fppi, own.fppi)


def test_curve_by_hand():
    own = curve(LABELS, FOUND, 0)
    assert own.scores.tolist() == [0.9, 0.8, 0.7, 0.2, 0.1]
    assert own.precision.tolist() == [1, 1 / 2, 3 / 4, 3 / 5, 3 / 6]
    assert own.recall.tolist() == [1 / 4, 1 / 4, 3 / 4, 3 / 4, 3 / 4]
    assert own.f1.tolist() == [2 / 5, 2 / 6, 6 / 8, 6 / 9, 6 / 10]
    assert own.fppi.tolist() == [0, 1 / 5, 1 / 5, 2 / 5, 3 / 5]
    assert (own.num_labels, own.num_images) == (4, 5)
    assert own.best_f1() == OperatingPoint(0.7, 3 / 4, 3 / 4, 3 / 4, 1 / 5)


@pytest.mark.parametrize(
    ("fppi", "score"), [(0, 0.9), (0.19, 0.9), (0.2, 0.7), (0.5, 0.2), (math.inf, 0.1)]
)
def test_threshold_at_a_wanted_number_of_false_positives(fppi, score):
    assert curve(LABELS, FOUND, 0).at_fppi(fppi).score == score


def test_wanted_number_that_no_threshold_reaches():
    labels = labels_of([(0, 0, False, *HERE)], 1, NAMES)
    own = curve(labels, detections_of([(0, 0, 0.9, *AWAY), (0, 0, 0.5, *HERE)]), 0)
    assert own.at_fppi(0.9) is None
    assert own.at_fppi(1).score == 0.5


def test_highest_of_equally_good_thresholds_is_the_best():
    labels = labels_of([(0, 0, False, *HERE), (0, 0, False, *THERE)], 1, NAMES)
    rows = [(0, 0, 0.9, *HERE), (0, 0, 0.8, *AWAY), (0, 0, 0.7, *AWAY), (0, 0, 0.6, *THERE)]
    own = curve(labels, detections_of(rows), 0)
    assert own.f1.tolist() == [2 / 3, 1 / 2, 2 / 5, 2 / 3]
    assert own.best_f1().score == 0.9


def test_labels_of_a_setting_left_out_are_regions():
    ignored = np.array([False, True, False, False, False, False])
    own = curve(LABELS, FOUND, 0, is_ignored=ignored)
    assert own.num_labels == 3
    assert own.best_f1().recall == 1


def test_region_without_a_class_holds_for_every_class():
    labels = labels_of([(0, -1, True, *HERE), (0, 1, False, *AWAY)], 1, NAMES)
    found = detections_of([(0, 1, 0.9, *HERE), (0, 1, 0.8, *AWAY)])
    assert curve(labels, found, 1).precision.tolist() == [1]


def test_class_without_labels_has_precision_and_no_recall():
    labels = labels_where(LABELS, LABELS.classes == 1)
    own = curve(labels, FOUND, 0)
    assert own.num_labels == 0
    assert np.isnan(own.recall).all()
    assert np.isnan(own.f1).all()
    assert own.best_f1() is None
    assert math.isnan(own.at_fppi(1).recall)


def test_class_of_which_nothing_is_detected_or_nothing_right():
    own = curve(LABELS, FOUND, 1)
    assert (own.scores.size, own.num_labels) == (0, 1)
    assert own.best_f1() is own.at_fppi(10) is None
    wrong = curve(LABELS, detections_of([(4, 1, 0.9, *HERE)]), 1)
    assert wrong.best_f1() is None
    assert wrong.at_fppi(1).precision == 0


def test_no_image_at_all():
    own = curve(labels_of([], 0, NAMES), detections_of([]), 0)
    assert (own.num_images, own.scores.size) == (0, 0)


def test_iou_threshold_counts():
    labels = labels_of([(0, 0, False, 0, 0, 100, 100)], 1, NAMES)
    found = detections_of([(0, 0, 0.9, 0, 0, 100, 60)])
    assert curve(labels, found, 0, iou_threshold=0.6).recall.tolist() == [1]
    assert curve(labels, found, 0, iou_threshold=0.61).recall.tolist() == [0]


def test_thinned_curve_keeps_the_ends_and_the_best():
    rng = np.random.default_rng(0)
    labels = labels_of([(n, 0, False, *HERE) for n in range(200)], 300, NAMES)
    rows = [(n, 0, rng.uniform(0.4, 1), *HERE) for n in range(180)]
    rows += [(int(rng.integers(300)), 0, rng.uniform(0, 0.9), *AWAY) for _ in range(5000)]
    own = curve(labels, detections_of(rows), 0)
    thin = own.thinned(50)
    assert 25 < len(thin.scores) <= 50
    assert thin.best_f1() == own.best_f1()
    assert (thin.scores[0], thin.scores[-1]) == (own.scores[0], own.scores[-1])
    assert set(thin.scores) <= set(own.scores)
    assert np.abs(np.diff(thin.recall)).max() < 0.1  # no gap that could be seen
    assert own.thinned(len(own.scores)) is own


@pytest.mark.parametrize("fppi", [-0.1, math.nan])
def test_number_of_false_positives_must_be_one(fppi):
    with pytest.raises(ConfigError, match="false positives an image must be 0 or more, got"):
        curve(LABELS, FOUND, 0).at_fppi(fppi)


def test_unusable_arguments_are_named():
    with pytest.raises(ValueError, match="class_index must be 0..1, got 2"):
        curve(LABELS, FOUND, 2)
    with pytest.raises(ConfigError, match="IoU threshold must be above 0 and at most 1, got 1.5"):
        curve(LABELS, FOUND, 0, iou_threshold=1.5)
    with pytest.raises(ValueError, match="is_ignored has shape"):
        curve(LABELS, FOUND, 0, is_ignored=np.zeros(1, dtype=bool))
    with pytest.raises(ValueError, match="max_points must be 3 or more, got 2"):
        curve(LABELS, FOUND, 0).thinned(2)


@pytest.mark.parametrize(
    ("method", "misses"),
    [
        ("MLPD", [20.82, 16.56, 13.06, 8.80, 7.01, 5.70, 4.40, 3.57, 3.30]),
        ("MSDS-RCNN", [29.83, 23.09, 17.59, 12.85, 10.10, 7.56, 6.87, 6.32, 5.98]),
    ],
)
def test_published_misses_are_those_at_their_numbers_of_false_positives(
    kaist_labels, kaist_detections, method, misses
):
    """Source: the MATLAB tool that published miss rates come from, at FPPI 10^(-2 + k/4)."""
    ignored_labels = ignored(kaist_labels, KAIST.settings[0])
    own = curve(kaist_labels, kaist_detections(method), 0, is_ignored=ignored_labels)
    assert (own.num_labels, own.num_images) == (1455, 2252)
    found = [100 - 100 * own.at_fppi(10 ** (-2 + k / 4)).recall for k in range(9)]
    assert found == pytest.approx(misses, abs=0.005)


@pytest.mark.slow
def test_a_million_detections_take_seconds():
    labels, found = million_detections()
    start = time.process_time()
    for own in (curve(labels, found, index) for index in range(3)):
        assert own.best_f1() is not None
    assert time.process_time() - start < 10


def test_any_threshold_has_a_point():
    found = curve(LABELS, FOUND, 0)
    for score in (0.9, 0.8, 0.7, 0.2):
        index = found.scores.tolist().index(score)
        at = found.at_score(score)
        assert (at.precision, at.recall, at.f1, at.fppi) == tuple(
            float(column[index]) for column in (found.precision, found.recall, found.f1, found.fppi)
        )
    between = found.at_score(0.5)
    assert (between.score, between.precision, between.recall) == (0.5, 3 / 4, 3 / 4)
    assert between.fppi == 1 / 5


def test_a_threshold_above_all_scores_finds_nothing_and_has_no_precision():
    at = curve(LABELS, FOUND, 0).at_score(0.95)
    assert math.isnan(at.precision)
    assert (at.score, at.recall, at.f1, at.fppi) == (0.95, 0.0, 0.0, 0.0)


def test_without_labels_a_threshold_above_all_scores_has_no_recall_either():
    nothing = labels_where(LABELS, LABELS.is_ignore)
    at = curve(nothing, FOUND, 0).at_score(2.0)
    assert math.isnan(at.recall)
    assert math.isnan(at.f1)
