import json
import logging
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2pd.d2 import EventStorage, JSONWriter
from d2pd.errors import UserError
from d2pd.reporting.curves import read_metrics
from d2pd.training.writers.metrics_file import MetricsFile


def train(storage, writer, iterations, period=5, evaluate_at=()):
    """Do what a loop does with storage and writer; the numbers depend on the iteration alone."""
    for iteration in iterations:
        storage.iter = iteration
        storage.put_scalar("total_loss", math.sin(iteration))
        storage.put_scalar("lr", 0.1 / (1 + iteration), smoothing_hint=False)
        if iteration in evaluate_at:
            storage.put_scalar("val/total_loss", math.cos(iteration), smoothing_hint=False)
        if (iteration + 1) % period == 0:
            writer.write()


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def restored(storage, through):
    """The storage of a resume: the scalars up to an iteration, as a checkpoint holds them."""
    again = EventStorage(through + 1)
    hints = storage.smoothing_hints()
    for name, history in storage.histories().items():
        for value, iteration in history.values():
            if iteration <= through:
                again.put_scalar(name, value, smoothing_hint=hints[name], cur_iter=int(iteration))
    return again


def test_rows_are_those_of_detectron2(tmp_path):
    with EventStorage() as storage:
        ours = MetricsFile(tmp_path / "ours.json", keep_through=None)
        theirs = JSONWriter(str(tmp_path / "theirs.json"))
        for writer in (ours, theirs):
            train(storage, writer, range(30), period=10, evaluate_at=(19,))
            storage.put_scalar("late", float("nan"), smoothing_hint=False, cur_iter=40)
            writer.write()
            writer.close()
            storage.__init__()

    assert (tmp_path / "ours.json").read_text() == (tmp_path / "theirs.json").read_text()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(killed_after=st.integers(0, 39), lost=st.integers(0, 12), half=st.booleans())
def test_killed_and_resumed_run_leaves_the_rows_of_one_never_killed(
    tmp_path_factory, killed_after, lost, half
):
    folder = tmp_path_factory.mktemp("rows")
    evaluate_at = (9, 22, 34)
    with EventStorage() as storage:
        whole = MetricsFile(folder / "whole.json", keep_through=None)
        train(storage, whole, range(40), evaluate_at=evaluate_at)

    path = folder / "metrics.json"
    with EventStorage() as storage:
        first = MetricsFile(path, keep_through=None)
        train(storage, first, range(killed_after + 1), evaluate_at=evaluate_at)
    if half:
        with path.open("a") as file:
            file.write('{"iteration": 99, "total_l')
    checkpoint = max(-1, killed_after - lost)
    with restored(storage, checkpoint) as again:
        second = MetricsFile(path, keep_through=checkpoint)
        if (checkpoint + 1) % 5 == 0:
            second.write()  # the row that was due at the checkpoint itself
        train(again, second, range(checkpoint + 1, 40), evaluate_at=evaluate_at)

    assert rows_of(path) == rows_of(folder / "whole.json")


def test_iteration_in_the_file_is_not_written_again(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 4, "total_loss": 1.0}\n{"iteration": 9, "total_loss": 2.0}\n')
    with EventStorage() as storage:
        writer = MetricsFile(path, keep_through=9)
        assert writer.last_iteration == 9
        train(storage, writer, range(9, 10))
        assert len(rows_of(path)) == 2
        train(storage, writer, range(10, 15))
    assert [row["iteration"] for row in rows_of(path)] == [4, 9, 14]


@pytest.mark.parametrize("line", [b"[" * 100_000, b"\xff\xfe", b'{"iteration": ' + b"1" * 5000])
def test_line_that_no_reader_takes_is_cut(tmp_path, line):
    path = tmp_path / "metrics.json"
    whole = b'{"iteration": 4, "lr": 1}\n'
    path.write_bytes(whole + line + b"\n")
    assert read_metrics(path) == {"lr": [(4, 1.0)]}
    assert MetricsFile(path, keep_through=None).last_iteration == 4
    assert path.read_bytes() == whole


def test_later_and_half_written_rows_are_cut_and_counted(tmp_path, caplog):
    path = tmp_path / "metrics.json"
    kept = '{"iteration": 4, "total_loss": NaN}\n'
    path.write_text(kept + '{"iteration": 9, "a": 1}\n{"iteration": 14, "a": 1}\n{"iter')
    with caplog.at_level(logging.INFO):
        MetricsFile(path, keep_through=4)
    assert path.read_text() == kept
    assert "cut 2 rows after iteration 4 and 1 that were not whole" in caplog.text
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("cut", range(1, 36))
def test_file_cut_at_any_byte_keeps_its_whole_rows(tmp_path, cut):
    path = tmp_path / "metrics.json"
    first, second = b'{"iteration": 4, "a": 1}\n', b'{"iteration": 9, "total_loss": 2.0}\n'
    path.write_bytes(first + second[:-cut])
    writer = MetricsFile(path, keep_through=20)
    whole = cut == 1  # only the line's end is gone
    assert path.read_bytes() == first + (second if whole else b"")
    assert writer.last_iteration == (9 if whole else 4)


def test_resume_that_leaves_no_row_starts_the_file_anew(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 4, "a": 1}\n')
    assert MetricsFile(path, keep_through=-1).last_iteration == -1
    assert path.read_bytes() == b""


def test_nothing_is_written_before_there_is_something(tmp_path):
    with EventStorage():
        MetricsFile(tmp_path / "metrics.json", keep_through=None).write()
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_not_finite_can_be_read_again(tmp_path):
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        storage.put_scalars(a=float("nan"), b=float("inf"), c=1.0, smoothing_hint=False)
        MetricsFile(path, keep_through=None).write()
    row = rows_of(path)[0]
    assert math.isnan(row["a"])
    assert row["b"] == math.inf
    assert read_metrics(path) == {"c": [(0, 1.0)]}


class TestReasonOfAStop:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "metrics.json"
        with EventStorage() as storage:
            writer = MetricsFile(path, keep_through=None)
            train(storage, writer, range(10))
            writer.append(9, stopped="val/total_loss did not get better")
        return path

    def test_is_a_row_of_its_own_with_its_text(self, path):
        assert rows_of(path)[-1] == {
            "iteration": 9,
            "stopped": "val/total_loss did not get better",
        }

    def test_stays_where_the_run_does_not_go_on(self, path):
        before = path.read_bytes()
        with EventStorage(10):
            writer = MetricsFile(path, keep_through=9)
            writer.write()
        assert path.read_bytes() == before

    def test_goes_when_training_goes_on_from_there(self, path):
        with EventStorage(10) as storage:
            writer = MetricsFile(path, keep_through=9)
            train(storage, writer, range(10, 20))
        assert [row["iteration"] for row in rows_of(path)] == [4, 9, 14, 19]
        assert not any("stopped" in row for row in rows_of(path))

    def test_is_cut_with_the_rows_of_its_iteration(self, path):
        MetricsFile(path, keep_through=8)
        assert [row["iteration"] for row in rows_of(path)] == [4]

    def test_said_again_takes_the_place_of_the_old_one(self, path):
        MetricsFile(path, keep_through=9).append(9, stopped="no patience left")
        assert [row.get("stopped") for row in rows_of(path)] == [None, None, "no patience left"]

    def test_does_not_count_as_the_numbers_of_its_iteration(self, tmp_path):
        path = tmp_path / "metrics.json"
        writer = MetricsFile(path, keep_through=None)
        writer.append(9, stopped="first the reason")
        with EventStorage() as storage:
            train(storage, writer, range(10), period=10)
        assert rows_of(path)[-1].keys() == {"iteration", "lr", "total_loss"}


def test_full_disk_is_one_line_that_says_what_to_do():
    with EventStorage() as storage:
        storage.put_scalar("total_loss", 1.0)
        writer = MetricsFile("/dev/full", keep_through=None)
        with pytest.raises(UserError, match=r"cannot write /dev/full \(No space left") as raised:
            writer.write()
    assert "--resume" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_failed_cut_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 4, "a": 1}\n{"iteration": 9, "a": 1}\n')
    before = path.read_bytes()

    def no_room(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    with pytest.raises(UserError, match="No space left on device"):
        MetricsFile(path, keep_through=4)
    assert path.read_bytes() == before
