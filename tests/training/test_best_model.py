"""The hook of the best model: which iterations are saved, under which name, across resumes."""

import math
from pathlib import Path

import pytest
from hook_toys import FakeTrainer, plain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2pd.errors import ConfigError
from d2pd.training.deciding.best_value import BestValue
from d2pd.training.deciding.watched_metric import WatchedMetric
from d2pd.training.hooks.best_model import BestModel, Contest

NAN = math.nan
AP, LOSS = ("bbox/AP", "max", "model_best"), ("val/total_loss", "min", "model_best_val_total_loss")


def make_hook(*metrics, is_required=True, period=1):
    contests = [
        Contest(
            WatchedMetric(name, period, "BEST_CHECKPOINT.METRIC"),
            BestValue(mode),
            file_stem,
            is_required,
        )
        for name, mode, file_stem in metrics or (AP,)
    ]
    return BestModel(contests, "SEED: 42\n")


def rows(*values, name="bbox/AP"):
    return [None if value is None else {name: value} for value in values]


@pytest.mark.parametrize(
    ("mode", "values", "iterations"),
    [
        pytest.param("max", [1, 2, 2, 1, 3], [0, 1, 4], id="max, a tie keeps the earlier"),
        pytest.param("min", [3, 4, 2, 2, 1], [0, 2, 4], id="min"),
        pytest.param("max", [NAN, 1, NAN, 2, NAN], [1, 3], id="NaN never"),
        pytest.param("max", [NAN, NAN], [], id="NaN alone"),
        pytest.param("max", [math.inf, 1], [1], id="infinity never"),
        pytest.param("max", [1, None, None, 2, None], [0, 3], id="not at every iteration"),
    ],
)
def test_saved_at_strict_improvements(tmp_path, mode, values, iterations):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook(("bbox/AP", mode, "model_best"))], rows(*values))
    assert trainer.checkpointer.saved == [("model_best", i, values[i]) for i in iterations]


def test_the_file_gets_metric_value_iteration_mode_and_configuration(tmp_path):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook()], rows(45.5))
    assert trainer.checkpointer.last == {
        "iteration": 0,
        "metric": "bbox/AP",
        "value": 45.5,
        "mode": "max",
        "config_text": "SEED: 42\n",
    }


def test_best_so_far_is_logged_unsmoothed_at_each_evaluation(tmp_path):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook()], rows(NAN, 2.0, None, 1.0, 3.0))
    assert trainer.logged("best/bbox/AP") == [(2.0, 1), (2.0, 3), (3.0, 4)]
    assert trainer.storage.smoothing_hints()["best/bbox/AP"] is False


def test_several_metrics_have_a_best_each(tmp_path):
    trainer = FakeTrainer(tmp_path)
    both = [{"bbox/AP": ap, "val/total_loss": loss} for ap, loss in [(1, 5), (2, 6), (1, 4)]]
    trainer.run([make_hook(AP, LOSS)], [*both, {"val/total_loss": 3}])
    assert trainer.checkpointer.saved == [
        ("model_best", 0, 1),
        ("model_best_val_total_loss", 0, 5),
        ("model_best", 1, 2),
        ("model_best_val_total_loss", 2, 4),
        ("model_best_val_total_loss", 3, 3),
    ]


def test_a_second_call_in_an_iteration_changes_nothing_and_a_late_metric_is_taken(tmp_path):
    """A training that is stopped evaluates once more: the hook is asked again."""
    trainer, hook = FakeTrainer(tmp_path), make_hook(AP, LOSS, is_required=False)
    trainer.run([hook], [{"val/total_loss": 5.0}])
    with trainer.storage:
        hook.after_step()
        trainer.storage.put_scalar("bbox/AP", 40.0, smoothing_hint=False)
        hook.after_step()
    assert trainer.checkpointer.saved == [
        ("model_best_val_total_loss", 0, 5.0),
        ("model_best", 0, 40.0),
    ]
    assert trainer.logged("best/val/total_loss") == [(5.0, 0)]


def test_a_metric_asked_for_and_absent_lists_what_is_there(tmp_path):
    trainer = FakeTrainer(tmp_path)
    with pytest.raises(ConfigError) as caught:
        trainer.run([make_hook(period=2)], [None, {"val/total_loss": 1.0, "bbox/AP50": 2.0}])
    assert str(caught.value) == (
        "BEST_CHECKPOINT.METRIC bbox/AP was not logged by the evaluation after iteration 1; name "
        "one of those that are there: bbox/AP50, val/total_loss"
    )


def test_a_metric_taken_by_default_and_absent_warns(tmp_path, caplog):
    trainer = FakeTrainer(tmp_path)
    trainer.run([make_hook(is_required=False)], rows(None))
    assert trainer.checkpointer.saved == []
    assert "no best model is kept yet: BEST_CHECKPOINT.METRIC bbox/AP was not" in caplog.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(st.tuples(*[st.sampled_from([None, 1.0, 2.0, 3.0, NAN])] * 2), min_size=1, max_size=8),
    st.data(),
)
def test_a_resume_at_any_iteration_saves_what_an_uninterrupted_run_does(tmp_path, values, data):
    logged = [
        {name: v for (name, *_), v in zip((AP, LOSS), pair, strict=True) if v is not None}
        for pair in values
    ]
    cut = data.draw(st.integers(0, len(logged)))
    whole, hook = FakeTrainer(tmp_path), make_hook(AP, LOSS, is_required=False)
    whole.run([hook], logged)

    first, before = FakeTrainer(tmp_path), make_hook(AP, LOSS, is_required=False)
    start = first.run([before], logged[:cut]) if cut else 0
    second, after = FakeTrainer(tmp_path), make_hook(AP, LOSS, is_required=False)
    after.load_state_dict(plain(before.state_dict()))
    second.run([after], logged[cut:], start=start)
    assert first.checkpointer.saved + second.checkpointer.saved == whole.checkpointer.saved
    assert after.state_dict() == hook.state_dict()
    for name in ("best/bbox/AP", "best/val/total_loss"):
        assert first.logged(name) + second.logged(name) == whole.logged(name)


@pytest.fixture
def state(tmp_path):
    """State of a run whose best are AP 40 of iteration 1 and loss 5 of iteration 0."""
    hook = make_hook(AP, LOSS)
    FakeTrainer(tmp_path).run(
        [hook], [{"bbox/AP": 30.0, "val/total_loss": 5.0}, {"bbox/AP": 40.0, "val/total_loss": 6.0}]
    )
    return plain(hook.state_dict())


def test_a_remembered_best_is_beaten_by_better_values_only(tmp_path, state, caplog):
    trainer, hook = FakeTrainer(tmp_path), make_hook(AP, LOSS)
    hook.load_state_dict(state)
    trainer.run([hook], [{"bbox/AP": 39.0, "val/total_loss": 4.0}], start=2)
    assert trainer.checkpointer.saved == [("model_best_val_total_loss", 2, 4.0)]
    assert caplog.messages == []


def test_a_remembered_best_whose_file_is_gone_warns_and_stays_the_best(tmp_path, state, caplog):
    (tmp_path / "model_best.pth").unlink()
    trainer, hook = FakeTrainer(tmp_path), make_hook(AP, LOSS)
    hook.load_state_dict(state)
    trainer.run([hook], rows(39.0, 41.0), start=2)
    assert trainer.checkpointer.saved == [("model_best", 3, 41.0)]
    assert caplog.messages == [
        f"{Path(tmp_path, 'model_best.pth')} is gone: the model of iteration 1 with bbox/AP 40, "
        "still the best; only a better one will be saved there"
    ]


def test_another_metric_for_a_file_starts_anew_and_warns_what_it_overwrites(
    tmp_path, state, caplog
):
    hook = make_hook(("val/total_loss", "min", "model_best"))
    hook.load_state_dict(state)
    trainer = FakeTrainer(tmp_path)
    trainer.run([hook], rows(9.0, name="val/total_loss"), start=2)
    assert trainer.checkpointer.saved == [("model_best", 2, 9.0)]
    assert caplog.messages == [
        "model_best.pth, the best by bbox/AP (40) before the resume, will be overwritten by the "
        "best by val/total_loss (min) from now on; rename it to keep it"
    ]


def test_a_metric_that_never_had_a_value_leaves_nothing_to_overwrite(tmp_path, caplog):
    hook = make_hook()
    FakeTrainer(tmp_path).run([hook], rows(NAN))
    make_hook(("val/total_loss", "min", "model_best")).load_state_dict(plain(hook.state_dict()))
    assert caplog.messages == []


def test_another_mode_starts_anew(tmp_path, state, caplog):
    hook = make_hook(("bbox/AP", "min", "model_best"))
    hook.load_state_dict(state)
    assert hook.state_dict()["bbox/AP"]["value"] is None
    assert "the best by bbox/AP (40) before the resume, will be overwritten" in caplog.text


def test_a_further_metric_leaves_the_others_as_they_were(state, caplog):
    hook = make_hook(AP, LOSS, ("bbox/AP50", "max", "model_best_bbox_AP50"))
    hook.load_state_dict(state)
    assert {name: entry["value"] for name, entry in hook.state_dict().items()} == {
        "bbox/AP": 40.0,
        "val/total_loss": 5.0,
        "bbox/AP50": None,
    }
    assert caplog.messages == []
