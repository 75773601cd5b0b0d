"""The log-average miss rate: published numbers, properties, each rule by itself."""

import math
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import detections_of_lines
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from miss_rate_toys import EVERY, SMALL, Case, cases, make_detections, make_labels, plain

from d2pd.errors import ConfigError
from d2pd.evaluation import assignment
from d2pd.evaluation.arrays import DetectionArrays
from d2pd.evaluation.miss_rate import (
    COMPAT,
    RULES,
    STRICT,
    differences,
    miss_rates,
)
from d2pd.evaluation.subsets import KAIST, Setting
from d2pd.evaluation.tally import REFERENCES, ROUNDED_REFERENCES, Rules

REASONABLE = ("reasonable/all", "reasonable/day", "reasonable/night")
NO_DETECTIONS = make_detections([])

COMPAT_VALUES = {
    "MLPD": (7.5756, 7.9637, 6.9476),
    "MSDS-RCNN": (11.3361, 10.5400, 12.9386),
}
STRICT_VALUES = {
    "MLPD": (7.58, 7.95, 6.95, 0.00, 12.10, 52.79, 25.18, 29.84, 55.05),
    "MSDS-RCNN": (11.34, 10.53, 12.94, 1.29, 16.19, 63.73, 29.96, 38.71, 63.37),
}
OTHER_SUBSETS = ("near/all", "medium/all", "far/all", "none/all", "partial/all", "heavy/all")
AT_75 = {"MLPD": (66.80, 65.59, 69.14), "MSDS-RCNN": (70.57, 67.36, 79.25)}
MISSES = {
    "MLPD": (20.82, 16.56, 13.06, 8.80, 7.01, 5.70, 4.40, 3.57, 3.30),
    "MSDS-RCNN": (29.83, 23.09, 17.59, 12.85, 10.10, 7.56, 6.87, 6.32, 5.98),
}
METHODS = sorted(MISSES)


def rounded(rates, names=REASONABLE, digits=2):
    return tuple(round(rates[name].value, digits) for name in names)


@pytest.mark.parametrize("method", METHODS)
class TestPublished:
    def test_compat_gives_the_published_numbers(self, method, kaist_labels, kaist_detections):
        rates = miss_rates(kaist_labels, kaist_detections(method), KAIST, COMPAT)
        assert rounded(rates, digits=4) == COMPAT_VALUES[method]
        recall = {"MLPD": 96.7010, "MSDS-RCNN": 94.2955}[method]
        assert round(rates["reasonable/all"].recall, 4) == recall

    def test_strict_gives_those_of_the_matlab_tool(self, method, kaist_labels, kaist_detections):
        rates = miss_rates(kaist_labels, kaist_detections(method), KAIST)
        assert rounded(rates, REASONABLE + OTHER_SUBSETS) == STRICT_VALUES[method]
        assert len(rates) == 21
        assert (rates["reasonable/all"].num_labels, rates["reasonable/all"].num_images) == (
            1455,
            2252,
        )
        at_references = rates["reasonable/all"].at_references
        assert tuple(at_references.round(2).tolist()) == MISSES[method]

    def test_order_of_the_lines_changes_nothing(self, method, kaist_labels, kaist_lines):
        lines = kaist_lines(method)
        shuffled = np.random.default_rng(3).permutation(lines)
        for rules in RULES.values():
            before, after = (
                miss_rates(kaist_labels, detections_of_lines(rows), KAIST, rules)
                for rows in (lines, shuffled)
            )
            for name, rate in before.items():
                np.testing.assert_equal(vars(after[name]), vars(rate))

    def test_iou_75(self, method, kaist_labels, kaist_lines):
        # With lines in their own order where scores tie: the published figures go by it.
        lines = kaist_lines(method)
        order = np.lexsort((-lines[:, 5], lines[:, 0]))
        found = DetectionArrays(
            image_index=lines[order, 0].astype(np.int64) - 1,
            boxes_xywh=lines[order, 1:5],
            scores=lines[order, 5],
            classes=np.zeros(len(lines), np.int64),
        )
        assert rounded(miss_rates(kaist_labels, found, KAIST, STRICT, 0.75)) == AT_75[method]

    def test_plain_reference_gives_the_same(self, method, kaist_labels, kaist_lines):
        lines = kaist_lines(method)
        expected = plain.one_subset(
            [True] * len(kaist_labels.image_names),
            plain_labels(kaist_labels),
            [(int(row[0]) - 1, *row[1:]) for row in lines.tolist()],
            **plain.SETTINGS["medium"],
        )
        rate = miss_rates(kaist_labels, detections_of_lines(lines), KAIST)["medium/all"]
        assert_same(rate, expected)


def test_iou_75_with_ties_broken_by_the_box(kaist_labels, kaist_detections):
    # MSDS-RCNN has 199 ties at score 1 inside an image: the order of its lines is worth 0.03.
    rates = miss_rates(kaist_labels, kaist_detections("MSDS-RCNN"), KAIST, STRICT, 0.75)
    assert rounded(rates) == (70.59, 67.33, 79.25)
    rates = miss_rates(kaist_labels, kaist_detections("MLPD"), KAIST, STRICT, 0.75)
    assert rounded(rates) == AT_75["MLPD"]


@pytest.mark.parametrize(
    ("method", "cut", "compat", "strict"),
    [
        ("MLPD", 0.3, 8.61, 8.96),
        ("MLPD", 0.5, 10.15, 10.81),
        ("MLPD", 0.7, 14.10, 15.83),
        ("MLPD", 0.9, 20.03, 23.99),
        ("MSDS-RCNN", 0.01, 12.86, 14.15),
        ("MSDS-RCNN", 0.1, 13.77, 15.46),
        ("MSDS-RCNN", 0.5, 15.50, 17.54),
    ],
)
def test_score_cuts(method, cut, compat, strict, kaist_labels, kaist_lines):
    lines = kaist_lines(method)
    found = detections_of_lines(lines[lines[:, 5] >= cut])
    for rules, expected in ((COMPAT, compat), (STRICT, strict)):
        rates = miss_rates(kaist_labels, found, KAIST, rules)
        assert rounded(rates, ["reasonable/all"]) == (expected,)
    assert (
        "labels, those on images without"
        in differences(kaist_labels, found, KAIST)["reasonable/all"]
    )


def test_a_detection_on_a_region_is_judged_by_its_own_area(
    kaist_labels, kaist_detections, monkeypatch
):

    found = assignment.overlaps
    monkeypatch.setattr(
        assignment,
        "overlaps",
        lambda *arguments: replace(found(*arguments), coverage=found(*arguments).iou),
    )
    rates = miss_rates(kaist_labels, kaist_detections("MLPD"), KAIST)
    assert rounded(rates, ["reasonable/all"]) == (12.38,)


def plain_labels(labels):
    columns = (labels.image_index, *labels.boxes_xywh.T, labels.is_ignore, labels.occlusion)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def assert_same(rate, expected):
    """Every count agrees exactly; a mean of logarithms to the last bits."""
    value, recall, misses = expected
    np.testing.assert_array_equal(rate.at_references, 100 * np.array(misses))
    assert rate.recall == pytest.approx(recall, rel=1e-15, nan_ok=True)
    assert rate.value == pytest.approx(value, rel=1e-12, nan_ok=True)


def all_rules():
    return st.builds(Rules, *[st.booleans()] * len(fields(Rules)))


@settings(max_examples=80, deadline=None)
@given(cases(), all_rules(), st.sampled_from([0.3, 0.5, 0.75]))
def test_plain_reference_agrees_on_random_data(case, rules, threshold):
    labels, found = case.arrays
    rates = miss_rates(labels, found, SMALL, rules, threshold)
    for setting in SMALL.settings:
        for split in SMALL.splits:
            expected = plain.one_subset(
                [not split.prefixes or name.startswith(split.prefixes) for name in case.names],
                case.labels,
                case.detections,
                height=(setting.min_height, setting.max_height),
                occlusion=setting.occlusion,
                bounds=setting.bounds,
                iou_threshold=threshold,
                **vars(rules),
            )
            assert_same(rates[f"{setting.name}/{split.name}"], expected)


def test_references_are_those_of_the_protocol():
    assert REFERENCES.tolist() == [10 ** (-2 + k / 4) for k in range(9)]
    rounded_ones = [0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.0000]
    assert ROUNDED_REFERENCES.tolist() == rounded_ones


@settings(max_examples=80, deadline=None)
@given(cases(), st.integers(0, 2**32))
def test_perfect_detections_give_0(case, seed):
    labels, _ = case.arrays
    has_area = (labels.boxes_xywh[:, 2:] > 0).all(axis=1)
    labels = make_labels(case.names, np.array(plain_labels(labels))[has_area].tolist())
    scores = np.random.default_rng(seed).permutation(len(labels.boxes_xywh))
    rows = zip(labels.image_index, *labels.boxes_xywh.T, scores, strict=True)
    found = make_detections(list(rows))
    exact = miss_rates(labels, found, SMALL, replace(STRICT, clamps=False))
    for name, rate in miss_rates(labels, found, SMALL).items():
        if rate.num_labels:
            # A miss of 0 counts as 1e-10, which is 1e-8 %.
            assert rate.value == pytest.approx(1e-8, rel=1e-9)
            assert exact[name].value == 0
            assert rate.recall == 100


@settings(max_examples=80, deadline=None)
@given(cases(), st.integers(0, 5), st.floats(-300, 2))
def test_a_false_positive_more_never_lowers_the_miss_rate(case, image, score):
    box = (image % min(len(case.names), 6), 900, 900, 9, 9, score)
    with_it = Case(case.names, case.labels, [*case.detections, box])
    before, after = (miss_rates(*one.arrays, SMALL) for one in (case, with_it))
    for name, rate in before.items():
        assert after[name].value >= rate.value or math.isnan(rate.value)


@settings(max_examples=80, deadline=None)
@given(cases(), all_rules())
def test_counting_the_lost_labels_alone_never_lowers_the_miss_rate(case, rules):
    lost, counted = (
        miss_rates(*case.arrays, SMALL, replace(rules, counts_empty_images=counts))
        for counts in (False, True)
    )
    for name, rate in lost.items():
        assert counted[name].value >= rate.value or math.isnan(rate.value)
        assert counted[name].num_labels >= rate.num_labels


@settings(max_examples=80, deadline=None)
@given(cases(scores=st.floats(-1e3, 1e3)), st.integers(-60, 60), all_rules())
def test_scores_scaled_by_a_power_of_two_change_nothing(case, exponent, rules):
    # What scaling makes too small to tell from 0 would tie.
    assume(all(row[-1] == 0 or abs(row[-1]) > 1e-200 for row in case.detections))
    scaled = [(*row[:-1], math.ldexp(row[-1], exponent)) for row in case.detections]
    before = miss_rates(*case.arrays, SMALL, rules)
    after = miss_rates(*Case(case.names, case.labels, scaled).arrays, SMALL, rules)
    for name, rate in before.items():
        np.testing.assert_equal(after[name].at_references, rate.at_references)
        np.testing.assert_equal(after[name].scores, np.ldexp(rate.scores, exponent))


def hundred_images(detections, labels=4):
    """A hundred images; a label each in the first ones. Detections are (image, is true, score)."""
    rows = [(n, 0, 0, 10, 20, 0, 0) for n in range(labels)]
    found = [(n, 0 if is_true else 300, 0, 10, 20, score) for n, is_true, score in detections]
    return make_labels([f"I{n}" for n in range(100)], rows), make_detections(found)


def ten_images(labels, detections):
    """Ten images; labels are in those from number 2 on."""
    rows = [(2 + n, 0, 0, 10, 20, 0, 0) for n in range(labels)]
    found = [(n, 0 if is_true else 300, 0, 10, 20, score) for n, is_true, score in detections]
    return make_labels([f"I{n}" for n in range(10)], rows), make_detections(found)


def rate_of(detections, rules=STRICT, labels=4):
    return miss_rates(*hundred_images(detections, labels), EVERY, rules)["every/all"]


def test_curve_and_misses_by_hand():
    # FPPI .01 with two labels found, then .02 with a third, .03 at the end.
    found = [(0, 1, 0.9), (9, 0, 0.8), (1, 1, 0.7), (9, 0, 0.6), (2, 1, 0.5), (9, 0, 0.4)]
    rate = rate_of(found)
    assert rate.at_references.tolist() == [50, 50, 25, 25, 25, 25, 25, 25, 25]
    assert rate.value == pytest.approx(100 * (0.5**2 * 0.25**7) ** (1 / 9))
    assert rate.recall == 75
    assert (rate.num_labels, rate.num_images) == (4, 100)
    assert rate.fppi.tolist() == [0, 0.01, 0.02, 0.03]
    assert rate.miss.tolist() == [0.75, 0.5, 0.25, 0.25]
    assert rate.scores.tolist() == [0.9, 0.7, 0.5, 0.4]


def test_equal_scores_count_in_the_order_of_the_images():
    late = [(0, 0, 0.5), (1, 0, 0.5), (2, 1, 0.5)]
    assert rate_of(late).at_references.tolist() == [100, 100, *[75] * 7]
    early = [(0, 1, 0.5), (8, 0, 0.5), (9, 0, 0.5)]
    assert rate_of(early).at_references.tolist() == [75] * 9


def test_lost_labels_are_those_on_images_without_a_detection():
    found = [(0, 1, 0.9), (1, 0, 0.8)]
    assert rate_of(found).at_references.tolist() == [75] * 9
    lost = rate_of(found, Rules(counts_empty_images=False))
    assert (lost.num_labels, lost.recall) == (2, 50)
    assert lost.at_references.tolist() == [50] * 9


def test_rounded_references_reach_further_or_less_far():
    # .0178 is above 10^-1.75: 178 false positives on 10,000 images are allowed, or are not.
    names = [f"I{n}" for n in range(10_000)]
    labels = make_labels(names, [(0, 0, 0, 10, 20, 0, 0), (1, 0, 0, 10, 20, 0, 0)])
    wrong = [(n, 300, 0, 10, 20, 0.9) for n in range(2, 180)]
    found = make_detections([*wrong, (0, 0, 0, 10, 20, 0.5)])
    exact, reached = (
        miss_rates(labels, found, EVERY, Rules(rounds_references=rounds))["every/all"]
        for rounds in (False, True)
    )
    assert exact.at_references.tolist() == [100, 100, *[50] * 7]
    assert reached.at_references.tolist() == [100, *[50] * 8]


def test_final_recall_is_taken_where_the_curve_has_no_point():
    found = [*((n, 0, 0.9) for n in range(10, 20)), (0, 1, 0.5)]
    assert rate_of(found).at_references.tolist() == [100] * 4 + [75] * 5
    # Its first point lies at .01.
    taken = Rules(takes_final_recall_where_none=True)
    assert rate_of(found, taken).at_references.tolist() == [100] * 4 + [75] * 5
    few = [(0, 0, 0.9), (1, 0, 0.8), (2, 1, 0.5)]
    labels = make_labels(
        [f"I{n}" for n in range(10)], [(2, 0, 0, 10, 20, 0, 0), (3, 0, 0, 9, 9, 0, 0)]
    )
    detections = make_detections([(n, 300 * (1 - t), 0, 10, 20, s) for n, t, s in few])
    for rules, first in ((STRICT, 100), (taken, 50)):
        rate = miss_rates(labels, detections, EVERY, rules)["every/all"]
        # Ten images: no point up to .0562, then one false positive, then two and the label.
        assert rate.at_references.tolist() == [first] * 4 + [100] * 2 + [50] * 3


def test_one_miss_of_0_makes_the_rate_0_unless_clamped():
    found = [(9, 0, 0.9), (8, 0, 0.9), *((n, 1, 0.5) for n in range(4))]
    assert rate_of(found).at_references.tolist() == [100, 100, *[0] * 7]
    assert rate_of(found).value == pytest.approx(100 * 1e-10 ** (7 / 9))
    assert rate_of(found, Rules(clamps=False)).value == 0


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_without_detections_the_miss_rate_is_100(rules):
    rate = rate_of([], rules)
    assert (rate.value, rate.recall) == (100, 0)
    assert rate.at_references.tolist() == [100] * 9
    assert rate.fppi.size == rate.miss.size == rate.scores.size == 0


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_detections_that_find_nothing_give_100(rules):
    # compat counts no label here: those are on images without a detection.
    rate = rate_of([(50, 0, 0.9)], rules)
    assert (rate.value, rate.recall) == (100, 0)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_without_a_label_to_find_there_is_no_number(rules):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rate = rate_of([(50, 0, 0.9), (51, 0, 0.8)], rules, labels=0)
        nowhere = miss_rates(*hundred_images([]), KAIST, rules)["near/night"]
    assert math.isnan(rate.value)
    assert math.isnan(rate.recall)
    assert np.isnan(rate.miss).all()
    assert (rate.num_labels, rate.num_images) == (0, 100)
    assert rate.fppi.tolist() == [0.02]
    assert math.isnan(nowhere.value)
    assert nowhere.num_images == 0


def test_a_threshold_out_of_range_is_refused():
    for function in (miss_rates, differences):
        with pytest.raises(ConfigError, match="IoU threshold must be above 0 and at most 1, got 0"):
            function(*hundred_images([]), EVERY, iou_threshold=0)


def test_equal_modes_need_no_explanation():
    assert differences(*hundred_images([(0, 1, 0.9), (1, 0, 0.5)], 2), EVERY) == {}
    assert differences(*hundred_images([(50, 0, 0.9)], labels=0), EVERY) == {}
    # 100e-10 % clamped and 0 print the same.
    assert differences(*hundred_images([(n, 1, 0.5) for n in range(2)], 2), EVERY) == {}


def test_lost_labels_are_explained():
    assert differences(*hundred_images([(0, 1, 0.9), (1, 0, 0.8)]), EVERY) == {
        "every/all": "compat 50.00, strict 75.00: compat does not count 2 of 4 labels, those on "
        "images without any detection (images: 2) (-25.00 by itself)"
    }


def test_rounded_references_are_explained(kaist_labels, kaist_detections):
    assert differences(kaist_labels, kaist_detections("MLPD"), KAIST)["reasonable/day"] == (
        "compat 7.96, strict 7.95: compat rounds the references to four decimals (+0.01 by itself)"
    )


def test_a_final_recall_is_explained():
    assert differences(*ten_images(2, [(0, 0, 0.9), (2, 1, 0.5), (3, 0, 0.4)]), EVERY) == {
        "every/all": "compat 50.00, strict 68.04: compat takes the recall of the whole curve at 4 "
        "of 9 references, where the curve has no point yet (-18.04 by itself)"
    }


def test_a_miss_of_0_is_explained():
    late = [(2, 1, 0.9), *((n, 0, 0.8) for n in range(10)), (3, 1, 0.5)]
    assert differences(*ten_images(2, late), EVERY) == {
        "every/all": "compat 0.00, strict 4.18: compat takes the miss of 0 at 1 of 9 references as "
        "it is, which makes the whole 0 (-4.18 by itself)"
    }


def test_each_subset_that_differs_is_explained():
    labels, found = hundred_images([(0, 1, 0.9), (1, 0, 0.8)])
    both = replace(EVERY, settings=(*EVERY.settings, Setting("tall", 100), Setting("low", 0, 50)))
    assert list(differences(labels, found, both)) == ["every/all", "low/all"]
