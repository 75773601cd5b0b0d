"""The small hooks: when they act, and what a resume finds again."""

import math
from types import SimpleNamespace

import pytest

from d2pd.d2 import EventStorage, EventWriter
from d2pd.training.hooks.checkpoints import SaveBeforeEvaluation, SaveProgress
from d2pd.training.hooks.evaluation import Evaluation, flatten, is_due
from d2pd.training.hooks.scalar_history import WINDOW, ScalarHistory
from d2pd.training.hooks.write_rows import WriteRows


class Recorder:
    """A checkpointer that writes down what it is asked for."""

    def __init__(self):
        self.calls = []

    def save_iteration(self, iteration, *, pending):
        self.calls.append((iteration, "pending" if pending else "decided"))

    def save_final(self, iteration):
        self.calls.append((iteration, "final"))


def trainer(max_iter=6, eval_period=0, storage=None):
    found = SimpleNamespace(
        iter=0,
        start_iter=0,
        max_iter=max_iter,
        stop_reason=None,
        stop_request=None,
        storage=storage,
    )
    found.is_evaluation_due = lambda: is_due(found.iter, eval_period, max_iter)
    found.is_row_due = lambda iteration: is_due(iteration, 20, max_iter)
    return found


def run_hooks(found, hooks, iterations):
    for hook in hooks:
        hook.trainer = found
        hook.before_train()
    for found.iter in iterations:
        for hook in hooks:
            hook.after_step()


def test_period_counts_done_iterations_and_the_last_is_always_due():
    assert [i for i in range(10) if is_due(i, 4, 10)] == [3, 7, 9]
    assert [i for i in range(10) if is_due(i, 0, 10)] == [9]
    assert is_due(12, 0, 10)


def test_results_flatten_to_names_with_slashes():
    nested = {"bbox": {"AP": 1, "AP50": 2.5}, "x": {"y": {"z": 3}}, "speed": 4}
    assert flatten(nested) == {"bbox/AP": 1.0, "bbox/AP50": 2.5, "x/y/z": 3.0, "speed": 4.0}


def test_evaluation_puts_its_figures_unsmoothed_at_its_own_iteration():
    values = iter([10.0, 20.0, math.nan])
    with EventStorage(0) as storage:
        found = trainer(max_iter=5, storage=storage)
        hook = Evaluation(2, lambda: {"bbox": {"AP": next(values)}})
        hook.trainer = found
        seen = []
        for found.iter in range(5):
            storage.iter = found.iter
            hook.after_step()
            seen.append(storage.latest().get("bbox/AP"))
        assert seen[:4] == [None, (10.0, 1), (10.0, 1), (20.0, 3)]
        assert math.isnan(seen[4][0])
        assert storage.smoothing_hints()["bbox/AP"] is False


def test_evaluation_asked_for_twice_in_an_iteration_runs_once():
    count = []
    with EventStorage(0) as storage:
        hook = Evaluation(1, lambda: count.append(1) or {})
        hook.trainer = trainer(storage=storage)
        hook.after_step()
        hook.run()
    assert len(count) == 1


def test_checkpoints_by_period_before_and_after_an_evaluation_and_at_the_end():
    recorder = Recorder()
    hooks = [SaveBeforeEvaluation(recorder), SaveProgress(recorder, 2, 0)]
    run_hooks(trainer(max_iter=6, eval_period=3), hooks, range(6))
    assert recorder.calls == [
        (1, "decided"),
        (2, "pending"), (2, "decided"),
        (3, "decided"),
        (5, "pending"), (5, "decided"), (5, "final"),
    ]  # fmt: skip


def test_stop_and_request_save_where_no_period_would():
    for name, final in (("stop_reason", True), ("stop_request", False)):
        recorder = Recorder()
        found = trainer(max_iter=100)
        setattr(found, name, "now")
        run_hooks(found, [SaveBeforeEvaluation(recorder), SaveProgress(recorder, 50, 0)], [7])
        assert recorder.calls == [(7, "decided"), *([(7, "final")] if final else [])]


def test_minutes_save_too_and_count_from_the_last_checkpoint(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    recorder = Recorder()
    found = trainer(max_iter=100)
    hook = SaveProgress(recorder, 50, 1)
    run_hooks(found, [hook], [])
    for found.iter in range(10):
        now += 25
        hook.after_step()
    assert [iteration for iteration, _ in recorder.calls] == [2, 5, 8]


def test_history_comes_back_with_values_iterations_and_hints():
    with EventStorage(0) as storage:
        hook = ScalarHistory()
        hook.trainer = trainer(storage=storage)
        for storage.iter in range(30):
            storage.put_scalar("loss", float(storage.iter))
            if storage.iter % 10 == 9:
                storage.put_scalar("val/loss", storage.iter / 2, smoothing_hint=False)
        state = hook.state_dict()
        shown = storage.latest_with_smoothing_hint(WINDOW)
        latest = storage.latest()
    assert len(state["loss"]["values"]) == WINDOW

    with EventStorage(30) as storage:
        hook = ScalarHistory()
        hook.load_state_dict(state)
        hook.trainer = trainer(storage=storage)
        hook.before_train()
        assert storage.latest() == latest
        assert storage.latest_with_smoothing_hint(WINDOW) == shown
        assert storage.smoothing_hints() == {"loss": True, "val/loss": False}


class Rows(EventWriter):
    def __init__(self):
        self.written, self.trainer, self.is_closed = [], None, False

    def write(self):
        self.written.append(self.trainer.iter)

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize(
    ("ends_at", "max_iter", "expected"),
    [(50, 50, [19, 39, 49]), (31, 50, [19, 31])],
    ids=["whole", "ended by an error"],
)
def test_rows_are_written_every_20_iterations_last_and_before_an_error(ends_at, max_iter, expected):
    found, writer = trainer(max_iter=max_iter), Rows()
    writer.trainer = found
    hook = WriteRows(lambda: [writer])
    run_hooks(found, [hook], range(ends_at))
    found.iter = ends_at  # the loop's count when it is over, or the step that failed
    hook.after_train()
    assert writer.written == expected
    assert writer.is_closed
