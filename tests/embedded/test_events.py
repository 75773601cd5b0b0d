import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2pd.embedded.events import EventStorage, get_event_storage, has_event_storage
from d2pd.embedded.writers import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter


@given(st.lists(st.integers(0, 200), min_size=1, unique=True), st.integers(1, 50))
def test_count_samples_counts_the_iterations_in_the_window(iterations, window):
    storage = EventStorage()
    for iteration in sorted(iterations):
        storage.put_scalar("x", 0.0, cur_iter=iteration)
    last = max(iterations)
    assert storage.count_samples("x", window) == sum(i > last - window for i in iterations)


def test_storages_nest_and_close():
    assert not has_event_storage()
    with EventStorage(5) as outer:
        assert get_event_storage() is outer
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
        assert outer.iter == outer.iteration == 5
    assert not has_event_storage()


def test_storage_closes_after_an_error():
    with pytest.raises(ZeroDivisionError), EventStorage():
        raise ZeroDivisionError
    assert not has_event_storage()


def test_smoothed_scalars_show_a_median_and_others_the_value():
    storage = EventStorage()
    for value in (1.0, 9.0, 2.0):
        storage.put_scalars(loss=value)
        storage.put_scalar("ap", value, smoothing_hint=False)
        storage.step()
    assert storage.latest() == {"loss": (2.0, 2), "ap": (2.0, 2)}
    assert storage.latest_with_smoothing_hint(20) == {"loss": (2.0, 2), "ap": (2.0, 2)}
    assert storage.latest_with_smoothing_hint(2) == {"loss": (5.5, 2), "ap": (2.0, 2)}
    assert storage.smoothing_hints() == {"loss": True, "ap": False}
    assert [v for v, _ in storage.history("loss").values()] == [1.0, 9.0, 2.0]


def test_name_scope_prefixes_and_ends():
    storage = EventStorage()
    with storage.name_scope("rpn/"):
        storage.put_scalar("loss", 1)
    storage.put_scalar("loss", 2)
    assert set(storage.histories()) == {"rpn/loss", "loss"}


def test_histogram_counts_every_value():
    storage = EventStorage(3)
    storage.put_histogram("w", torch.tensor([0.0, 1.0, 1.0, 4.0]), bins=4)
    (histogram,) = storage._histograms
    assert histogram["bucket_counts"] == [1.0, 2.0, 0.0, 1.0]
    assert histogram["bucket_limits"] == [1.0, 2.0, 3.0, 4.0]
    assert (histogram["sum"], histogram["sum_squares"], histogram["global_step"]) == (6.0, 18.0, 3)


def test_mistakes_are_told():
    with pytest.raises(AssertionError, match="no EventStorage is open"):
        get_event_storage()
    storage = EventStorage()
    storage.put_scalar("x", 1.0)
    with pytest.raises(AssertionError, match="x was put before with another smoothing_hint"):
        storage.put_scalar("x", 1.0, smoothing_hint=False)
    with pytest.raises(KeyError, match="no scalar named y"):
        storage.history("y")
    with pytest.raises(NotImplementedError):
        EventWriter().write()


def test_json_has_one_row_per_iteration_and_repeats_nothing(tmp_path):
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(str(path), window_size=1)
        storage.put_scalars(loss=3.0, lr=0.1)
        writer.write()
        writer.write()
        storage.put_scalar("old", 7.0, cur_iter=5)
        storage.iter = 6
        storage.put_scalar("loss", 4.0)
        writer.write()
        writer.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"iteration": 0, "loss": 3.0, "lr": 0.1} in rows
    assert {"iteration": 5, "old": 7.0} in rows
    assert {"iteration": 6, "loss": 4.0} in rows
    assert len(rows) == 3


def test_json_is_appended_to(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 1}\n')
    with EventStorage(2) as storage:
        storage.put_scalar("x", 1.0)
        writer = JSONWriter(str(path))
        writer.write()
        writer.close()
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [1, 2]


def test_tensorboard_holds_scalars_and_frees_pictures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = TensorboardXWriter(str(tmp_path))
    writer.close()
    assert list(tmp_path.iterdir()) == []
    with EventStorage(4) as storage:
        storage.put_scalar("loss", 2.5, smoothing_hint=False)
        storage.put_image("batch", torch.zeros(3, 4, 4, dtype=torch.uint8))
        storage.put_histogram("w", torch.arange(5.0))
        writer.write()
        assert (storage._vis_data, storage._histograms) == ([], [])
        writer.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(4, 2.5)]
    assert events.Tags()["images"] == ["batch"]
    assert events.Tags()["histograms"] == ["w"]


def test_printed_line(caplog):
    with caplog.at_level("INFO"), EventStorage() as storage:
        storage.put_scalars(time=2.0, data_time=0.5, total_loss=1.25, acc=1)
        storage.put_scalar("[metric]norm", 3)
        storage.put_scalar("lr", 0.02, smoothing_hint=False)
        CommonMetricPrinter(11).write()
        CommonMetricPrinter().write()
        storage.iter = 11
        CommonMetricPrinter(11).write()
    first, second = (record.message for record in caplog.records)
    for part in ("eta: 0:00:20", "iter: 0", "total_loss: 1.25", "[metric]norm: 3", "lr: 0.02"):
        assert part in first
    assert "time: 2.0000  last_time: 2.0000  data_time: 0.5000" in first
    assert "acc" not in first
    assert "eta" not in second
    assert storage.latest()["eta_seconds"] == (20.0, 0)


def test_time_left_without_a_timer_comes_from_the_clock(caplog):
    printer = CommonMetricPrinter(100)
    with caplog.at_level("INFO"), EventStorage() as storage:
        printer.write()
        storage.iter = 50
        printer.write()
    assert "eta" not in caplog.records[0].message
    assert "eta: 0:00:00" in caplog.records[1].message
    assert "lr: N/A" in caplog.records[0].message
