"""The hook of early stopping: what counts as an evaluation, what it says, what a resume finds."""

import math

import pytest
from hook_toys import FakeTrainer, plain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2pd.errors import ConfigError
from d2pd.training.deciding.patience import Patience
from d2pd.training.deciding.watched_metric import WatchedMetric
from d2pd.training.hooks.early_stopping import EarlyStopping

LOSS = "val/total_loss"
LEFT = "early_stopping/patience_left"


def make_hook(name=LOSS, period=2, mode="min", **kwargs):
    metric = WatchedMetric(name, period, "EARLY_STOPPING.METRIC")
    return EarlyStopping(metric, Patience(mode=mode, **{"patience": 2, **kwargs}))


def rows_of(values, name=LOSS, period=2):
    """Log a value every ``period`` iterations."""
    return [row for value in values for row in [*[None] * (period - 1), {name: value}]]


def test_only_iterations_with_a_new_value_count_and_use_up_patience(tmp_path):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook()], rows_of([5.0, 0.412, 0.5, 0.6, 0.1]))
    assert trainer.logged(LEFT) == [(2, 1), (2, 3), (1, 5), (0, 7)]
    assert trainer.storage.smoothing_hints()[LEFT] is False
    assert trainer.reasons == [
        "val/total_loss has not improved on 0.412 (iteration 3) for 2 evaluations"
    ]
    assert trainer.iter == 7


def test_a_metric_that_gets_better_never_stops(tmp_path):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook("bbox/AP", mode="max")], rows_of([1.0, 2.0, 3.0, 2.0, 4.0], "bbox/AP"))
    assert trainer.reasons == []
    assert [left for left, _ in trainer.logged(LEFT)] == [2, 2, 2, 1, 2]


def test_divergence_is_named(tmp_path):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook(divergence_threshold=8.0)], rows_of([5.0, 9.5]))
    assert trainer.reasons == [
        "val/total_loss is 9.5, worse than EARLY_STOPPING.DIVERGENCE_THRESHOLD 8"
    ]


def test_patience_used_up_by_the_last_iteration_is_no_early_stop(tmp_path):
    trainer = FakeTrainer(tmp_path, max_iter=8)
    hook = make_hook()
    trainer.run([hook], rows_of([5.0, 0.412, 0.5, 0.6]))
    assert (trainer.reasons, trainer.logged(LEFT)[-1]) == ([], (0, 7))
    assert "for 2 evaluations; EARLY_STOPPING.PATIENCE 4 trains on" in hook.still_stopped()


def test_nan_uses_up_patience_and_the_loop_goes_on_from_it(tmp_path):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook()], rows_of([5.0, math.nan, 4.0, math.nan]))
    assert [left for left, _ in trainer.logged(LEFT)] == [2, 1, 2, 1]
    assert trainer.reasons == []


def test_a_scalar_of_every_iteration_can_be_watched(tmp_path):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook("total_loss")], [None] * 9)
    assert trainer.reasons == ["total_loss has not improved on 1 (iteration 0) for 2 evaluations"]


def test_a_metric_absent_at_the_first_evaluation_lists_what_is_there(tmp_path):
    trainer = FakeTrainer(tmp_path)
    row = {"bbox/AP50": 3.0, "bbox/AP": 1.0, "val/total_loss": 2.0, "best/bbox/AP": 1.0}
    with pytest.raises(ConfigError) as caught:
        trainer.run([make_hook("bbox/mAP", period=3)], [None, None, row])
    assert str(caught.value) == (
        "EARLY_STOPPING.METRIC bbox/mAP was not logged by the evaluation after iteration 2; name "
        "one of those that are there: bbox/AP, bbox/AP50, val/total_loss"
    )


def test_a_metric_absent_where_nothing_is_logged_says_so(tmp_path):
    with pytest.raises(ConfigError, match="iteration 1; no metric at all was logged"):
        FakeTrainer(tmp_path).run([make_hook()], [None, None])


def test_a_metric_that_was_there_once_may_be_absent_later(tmp_path):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook()], [None, {LOSS: 1.0}, None, None, None, {LOSS: 2.0}])
    assert trainer.logged(LEFT) == [(2, 1), (1, 5)]


def test_a_metric_that_was_there_before_a_resume_may_be_absent_after_it(tmp_path):
    hook, resumed = make_hook(warmup_iters=9), make_hook(warmup_iters=9)
    FakeTrainer(tmp_path).run([hook], rows_of([math.nan]))
    resumed.load_state_dict(plain(hook.state_dict()))
    trainer = FakeTrainer(tmp_path)
    trainer.run([resumed], [None, None], start=2)
    assert trainer.logged(LEFT) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan]), max_size=8), st.data())
def test_a_resume_at_any_iteration_decides_as_an_uninterrupted_run(tmp_path, values, data):
    rows = rows_of(values)
    whole = FakeTrainer(tmp_path)
    hook = make_hook()
    whole.run([hook], rows)
    cut = data.draw(st.integers(0, len(rows)))

    first, before = FakeTrainer(tmp_path), make_hook()
    before_end = first.run([before], rows[:cut]) if cut else 0
    second, after = FakeTrainer(tmp_path), make_hook()
    after.load_state_dict(plain(before.state_dict()))
    if after.still_stopped() is None:
        second.run([after], rows[cut:], start=before_end)
    assert first.logged(LEFT) + second.logged(LEFT) == whole.logged(LEFT)
    assert first.reasons + second.reasons == whole.reasons
    assert str(after.state_dict()) == str(hook.state_dict())


def test_a_pending_evaluation_is_judged_once_after_the_resume(tmp_path):
    """The checkpoint from before the decisions; the hooks then run again for its iteration."""
    hook = make_hook()
    FakeTrainer(tmp_path).run([hook], rows_of([5.0, 6.0]))
    pending = plain(hook.state_dict())
    whole = FakeTrainer(tmp_path)
    whole.run([hook], rows_of([6.0])[1:], start=5)
    again, trainer = make_hook(), FakeTrainer(tmp_path)
    again.load_state_dict(pending)
    trainer.run([again], [{LOSS: 6.0}], start=5)
    assert trainer.reasons == whole.reasons
    assert str(again.state_dict()) == str(hook.state_dict())


@pytest.fixture
def stopped_state(tmp_path):
    hook = make_hook(patience=2)
    FakeTrainer(tmp_path).run([hook], rows_of([0.412, 1.0, 1.0]))
    return plain(hook.state_dict())


def test_a_stopped_run_says_so_and_what_trains_on(stopped_state):
    hook = make_hook(patience=2)
    assert hook.still_stopped() is None
    hook.load_state_dict(stopped_state)
    assert hook.still_stopped() == (
        "stopped early after iteration 5: val/total_loss has not improved on 0.412 (iteration 1) "
        "for 2 evaluations; EARLY_STOPPING.PATIENCE 4 trains on"
    )


def test_a_stopped_run_goes_on_with_more_patience(stopped_state, tmp_path):
    hook = make_hook(patience=4)
    hook.load_state_dict(stopped_state)
    assert hook.still_stopped() is None
    trainer = FakeTrainer(tmp_path)
    trainer.run([hook], rows_of([1.0, 0.5, 0.1]), start=6)
    assert trainer.logged(LEFT) == [(1, 7), (0, 9)]


def test_a_run_stopped_by_divergence_goes_on_with_another_bound(tmp_path):
    hook = make_hook(divergence_threshold=8.0)
    FakeTrainer(tmp_path).run([hook], rows_of([5.0, 9.5]))
    same, looser = make_hook(divergence_threshold=8.0), make_hook(divergence_threshold=10.0)
    for resumed in (same, looser):
        resumed.load_state_dict(plain(hook.state_dict()))
    assert looser.still_stopped() is None
    assert same.still_stopped() == (
        "stopped early after iteration 3: val/total_loss is 9.5, worse than "
        "EARLY_STOPPING.DIVERGENCE_THRESHOLD 8; EARLY_STOPPING.DIVERGENCE_THRESHOLD None, or one "
        "beyond 9.5, trains on"
    )


@pytest.mark.parametrize(("name", "mode"), [("bbox/AP", "max"), (LOSS, "max")])
def test_another_metric_or_mode_forgets_the_best_with_a_warning(stopped_state, caplog, name, mode):
    hook = make_hook(name, mode=mode)
    fresh = hook.state_dict()
    hook.load_state_dict(stopped_state)
    assert hook.state_dict() == fresh
    assert hook.still_stopped() is None
    assert caplog.messages == [
        f"early stopping now watches {name} ({mode}), before the resume val/total_loss (min): the "
        "best so far, 0.412, and the patience used up are forgotten"
    ]
