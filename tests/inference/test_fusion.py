"""Weighted boxes fusion: what it must keep, by hand, and as the reference implementation has it."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.inference.fusion import fuse

NOTHING = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))


def source(*rows):
    """A source of (x1, y1, x2, y2, score) or (x1, y1, x2, y2, score, class) rows."""
    table = np.array([(*row, 0)[:6] for row in rows], dtype=np.float64)
    return table[:, :4], table[:, 4], table[:, 5].astype(np.int64)


def assert_fused(found, *rows):
    for part, expected in zip(found, source(*rows), strict=True):
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-9)


def assert_same(one, other):
    for part, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(part, expected)


@st.composite
def sources(draw, min_sources=1):
    """A few objects, seen by each source a little differently, more than once or not at all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_objects, num_sources = draw(st.integers(0, 6)), draw(st.integers(min_sources, 4))
    starts, sides = rng.integers(0, 60, (num_objects, 2)), rng.integers(4, 40, (num_objects, 2))
    classes = rng.integers(0, 2, num_objects)
    levels = draw(st.sampled_from([2, 5, 1000]))  # few levels make equal scores
    found = []
    for _ in range(num_sources):
        rows = np.repeat(np.arange(num_objects), rng.integers(0, 3, num_objects))
        moved = starts[rows] + rng.integers(-2, 3, (len(rows), 2))
        scores = rng.integers(0, levels + 1, len(rows)) / levels
        found.append((np.hstack([moved, moved + sides[rows]]) * 1.0, scores, classes[rows]))
    return found


@st.composite
def separate_boxes(draw):
    """Boxes on a grid, which do not touch."""
    places = draw(st.lists(st.integers(0, 24), unique=True, max_size=8))
    corners = np.array([(place % 5 * 20, place // 5 * 20) for place in places]).reshape(-1, 2)
    size = st.floats(1, 15)
    sizes = draw(st.lists(st.tuples(size, size), min_size=len(places), max_size=len(places)))
    of_all = {"min_size": len(places), "max_size": len(places)}
    scores = draw(st.lists(st.floats(0, 1), **of_all))
    classes = draw(st.lists(st.integers(0, 2), **of_all))
    boxes = np.hstack([corners, corners + np.array(sizes).reshape(-1, 2)])
    return boxes, np.array(scores), np.array(classes, dtype=np.int64)


def rows_of(found):
    return sorted(zip(found[0].tolist(), found[1].tolist(), found[2].tolist(), strict=True))


@given(separate_boxes())
def test_one_source_of_separate_boxes_comes_back_unchanged(only):
    found = fuse([only])

    assert rows_of(found) == rows_of(only)
    assert (np.diff(found[1]) <= 0).all()


@given(sources(min_sources=2), st.randoms(use_true_random=False))
def test_the_order_of_sources_and_of_detections_changes_nothing(found, random):
    order = random.sample(range(len(found)), len(found))
    shuffled = []
    for number in order:
        rows = random.sample(range(len(found[number][1])), len(found[number][1]))
        shuffled.append(tuple(part[rows] for part in found[number]))

    assert_same(fuse(found), fuse(shuffled))


@given(separate_boxes(), st.integers(2, 4))
def test_sources_that_agree_give_what_each_says(only, count):
    alone, together = fuse([only]), fuse([only] * count)

    one, other = rows_of(alone), rows_of(together)
    assert len(one) == len(other)
    for (box, score, number), (fused, mean, same) in zip(one, other, strict=True):
        assert number == same
        assert mean == pytest.approx(score, rel=1e-12)
        np.testing.assert_allclose(fused, box, rtol=1e-12)


@given(sources())
def test_scores_stay_in_0_to_1_and_boxes_in_the_hull_of_their_class(found):
    boxes, scores, classes = fuse(found)

    assert ((scores >= 0) & (scores <= 1)).all()
    assert (np.diff(scores) <= 0).all()
    for number in set(classes.tolist()):
        given_boxes = np.concatenate([b[c == number] for b, _, c in found])
        fused = boxes[classes == number]
        assert (fused >= given_boxes.min(axis=0) - 1e-9).all()
        assert (fused <= given_boxes.max(axis=0) + 1e-9).all()


@given(sources(), st.sampled_from([0.25, 2.0, 1024.0]))
def test_boxes_of_another_unit_are_fused_the_same(found, factor):
    boxes, scores, classes = fuse(found)

    scaled = fuse([(b * factor, s, c) for b, s, c in found])

    assert_same(scaled, (boxes * factor, scores, classes))


@given(sources())
def test_classes_are_fused_each_on_its_own(found):
    together = rows_of(fuse(found))

    alone = [
        rows_of(fuse([tuple(part[c == number] for part in (b, s, c)) for b, s, c in found]))
        for number in (0, 1)
    ]

    assert together == sorted(alone[0] + alone[1])


@given(separate_boxes(), st.integers(1, 4))
def test_what_only_one_of_the_sources_sees_keeps_its_share_of_the_score(only, others):
    boxes, scores, _ = fuse([NOTHING] * others + [only])

    assert sorted(boxes.tolist()) == sorted(only[0].tolist())
    np.testing.assert_allclose(np.sort(scores), np.sort(only[1]) / (others + 1), rtol=1e-12)


def test_two_sources_by_hand():
    first = source((0, 0, 10, 10, 0.9), (50, 50, 60, 60, 0.8))
    second = source((0, 0, 10, 8, 0.6))

    found = fuse([first, second])

    assert_fused(found, (0, 0, 10, (0.9 * 10 + 0.6 * 8) / 1.5, 0.75), (50, 50, 60, 60, 0.4))


def test_more_boxes_than_sources_count_as_one_of_each():
    assert_fused(fuse([source((0, 0, 10, 10, 0.9), (0, 0, 10, 8, 0.6))]), (0, 0, 10, 9.2, 0.75))


def test_an_overlap_of_just_the_threshold_is_none():
    pair = [source((0, 0, 10, 10, 0.9)), source((0, 0, 10, 5, 0.5))]

    assert len(fuse(pair, iou_threshold=0.5)[1]) == 2
    assert len(fuse(pair, iou_threshold=0.49)[1]) == 1


def test_a_box_joins_the_cluster_it_overlaps_most_as_the_cluster_stands():
    first = source((0, 0, 10, 10, 0.9), (0, 4, 10, 14, 0.8))
    second = source((0, 3, 10, 13, 0.7))

    boxes, scores, _ = fuse([first, second], iou_threshold=0.5)

    np.testing.assert_allclose(boxes[:, 1], [(0.8 * 4 + 0.7 * 3) / 1.5, 0])
    np.testing.assert_allclose(scores, [0.75, 0.45])


def test_scores_of_0_have_no_say_and_harm_nothing():
    pair = [source((0, 0, 10, 10, 0.0)), source((0, 0, 10, 8, 0.0))]
    with_a_score = source((0, 0, 10, 9, 0.6))

    assert_fused(fuse(pair), (0, 0, 10, 8, 0))
    assert_fused(fuse([*pair, with_a_score]), (0, 0, 10, 9, 0.2))


def test_boxes_without_area_stay_alone():
    found = fuse([source((3, 3, 3, 9, 0.8))] * 2)

    assert_fused(found, (3, 3, 3, 9, 0.4), (3, 3, 3, 9, 0.4))


def test_equal_scores_come_in_the_order_of_class_and_place():
    rows = [(50, 0, 60, 10, 0.5, 0), (0, 0, 10, 10, 0.5, 1), (20, 0, 30, 10, 0.5, 0)]

    assert_fused(fuse([source(*rows)]), rows[2], rows[0], rows[1])


def test_sources_without_detections_give_none():
    boxes, scores, classes = fuse([NOTHING, ([], [], [])])

    assert boxes.shape == (0, 4)
    assert scores.shape == classes.shape == (0,)
    assert classes.dtype == np.int64


SCENE = [
    source(
        (0.10, 0.10, 0.30, 0.50, 0.9),
        (0.12, 0.11, 0.31, 0.52, 0.35),
        (0.60, 0.20, 0.70, 0.45, 0.8),
        (0.40, 0.60, 0.50, 0.90, 0.2, 1),
    ),
    source(
        (0.11, 0.09, 0.30, 0.49, 0.7),
        (0.61, 0.22, 0.71, 0.44, 0.85),
        (0.41, 0.61, 0.50, 0.88, 0.6, 1),
    ),
    source(
        (0.10, 0.12, 0.29, 0.51, 0.95),
        (0.63, 0.20, 0.72, 0.47, 0.4),
        (0.05, 0.70, 0.15, 0.95, 0.5),
        (0.10, 0.10, 0.30, 0.50, 0.3, 1),
    ),
]


def test_a_scene_is_fused_as_ensemble_boxes_1_0_9_does():
    expected = source(
        (0.104828, 0.105345, 0.297931, 0.503276, 0.725),
        (0.61, 0.208293, 0.708049, 0.449756, 0.683333),
        (0.4075, 0.6075, 0.5, 0.885, 0.266667, 1),
        (0.05, 0.7, 0.15, 0.95, 0.166667),
        (0.1, 0.1, 0.3, 0.5, 0.1, 1),
    )
    for part, reference in zip(fuse(SCENE), expected, strict=True):
        np.testing.assert_allclose(part, reference, rtol=0, atol=1e-6)


BOX = [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (([[0, 0, np.nan, 1]], [0.5], [0]), "source 1: boxes must be finite"),
        (([[0, 0, np.inf, 1]], [0.5], [0]), "source 1: boxes must be finite"),
        (([[2, 0, 1, 1]], [0.5], [0]), "with x1 <= x2"),
        ((BOX, [np.nan], [0]), "source 1: scores must be in"),
        ((BOX, [1.01], [0]), "source 1: scores must be in"),
        ((BOX, [-0.1], [0]), "source 1: scores must be in"),
        ((BOX, [0.5, 0.5], [0, 0]), r"belong together; got \(1, 4\), \(2,\) and \(2,\)"),
        ((BOX, [0.5], [0, 1]), "belong together"),
        (([[0, 0, 1]], [0.5], [0]), "belong together"),
        ((BOX, [0.5], [0.5]), "whole numbers, got float64"),
    ],
)
def test_a_source_that_is_not_sound_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        fuse([NOTHING, bad])


@pytest.mark.parametrize("threshold", [0.0, 1.0, np.nan])
def test_a_threshold_out_of_its_range_is_refused(threshold):
    with pytest.raises(ValueError, match="iou_threshold must be in"):
        fuse([NOTHING, NOTHING], iou_threshold=threshold)


def test_nothing_to_fuse_is_an_error():
    with pytest.raises(ValueError, match="at least one source"):
        fuse([])


def test_three_sources_of_300_boxes_take_a_fraction_of_a_second():
    rng = np.random.default_rng(0)
    starts, sides = rng.uniform(0, 900, (300, 2)), rng.uniform(10, 100, (300, 2))
    scene = []
    for _ in range(3):
        moved = starts + rng.normal(0, 2, (300, 2))
        scores, classes = rng.uniform(0, 1, 300), np.zeros(300, dtype=np.int64)
        scene.append((np.hstack([moved, moved + sides]), scores, classes))

    start = time.perf_counter()
    found = fuse(scene)

    assert time.perf_counter() - start < 1  # 0.02 s on an idle core
    assert 250 < len(found[1]) < 600
