import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.errors import ConfigError
from d2pd.training.deciding.best_value import BestValue, metric_mode

NAN, INF = math.nan, math.inf
VALUES = st.lists(st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 2.0, NAN])), max_size=12)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val/total_loss", "min"),
        ("val/loss_cls", "min"),
        ("total_loss", "min"),
        ("kaist_val/MR/reasonable", "min"),
        ("miss_rate/all", "min"),
        ("log_average_miss_rate", "min"),
        ("reasonable/MR-2", "min"),
        ("bbox/AP", "max"),
        ("bbox/AP50", "max"),
        ("bbox/APs", "max"),
        ("bbox/AP-person", "max"),
        ("bbox/AP-loss", "max"),
        ("kaist_val/bbox/mAP50-95", "max"),
        ("bbox/AR@100", "max"),
        ("recall/0.5", "max"),
        ("precision", "max"),
        ("bbox/F1", "max"),
        ("fast_rcnn/cls_accuracy", "max"),
        ("miss_rate/AP", "max"),
    ],
)
def test_names_say_which_way_is_better(name, mode):
    assert metric_mode(name, "auto", "BEST_CHECKPOINT") == mode


@pytest.mark.parametrize("name", ["grad_norm", "lr", "bbox/apple", "x/closs", "x/marble", "bbox"])
def test_a_name_that_does_not_say_asks_for_the_mode(name):
    with pytest.raises(ConfigError) as caught:
        metric_mode(name, "auto", "EARLY_STOPPING")
    assert str(caught.value) == (
        f"EARLY_STOPPING.METRIC {name}: its name does not say whether less or more of it is "
        "better; set EARLY_STOPPING.MODE min or max"
    )
    assert metric_mode(name, "max", "EARLY_STOPPING") == "max"


def test_mode_of_the_configuration_wins_over_the_name():
    assert metric_mode("val/total_loss", "max", "BEST_CHECKPOINT") == "max"


def run(mode, values, min_delta=0.0):
    best = BestValue(mode, min_delta)
    return best, [i for i, value in enumerate(values) if best.improves(value, i)]


@pytest.mark.parametrize(
    ("mode", "min_delta", "values", "improved", "best"),
    [
        ("min", 0.0, [5.0, 4.0, 4.0, 6.0, 3.0], [0, 1, 4], (3.0, 4)),
        ("max", 0.0, [5.0, 4.0, 6.0, 6.0, 6.5], [0, 2, 4], (6.5, 4)),
        ("min", 1.0, [5.0, 4.0, 3.5, 3.0, 2.9], [0, 2], (3.5, 2)),
        ("max", 1.0, [5.0, 6.0, 6.5, 7.5, 7.6], [0, 2, 4], (7.6, 4)),
        ("min", 0.0, [NAN, 5.0, NAN, 4.0, NAN], [1, 3], (4.0, 3)),
        ("min", 0.0, [-INF, 5.0, INF], [1], (5.0, 1)),
        ("max", 0.0, [INF, NAN, -INF], [], (None, None)),
        ("max", 0.0, [0.0, -0.0, 0.0], [0], (0.0, 0)),
    ],
)
def test_improvements_by_hand(mode, min_delta, values, improved, best):
    found, indices = run(mode, values, min_delta)
    assert indices == improved
    assert (found.value, found.iteration) == best


@given(VALUES, st.sampled_from(["min", "max"]))
def test_best_is_the_first_of_the_most_extreme_finite_values(values, mode):
    found, _ = run(mode, values)
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        assert (found.value, found.iteration) == (None, None)
        return
    extreme = min(finite) if mode == "min" else max(finite)
    assert (found.value, found.iteration) == (extreme, values.index(extreme))


@given(VALUES, st.sampled_from(["min", "max"]), st.floats(0, 2), st.data())
def test_a_cut_anywhere_changes_nothing(values, mode, min_delta, data):
    cut = data.draw(st.integers(0, len(values)))
    whole, expected = run(mode, values, min_delta)
    first, before = run(mode, values[:cut], min_delta)
    second = BestValue(mode, min_delta)
    second.load_state_dict(first.state_dict())
    after = [i for i in range(cut, len(values)) if second.improves(values[i], i)]
    assert before + after == expected
    assert second == whole
