"""Intervals of the miss rate over images drawn again."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miss_rate_toys import EVERY, SMALL, Case, cases, make_detections, make_labels

from d2pd.errors import ConfigError
from d2pd.evaluation import bootstrap
from d2pd.evaluation.bootstrap import intervals, resampled
from d2pd.evaluation.miss_rate import COMPAT, RULES, STRICT, miss_rates
from d2pd.evaluation.subsets import KAIST
from d2pd.evaluation.tally import Rules, tallies


@pytest.mark.parametrize("method", ["MLPD", "MSDS-RCNN"])
def test_the_interval_holds_the_published_value(method, kaist_labels, kaist_detections):
    data = (kaist_labels, kaist_detections(method), KAIST)
    rates, found = miss_rates(*data), intervals(*data)
    assert list(found) == list(rates)
    for name, (low, high) in found.items():
        assert low <= rates[name].value <= high
    low, high = found["reasonable/all"]
    assert 1 < high - low < 5
    assert (low, high) != (0, 100)


def test_equal_seeds_give_equal_numbers(kaist_labels, kaist_detections):
    data = (kaist_labels, kaist_detections("MLPD"), replace(KAIST, settings=KAIST.settings[:1]))
    first = intervals(*data, repetitions=50, seed=4)
    assert intervals(*data, repetitions=50, seed=4) == first
    assert intervals(*data, repetitions=50, seed=5) != first
    assert intervals(*data, COMPAT, repetitions=50, seed=4) != first
    assert intervals(*data, iou_threshold=0.75, repetitions=50, seed=4) != first


def test_a_subset_keeps_its_interval_whatever_else_is_asked_for(kaist_labels, kaist_detections):
    data = (kaist_labels, kaist_detections("MLPD"))
    alone = replace(KAIST, settings=KAIST.settings[2:3])
    together = intervals(*data, replace(KAIST, settings=KAIST.settings[:3]), repetitions=20)
    assert intervals(*data, alone, repetitions=20).items() <= together.items()


def test_each_image_once_gives_the_plain_value(kaist_labels, kaist_detections):
    data = (kaist_labels, kaist_detections("MSDS-RCNN"), KAIST)
    for rules in RULES.values():
        rates = miss_rates(*data, rules)
        for name, tally in tallies(*data):
            once = np.ones((3, rates[name].num_images), dtype=np.int32)
            assert resampled(tally, once, rules).tolist() == [rates[name].value] * 3


def duplicated(case: Case, weights) -> Case:
    """Write every image as often as it was drawn, one beside the other."""
    copies = np.repeat(np.arange(len(case.names)), weights)
    new = {old: np.flatnonzero(copies == old).tolist() for old in range(len(case.names))}
    return Case(
        [case.names[old] for old in copies],
        [(n, *row[1:]) for row in case.labels for n in new[row[0]]],
        [(n, *row[1:]) for row in case.detections for n in new[row[0]]],
    )


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(0, 2**32), st.builds(Rules, *[st.booleans()] * 4))
def test_a_resample_is_what_explicit_copies_give(case, seed, rules):
    generator = np.random.default_rng(seed)
    # Scores differ, also those of the copies of other images.
    scores = generator.permutation(len(case.detections)).tolist()
    rows = [(*row[:-1], score) for row, score in zip(case.detections, scores, strict=True)]
    case = Case(case.names, case.labels, rows)
    number = len(case.names)
    weights = np.bincount(generator.integers(number, size=number), minlength=number)
    copies = miss_rates(*duplicated(case, weights).arrays, everywhere(SMALL), rules)
    for name, tally in tallies(*case.arrays, everywhere(SMALL)):
        (value,) = resampled(tally, weights[None], rules)
        assert copies[name].num_images == number
        np.testing.assert_equal(value, copies[name].value)


def everywhere(protocol):
    return replace(protocol, splits=protocol.splits[:1])


def test_resamples_of_real_data_are_what_explicit_copies_give(kaist_labels, kaist_lines):
    found = kaist_lines("MLPD")
    # Ties inside an image stand in another order among copies; MLPD's are few: made to differ.
    found[:, 5] += np.arange(len(found)) * 1e-9
    rows = [(int(row[0]) - 1, *row[1:]) for row in found.tolist()]
    columns = (*kaist_labels.boxes_xywh.T, kaist_labels.is_ignore, kaist_labels.occlusion)
    labels = [
        (int(image), *map(float, row))
        for image, *row in zip(kaist_labels.image_index, *columns, strict=True)
    ]
    case = Case(list(kaist_labels.image_names), labels, rows)
    weights = bootstrap._draw(np.random.default_rng(1), 2, 2252)
    assert weights.sum(axis=1).tolist() == [2252, 2252]
    protocol = everywhere(replace(KAIST, settings=KAIST.settings[:2]))
    values = {name: resampled(tally, weights) for name, tally in tallies(*case.arrays, protocol)}
    for number in range(2):
        copies = miss_rates(*duplicated(case, weights[number]).arrays, protocol)
        for name, value in values.items():
            assert value[number] == copies[name].value


def test_many_false_positives_are_added_up_as_far_as_they_matter():
    # All false positives are on one image: resamples without it need the whole curve.
    labels = make_labels(["a", "b", "c"], [(n, 0, 0, 10, 20, 0, 0) for n in range(3)])
    wrong = [(0, 300 + n, 0, 10, 20, 0.9) for n in range(400)]
    found = make_detections([*wrong, (1, 0, 0, 10, 20, 0.5)])
    ((_, tally),) = tallies(labels, found, EVERY)
    weights = np.array([[1, 1, 1], [0, 2, 1], [0, 0, 3], [3, 0, 0]])
    assert resampled(tally, weights)[[0, 2, 3]].tolist() == [100] * 3
    assert resampled(tally, weights)[1] == pytest.approx(100 / 3)


def test_lots_of_any_size_give_the_same_numbers(monkeypatch):
    rows = [(n, 0, 0, 9, 9, 0, 0) for n in range(7)]
    found = [(n, 300 * (n % 2), 0, 9, 9, 0.5 - n) for n in range(7)]
    case = Case([f"I{n}" for n in range(7)], rows, found)
    at_once = intervals(*case.arrays, EVERY, repetitions=40)["every/all"]
    monkeypatch.setattr(bootstrap, "NUMBERS_AT_ONCE", 21)
    assert intervals(*case.arrays, EVERY, repetitions=40)["every/all"] == at_once
    assert 0 < at_once[0] < at_once[1] < 100


def test_without_a_label_to_find_there_is_no_interval():
    labels, found = make_labels(["a", "b"], []), make_detections([(0, 0, 0, 9, 9, 0.5)])
    low, high = intervals(labels, found, EVERY)["every/all"]
    assert math.isnan(low)
    assert math.isnan(high)
    nowhere = intervals(make_labels([], []), make_detections([]), EVERY)["every/all"]
    assert math.isnan(nowhere[0])


def test_resamples_without_a_label_do_not_count():
    # One of two images holds the label: a quarter of the resamples has none, and no number.
    labels = make_labels(["a", "b"], [(0, 0, 0, 9, 9, 0, 0)])
    assert intervals(labels, make_detections([]), EVERY)["every/all"] == (100, 100)


def test_wrong_arguments_are_refused():
    labels, found = make_labels(["a"], []), make_detections([])
    with pytest.raises(ValueError, match="repetitions must be 1 or more, got 0"):
        intervals(labels, found, EVERY, repetitions=0)
    with pytest.raises(ConfigError, match="IoU threshold"):
        intervals(labels, found, EVERY, STRICT, 0)
