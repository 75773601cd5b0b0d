"""The small hooks: when they act, and what a resume finds again."""

import math
from types import SimpleNamespace

import pytest

from d2pd.d2 import EventStorage
from d2pd.errors import UserError
from d2pd.training.hooks.checkpoints import SaveBeforeEvaluation, SaveFinal, SaveProgress
from d2pd.training.hooks.evaluation import Evaluation, flatten
from d2pd.training.hooks.scalar_history import WINDOW, ScalarHistory
from d2pd.training.hooks.write_rows import WriteRows
from d2pd.training.interruption import StopRequest, StopTraining
from d2pd.training.period import is_due


class Recorder:
    """A checkpointer that writes down what it is asked for."""

    def __init__(self):
        self.calls = []

    def save_iteration(self, iteration, *, pending):
        self.calls.append((iteration, "pending" if pending else "decided"))

    def save_final(self, iteration):
        self.calls.append((iteration, "final"))


class FakeTrainer(SimpleNamespace):
    @property
    def is_last_iter(self):
        return self.iter + 1 >= self.max_iter or self.stop_reason is not None


def trainer(max_iter=6, eval_period=0, storage=None):
    found = FakeTrainer(
        iter=0,
        start_iter=0,
        max_iter=max_iter,
        stop_reason=None,
        stop_request=None,
        is_pending=False,
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
    hooks = [SaveBeforeEvaluation(recorder), SaveProgress(recorder, 2, 0), SaveFinal(recorder)]
    run_hooks(trainer(max_iter=6, eval_period=3), hooks, range(6))
    assert recorder.calls == [
        (1, "decided"),
        (2, "pending"), (2, "decided"),
        (3, "decided"),
        (5, "pending"), (5, "final"),
    ]  # fmt: skip


def test_stop_and_request_save_where_no_period_would():
    for name, saved in (("stop_reason", "final"), ("stop_request", "decided")):
        recorder = Recorder()
        found = trainer(max_iter=100)
        setattr(found, name, "now")
        hooks = [SaveBeforeEvaluation(recorder), SaveProgress(recorder, 50, 0), SaveFinal(recorder)]
        run_hooks(found, hooks, [7])
        assert recorder.calls == [(7, saved)]


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
            for part in range(2):  # as a model does whose batch is divided into parts
                storage.put_scalar("accuracy", float(storage.iter % 7 + part))
            if storage.iter % 10 == 9:
                storage.put_scalar("val/loss", storage.iter / 2, smoothing_hint=False)
            storage.put_scalar("time", 1.0)
        state = hook.state_dict()
        shown = storage.latest_with_smoothing_hint(WINDOW)
        latest = storage.latest()
    del shown["time"], latest["time"]  # a clock of that process
    assert len(state["loss"]["values"]) == WINDOW
    assert len(state["accuracy"]["values"]) == 2 * WINDOW

    with EventStorage(30) as storage:
        hook = ScalarHistory()
        hook.load_state_dict(state)
        hook.trainer = trainer(storage=storage)
        hook.before_train()
        assert storage.latest() == latest
        assert storage.latest_with_smoothing_hint(WINDOW) == shown
        assert storage.smoothing_hints() == {
            "loss": True,
            "accuracy": True,
            "val/loss": False,
        }


class Rows:
    """Writers that note at which iterations they are asked to write, and the end they are told."""

    def __init__(self, found):
        self.written, self.trainer, self.end, self.is_closed = [], found, None, False
        self.stop = None

    def write(self):
        self.written.append(self.trainer.iter)

    def note_stop(self, iteration, reason):
        self.stop = (iteration, reason)

    def finish(self, reason):
        self.end = reason

    def close(self):
        self.is_closed = True


def run_rows(found, iterations, error=None):
    writers = Rows(found)
    hook = WriteRows(lambda: writers)
    run_hooks(found, [hook], iterations)
    found.iter = iterations.stop  # the loop's count when it is over, or the step that failed
    try:
        if error is not None:
            raise error
    except BaseException:
        hook.after_train()
    else:
        hook.after_train()
    assert writers.is_closed
    return writers


def test_rows_are_written_every_20_iterations_and_last():
    writers = run_rows(trainer(max_iter=50), range(50))
    assert writers.written == [19, 39, 49]
    assert (writers.end, writers.stop) == ("all 50 iterations are done", None)


def test_rows_before_an_error_are_written_too():
    writers = run_rows(trainer(max_iter=50), range(31), ZeroDivisionError())
    assert writers.written == [19, 31]
    assert writers.end == "ended by ZeroDivisionError in iteration 31"


def test_run_asked_to_stop_writes_no_row_that_a_whole_one_has_not():
    found = trainer(max_iter=50)
    found.stop_request = StopRequest("stopped by SIGTERM", 143)
    writers = run_rows(found, range(8), StopTraining())
    assert writers.written == []
    assert (writers.end, writers.stop) == ("stopped by SIGTERM: --resume goes on", None)


def test_early_stop_writes_its_row_and_its_reason():
    found = trainer(max_iter=50)
    found.stop_reason = "val/total_loss has not improved"
    writers = run_rows(found, range(7, 8), StopTraining())
    assert writers.written == [7]
    assert writers.end == "stopped after iteration 8: val/total_loss has not improved"
    assert writers.stop == (7, "val/total_loss has not improved")


def test_row_that_a_kill_has_left_out_is_written_when_the_run_goes_on():
    for start, is_pending, expected in ((20, False, [0]), (20, True, []), (21, False, [])):
        found = trainer(max_iter=50)
        found.start_iter, found.is_pending = start, is_pending
        writers = Rows(found)
        run_hooks(found, [WriteRows(lambda w=writers: w)], range(0))
        assert writers.written == expected


def test_full_disk_at_the_end_does_not_hide_the_first_error(caplog):
    class Full(Rows):
        def finish(self, reason):
            raise UserError("the disk is full")

    found = trainer(max_iter=50)
    writers = Full(found)
    hook = WriteRows(lambda: writers)
    run_hooks(found, [hook], range(3))
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        hook.after_train()
    assert "the disk is full" in caplog.text
    with pytest.raises(UserError):
        hook.after_train()
