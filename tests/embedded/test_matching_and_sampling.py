import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2pd.embedded.matcher import Matcher
from d2pd.embedded.sampling import subsample_labels
from d2pd.errors import ConfigError
from d2pd.training.culprits.model_check import MODEL_CHECKS

labels_of_anchors = st.lists(st.sampled_from([-1, 0, 1]), min_size=0, max_size=60)


@given(labels_of_anchors, st.integers(1, 40), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_samples_are_distinct_of_the_right_label_and_no_more_than_asked(labels, wanted, fraction):
    tensor = torch.tensor(labels, dtype=torch.int8)
    positive, negative = subsample_labels(tensor, wanted, fraction, bg_label=0)
    assert (tensor[positive] == 1).all()
    assert (tensor[negative] == 0).all()
    assert (
        len(set(positive.tolist())) == len(positive) == min(labels.count(1), int(wanted * fraction))
    )
    assert (
        len(set(negative.tolist())) == len(negative) == min(labels.count(0), wanted - len(positive))
    )


def test_the_background_may_be_the_last_class():
    positive, negative = subsample_labels(torch.tensor([0, 3, 2, -1]), 8, 1.0, bg_label=3)
    assert sorted(positive.tolist()) == [0, 2]
    assert negative.tolist() == [1]


def test_matching_by_hand():
    quality = torch.tensor([[0.1, 0.7, 0.3, 0.4], [0.2, 0.9, 0.0, 0.5]])
    matches, labels = Matcher([0.3, 0.7], [0, -1, 1])(quality)
    assert matches.tolist() == [1, 1, 0, 1]
    assert labels.tolist() == [0, 1, -1, -1]


def test_low_quality_matches_label_every_best_prediction_ties_included():
    # Box 0 is best matched by prediction 1, at .2 only; box 1 by 2 and 3, with equal quality.
    quality = torch.tensor([[0.1, 0.2, 0.0, 0.0], [0.0, 0.25, 0.4, 0.4]])
    matches, labels = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)(quality)
    assert labels.tolist() == [0, 1, 1, 1]
    # Prediction 1 counts as an object, but learns the box that it overlaps most.
    assert matches.tolist() == [0, 1, 1, 1]


def test_a_box_that_overlaps_nothing_makes_every_prediction_an_object():
    # Why labels without area must never get here: their best IoU, 0, is a tie of all anchors.
    quality = torch.tensor([[0.0, 0.0, 0.0]])
    _, labels = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)(quality)
    assert labels.tolist() == [1, 1, 1]


def test_without_ground_truth_all_is_background():
    matches, labels = Matcher([0.5], [0, 1])(torch.zeros(0, 3))
    assert matches.tolist() == [0, 0, 0]
    assert labels.tolist() == [0, 0, 0]


def test_negative_or_nan_quality_is_refused():
    for bad in (-0.1, float("nan")):
        with pytest.raises(MODEL_CHECKS, match="at least 0"):
            Matcher([0.5], [0, 1])(torch.tensor([[bad, 0.5]]))


@pytest.mark.parametrize(
    ("thresholds", "labels"),
    [([0.7, 0.3], [0, -1, 1]), ([0.0], [0, 1]), ([0.5], [0, -1, 1]), ([0.5], [0, 2]), ([], [1])],
)
def test_thresholds_and_labels_must_fit(thresholds, labels):
    with pytest.raises(ConfigError, match="IOU_"):
        Matcher(thresholds, labels)
