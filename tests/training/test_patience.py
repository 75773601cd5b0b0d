"""Early stopping's decisions against sequences written by hand."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.training.deciding.patience import Patience

NAN, INF = math.nan, math.inf


def run(patience, values, period=10, start=0):
    """Judge values of the iterations 9, 19, ...; return (left, reason) of each up to the stop."""
    found = []
    for number, value in enumerate(values, start):
        stop = patience.judge(value, (number + 1) * period - 1)
        found.append((patience.left, stop.reason if stop else None))
        if stop:
            break
    return found


def lefts(settings, values):
    return [left for left, _ in run(Patience(**settings), values)]


MIN = {"mode": "min", "patience": 2}
MAX = {"mode": "max", "patience": 2}


@pytest.mark.parametrize(
    ("settings", "values", "expected"),
    [
        pytest.param(MIN, [5, 4, 3, 2], [2, 2, 2, 2], id="always better"),
        pytest.param(MIN, [5, 6, 7, 1], [2, 1, 0], id="min"),
        pytest.param(MAX, [5, 4, 3, 9], [2, 1, 0], id="max"),
        pytest.param(MIN, [5, 6, 4, 6, 6, 1], [2, 1, 2, 1, 0], id="patience comes back"),
        pytest.param(MIN, [5, 5, 5, 1], [2, 1, 0], id="a tie is not better"),
        pytest.param({**MIN, "min_delta": 1.0}, [5, 4.5, 4.0, 1], [2, 1, 0], id="min_delta, min"),
        pytest.param({**MAX, "min_delta": 1.0}, [5, 5.5, 6.0, 9], [2, 1, 0], id="min_delta, max"),
        pytest.param({**MIN, "min_delta": 1.0}, [5, 4.5, 3.9, 3], [2, 1, 2, 1], id="slow is a sum"),
        pytest.param({**MIN, "patience": 1}, [5, 5, 1], [1, 0], id="patience 1"),
        pytest.param({**MIN, "patience": 0}, [5, 4, 5, 1], [1, 1, 0], id="patience 0 is 1"),
        # Evaluations are after iterations 9, 19, 29, 39, 49.
        pytest.param({**MIN, "warmup_iters": 29}, [5, 6, 7, 6], [2, 2, 1, 0], id="warm-up to 29"),
        pytest.param({**MIN, "warmup_iters": 30}, [5, 6, 7, 6, 6], [2, 2, 2, 1, 0], id="to 30"),
        pytest.param({**MIN, "warmup_iters": 30}, [1, 6, 6, 2, 2], [2, 2, 2, 1, 0], id="best in"),
        pytest.param(MIN, [NAN, 5, NAN, NAN], [1, 2, 1, 0], id="NaN"),
        pytest.param(MAX, [NAN, NAN, 5], [1, 0], id="NaN alone"),
        pytest.param(MAX, [INF, -INF, 5], [1, 0], id="infinity is not better"),
        pytest.param({**MIN, "divergence_threshold": 9.0}, [5, 9, 9.1, 1], [2, 1, 0], id="both"),
        pytest.param({**MIN, "divergence_threshold": 9.0}, [10, 1], [2], id="threshold, min"),
        pytest.param({**MAX, "divergence_threshold": 0.5}, [0.5, 0.4, 1], [2, 1], id="max"),
        pytest.param({**MIN, "divergence_threshold": 9.0}, [5, NAN, 5, 1], [2, 1, 0], id="NaN no"),
        pytest.param({**MIN, "divergence_threshold": 9.0}, [5, INF, 5], [2, 1], id="infinity is"),
        pytest.param(
            {**MIN, "divergence_threshold": 9.0, "warmup_iters": 99}, [5, 9.5, 1], [2, 2], id="too"
        ),
    ],
)
def test_patience_left_up_to_the_stop_by_hand(settings, values, expected):
    assert lefts(settings, values) == expected


@pytest.mark.parametrize(
    ("settings", "values", "reason"),
    [
        (MIN, [5, 0.4123, 1, 1], "has not improved on 0.4123 (iteration 19) for 2 evaluations"),
        ({**MAX, "patience": 1}, [45.53, 2], "has not improved on 45.53 (iteration 9) for 1 eval"),
        ({**MIN, "min_delta": 0.01}, [1, 1, 1], "on 1 (iteration 9) by more than 0.01 for 2 eval"),
        (MIN, [NAN, NAN], "has had no finite value for 2 evaluations"),
        (
            {**MIN, "divergence_threshold": 9.0},
            [5, 11.5],
            "is 11.5, worse than EARLY_STOPPING.DIVERGENCE_THRESHOLD 9",
        ),
    ],
)
def test_the_reason_in_words(settings, values, reason):
    assert reason in run(Patience(**settings), values)[-1][1]


SETTINGS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "patience": st.integers(0, 4),
        "min_delta": st.sampled_from([0.0, 0.5, 1.0]),
        "warmup_iters": st.integers(0, 60),
        "divergence_threshold": st.sampled_from([None, 1.0, 3.0]),
    }
)
VALUES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, NAN, INF, -INF]), max_size=12)


def plain(state):
    return json.loads(json.dumps(state))


@given(SETTINGS, VALUES, st.data())
def test_a_cut_anywhere_changes_no_decision(settings, values, data):
    whole = Patience(**settings)
    expected = run(whole, values)
    cut = data.draw(st.integers(0, len(expected)))
    first = Patience(**settings)
    before = run(first, values[:cut])
    second = Patience(**settings)
    second.load_state_dict(plain(first.state_dict()))
    if second.is_still_stopped():
        assert before == expected
        return
    assert before + run(second, values[cut:], start=cut) == expected
    assert str(second.state_dict()) == str(whole.state_dict())


def history_says_stop(settings, values, number):
    """The same decision from the whole history, without a state: the stop at evaluation number."""
    sign = 1 if settings["mode"] == "min" else -1
    values = [sign * value for value in values[: number + 1]]
    threshold = settings["divergence_threshold"]
    if threshold is not None and values[-1] > sign * threshold:
        return True
    best, last_better = INF, -1
    for index, value in enumerate(values):
        if math.isfinite(value) and value < best - settings["min_delta"]:
            best, last_better = value, index
    since = range(last_better + 1, number + 1)
    waited = sum(10 * (index + 1) - 1 >= settings["warmup_iters"] for index in since)
    return waited >= max(1, settings["patience"])


@given(SETTINGS, VALUES)
def test_it_stops_at_the_first_evaluation_at_which_the_history_says_so(settings, values):
    found = run(Patience(**settings), values)
    expected = [history_says_stop(settings, values, number) for number in range(len(found))]
    assert [reason is not None for _, reason in found] == expected


def stopped(settings, values):
    patience = Patience(**settings)
    assert run(patience, values)[-1][1]
    return plain(patience.state_dict())


def resumed(state, **settings):
    patience = Patience(**settings)
    patience.load_state_dict(state)
    return patience


@pytest.mark.parametrize(
    ("patience", "still"), [(0, True), (1, True), (2, True), (3, False), (9, False)]
)
def test_only_more_patience_than_was_used_up_goes_on(patience, still):
    state = stopped(MIN, [5, 6, 6])
    assert resumed(state, mode="min", patience=patience).is_still_stopped() is still


def test_more_patience_goes_on_counting_from_where_it_was():
    patience = resumed(stopped(MIN, [5, 6, 6]), mode="min", patience=4)
    assert patience.way_out() == "EARLY_STOPPING.PATIENCE 6"
    assert [left for left, _ in run(patience, [6, 6, 1], start=3)] == [1, 0]
    assert patience.stop.iteration == 49


@pytest.mark.parametrize(
    ("threshold", "still"), [(9.0, True), (8.0, True), (11.9, True), (12.0, False), (None, False)]
)
def test_after_divergence_only_a_bound_beyond_the_value_goes_on(threshold, still):
    state = stopped({**MIN, "divergence_threshold": 9.0}, [5, 12.0])
    patience = resumed(state, mode="min", patience=99, divergence_threshold=threshold)
    assert patience.is_still_stopped() is still
    assert patience.way_out() == "EARLY_STOPPING.DIVERGENCE_THRESHOLD None, or one beyond 12,"


def test_less_patience_does_not_stop_what_went_on():
    patience = Patience(mode="min", patience=5)
    run(patience, [5, 6, 6, 6])
    later = resumed(plain(patience.state_dict()), mode="min", patience=2)
    assert not later.is_still_stopped()
    assert run(later, [4, 6], start=4) == [(2, None), (1, None)]
