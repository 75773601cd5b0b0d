import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_scenes import (
    detections_of,
    labels_of,
    million_detections,
    overlap,
    plain_assignment,
    random_scene,
)

from d2pd.errors import ConfigError
from d2pd.evaluation.arrays import labels_to_find
from d2pd.evaluation.confusion import confusion_matrix
from d2pd.evaluation.operating_points import curve

NAMES = ("person", "cyclist")
HERE, THERE, AWAY = (0, 0, 40, 100), (200, 0, 40, 100), (400, 300, 40, 100)
SEEDS = st.integers(0, 2**32)
THRESHOLDS = st.sampled_from([0.0, 0.25, 0.5, 0.7, 2.0])


def plain_confusion(labels, detections, score_threshold, iou_threshold, is_ignored):
    """The rules of the docstring as loops."""
    background = len(labels.class_names)
    matrix = np.zeros((background + 1, background + 1), dtype=int)
    is_wanted = ~labels.is_ignore & (labels.classes >= 0) & ~is_ignored
    own = plain_assignment(labels, detections, is_wanted, iou_threshold)
    shown = [d for d, score in enumerate(detections.scores) if score >= score_threshold]
    found = {own[d] for d in shown if isinstance(own[d], int)}
    free = [g for g in np.flatnonzero(is_wanted) if g not in found]
    for d in shown:
        if own[d] == "region":
            continue
        category = detections.classes[d]
        if own[d] is not None:
            matrix[category, category] += 1
            continue
        best, best_iou = None, iou_threshold
        for g in free:
            iou, _ = overlap(detections.boxes_xywh[d], labels.boxes_xywh[g])
            if labels.image_index[g] == detections.image_index[d] and iou >= best_iou:
                best, best_iou = g, iou
        if best is not None:
            free.remove(best)
        matrix[background if best is None else labels.classes[best], category] += 1
    for g in free:
        matrix[labels.classes[g], background] += 1
    return matrix


def some_ignored(labels, seed):
    return np.random.default_rng(seed).random(len(labels.classes)) < 0.2


@settings(deadline=None, max_examples=80)
@given(
    seed=SEEDS, score=THRESHOLDS, iou=st.sampled_from([0.3, 0.5, 0.75]), classes=st.integers(1, 3)
)
def test_equal_to_the_rules_as_loops(seed, score, iou, classes):
    labels, found = random_scene(seed, classes)
    ignored = some_ignored(labels, seed)
    matrix = confusion_matrix(
        labels, found, score_threshold=score, iou_threshold=iou, is_ignored=ignored
    )
    assert matrix.tolist() == plain_confusion(labels, found, score, iou, ignored).tolist()


def test_random_scenes_hold_all_that_can_happen():
    """Else the test above says little: each kind of cell is there, and detections not counted."""
    total = np.zeros((4, 4), dtype=int)
    num_shown = 0
    for seed in range(20):
        labels, found = random_scene(seed)
        total += confusion_matrix(labels, found, score_threshold=0.5)
        num_shown += np.count_nonzero(found.scores >= 0.5)
    assert total[3, 3] == 0
    assert (total.ravel()[:-1] > 0).all()
    assert total[:, :3].sum() < num_shown


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, score=THRESHOLDS)
def test_rows_are_the_labels_and_columns_the_counted_detections(seed, score):
    labels, found = random_scene(seed)
    ignored = some_ignored(labels, seed)
    matrix = confusion_matrix(labels, found, score_threshold=score, is_ignored=ignored)
    is_wanted = labels_to_find(labels, ignored)
    for index in range(3):
        assert matrix[index].sum() == np.count_nonzero(is_wanted & (labels.classes == index))
        own = curve(labels, found, index, is_ignored=ignored)
        points = np.count_nonzero(own.scores >= score)
        counted = matrix[:, index].sum()
        if points:
            assert matrix[index, index] / counted == own.precision[points - 1]
            assert own.fppi[points - 1] * own.num_images == pytest.approx(
                counted - matrix[index, index]
            )
        else:
            assert counted == 0


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_labels_as_detections_are_on_the_diagonal(seed):
    labels, _ = random_scene(seed)
    wanted = np.flatnonzero(labels_to_find(labels))
    rows = [(labels.image_index[g], labels.classes[g], 1.0, *labels.boxes_xywh[g]) for g in wanted]
    if rows:
        matrix = confusion_matrix(labels, detections_of(rows), score_threshold=0.5)
        assert matrix.sum() == np.trace(matrix) == len(wanted)


def test_matrix_by_hand():
    labels = labels_of(
        [
            (0, 0, False, *HERE),
            (0, 1, False, *THERE),
            (1, 0, False, *HERE),
            (1, 1, False, *AWAY),
            (2, 0, True, *HERE),
        ],
        3,
        NAMES,
    )
    found = detections_of(
        [
            (0, 0, 0.9, *HERE),  # person found
            (0, 0, 0.8, *HERE),  # once more: background
            (0, 0, 0.7, *THERE),  # cyclist taken for a person
            (1, 1, 0.6, *THERE),  # cyclist on nothing
            (1, 0, 0.4, *HERE),  # below the threshold: not found
            (2, 0, 0.9, 5, 5, 20, 20),  # in a region to ignore
            (2, 1, 0.9, 5, 5, 20, 20),  # which does not excuse another class
        ]
    )
    matrix = confusion_matrix(labels, found, score_threshold=0.5)
    assert matrix.tolist() == [[1, 0, 1], [1, 0, 1], [1, 2, 0]]


def test_label_goes_to_its_own_class_before_a_higher_score_of_another():
    labels = labels_of([(0, 0, False, *HERE)], 1, NAMES)
    found = detections_of([(0, 1, 0.9, *HERE), (0, 0, 0.6, 0, 0, 40, 60)])
    assert confusion_matrix(labels, found, score_threshold=0.5).tolist() == [
        [1, 0, 0],
        [0, 0, 0],
        [0, 1, 0],
    ]
    without = confusion_matrix(labels, found, score_threshold=0.7)
    assert without.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("category", "expected"), [(-1, [0, 0, 0]), (0, [0, 1, 0]), (1, [1, 0, 0])]
)
def test_region_excuses_its_class_and_without_a_class_every_one(category, expected):
    labels = labels_of([(0, category, True, *AWAY)], 1, NAMES)
    found = detections_of([(0, 0, 0.9, 410, 310, 20, 20), (0, 1, 0.9, 410, 310, 20, 20)])
    matrix = confusion_matrix(labels, found, score_threshold=0.5)
    assert matrix.tolist() == [[0, 0, 0], [0, 0, 0], expected]


def test_nothing_to_find_and_nothing_found():
    empty = labels_of([], 2, NAMES)
    nothing = detections_of([])
    assert not confusion_matrix(empty, nothing, score_threshold=0.5).any()
    labels = labels_of([(0, 1, False, *HERE)], 2, NAMES)
    assert confusion_matrix(labels, nothing, score_threshold=0.5)[1].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("score_threshold", "iou_threshold", "text"),
    [
        (float("nan"), 0.5, "the score threshold is NaN; give a number, such as 0.5"),
        (0.5, 0, "IoU threshold must be above 0 and at most 1, got 0"),
    ],
)
def test_thresholds_out_of_range_are_named(score_threshold, iou_threshold, text):
    labels = labels_of([(0, 0, False, *HERE)], 1, NAMES)
    found = detections_of([(0, 0, 0.9, *HERE)])
    with pytest.raises(ConfigError, match=text):
        confusion_matrix(
            labels, found, score_threshold=score_threshold, iou_threshold=iou_threshold
        )


def test_ignored_that_does_not_fit_is_an_error():
    labels = labels_of([(0, 0, False, *HERE)], 1, NAMES)
    with pytest.raises(ValueError, match=r"is_ignored has shape \(3,\) for 1 labels"):
        confusion_matrix(
            labels, detections_of([]), score_threshold=0.5, is_ignored=np.zeros(3, dtype=bool)
        )


@pytest.mark.slow
def test_a_million_detections_take_seconds():
    labels, found = million_detections()
    start = time.process_time()
    matrix = confusion_matrix(labels, found, score_threshold=0.0)
    assert time.process_time() - start < 10
    assert matrix[:3].sum() == len(labels.classes)
