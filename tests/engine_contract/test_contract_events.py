"""Storage and writers: histories, smoothing, rows of ``metrics.json``, the line of progress."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_recording import Contract
from contract_toys import raised

from d2pd.d2 import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)


def filled(values: int = 5, start: int = 0) -> EventStorage:
    """Return a storage with a noisy and an exact scalar in each iteration."""
    storage = EventStorage(start)
    for index in range(values):
        storage.put_scalar("noisy", (index - 2) ** 2)
        storage.put_scalar("exact", index, smoothing_hint=False)
        if index < values - 1:
            storage.step()
    return storage


def test_latest_and_smoothed(contract: Contract) -> None:
    storage = filled()
    assert storage.latest() == {"noisy": (4.0, 4), "exact": (4.0, 4)}
    # Median of 4, 1, 0, 1, 4.
    assert storage.latest_with_smoothing_hint(20) == {"noisy": (1.0, 4), "exact": (4.0, 4)}
    contract(
        {
            "latest": storage.latest(),
            "windows": {w: storage.latest_with_smoothing_hint(w) for w in (1, 2, 3, 20)},
            "history": storage.history("noisy").values(),
            "average": storage.history("noisy").avg(3),
            "global": storage.history("noisy").global_avg(),
            "hints": storage.smoothing_hints(),
            "names": list(storage.histories()),
        }
    )


def test_window_is_in_iterations(contract: Contract) -> None:
    storage = EventStorage()
    for iteration in (0, 3, 4, 4, 10, 30):
        storage.put_scalar("x", iteration, cur_iter=iteration)
    counts = {window: storage.count_samples("x", window) for window in (1, 20, 21, 27, 100)}
    assert counts == {1: 1, 20: 1, 21: 2, 27: 4, 100: 6}
    contract({"counts": counts, "default": storage.count_samples("x")})


def test_iteration_of_a_storage(contract: Contract) -> None:
    storage = EventStorage(7)
    seen = [storage.iter]
    storage.step()
    seen.append(storage.iter)
    storage.iter = 20.0
    seen += [storage.iter, storage.iteration]
    storage.put_scalar("now", 1)
    storage.put_scalar("other", 1, cur_iter=3)
    assert seen == [7, 8, 20, 20]
    contract({"seen": seen, "latest": storage.latest()})


def test_several_scalars_at_once(contract: Contract) -> None:
    storage = EventStorage()
    storage.put_scalars(a=1, b=torch.tensor(2.5), cur_iter=4)
    storage.put_scalars(c=True, smoothing_hint=False)
    storage.put_scalars()
    contract({"latest": storage.latest(), "hints": storage.smoothing_hints()})


def test_a_smoothing_hint_stays(contract: Contract) -> None:
    storage = EventStorage()
    storage.put_scalar("x", 1)
    how = raised(storage.put_scalar, "x", 2, smoothing_hint=False)
    assert how == "AssertionError"
    contract(
        {
            "changed": how,
            "unknown": raised(storage.history, "y"),
            "hints": storage.smoothing_hints(),
        }
    )


def test_name_scopes(contract: Contract) -> None:
    storage = EventStorage()
    with storage.name_scope("val"):
        storage.put_scalar("loss", 1)
        with storage.name_scope("inner/"):
            storage.put_scalar("loss", 2)
        storage.put_scalar("after", 3)
    storage.put_scalar("loss", 4)
    assert list(storage.latest()) == ["val/loss", "inner/loss", "val/after", "loss"]
    contract({"latest": storage.latest()})


def test_the_innermost_storage_is_current(contract: Contract) -> None:
    seen: list[Any] = [raised(get_event_storage)]
    with EventStorage(1) as outer:
        seen.append(get_event_storage() is outer)
        with EventStorage(2) as inner:
            seen.append(get_event_storage() is inner)
        seen.append(get_event_storage() is outer)
    seen.append(raised(get_event_storage))
    assert seen == ["AssertionError", True, True, True, "AssertionError"]
    contract({"seen": seen})


def test_a_failure_closes_the_storage(contract: Contract) -> None:
    with pytest.raises(KeyError), EventStorage():
        raise KeyError("on purpose")
    contract({"after": raised(get_event_storage)})


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_of_metrics_json(contract: Contract, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(str(path))
    with filled() as storage:
        writer.write()
        writer.write()  # nothing is new
        storage.iter = 9
        storage.put_scalar("exact", 0.5, smoothing_hint=False)
        storage.put_scalar("late", 1.5, cur_iter=8)
        storage.put_scalar("too late", 1.5, cur_iter=4)
        writer.write()
    writer.close()
    rows = lines_of(path)
    assert rows[0] == {"iteration": 4, "noisy": 1.0, "exact": 4.0}
    assert [row["iteration"] for row in rows] == [4, 9, 8]
    contract({"rows": rows, "text": path.read_text()})


def test_metrics_json_is_appended_to(contract: Contract, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    for start in (0, 2):
        writer = JSONWriter(str(path), window_size=2)
        with filled(3, start):
            writer.write()
        writer.close()
    rows = lines_of(path)
    assert [row["iteration"] for row in rows] == [2, 4]
    contract({"rows": rows})


def test_an_empty_storage_writes_no_row(contract: Contract, tmp_path: Path) -> None:
    writer = JSONWriter(str(tmp_path / "metrics.json"))
    with EventStorage(3):
        writer.write()
    writer.close()
    contract({"size": (tmp_path / "metrics.json").stat().st_size})


class Summary:
    """Takes the place of TensorBoard's writer."""

    def __init__(self, **arguments: Any) -> None:
        self.lines: list[Any] = [["open", sorted(arguments)]]
        SUMMARIES.append(self)

    def add_scalar(self, *arguments: Any) -> None:
        self.lines.append(["scalar", *arguments])

    def add_image(self, name: str, image: torch.Tensor, iteration: int) -> None:
        self.lines.append(["image", name, list(image.shape), iteration])

    def add_histogram_raw(self, **arguments: Any) -> None:
        self.lines.append(["histogram", arguments])

    def close(self) -> None:
        self.lines.append(["close"])


SUMMARIES: list[Summary] = []


def test_calls_of_tensorboard(
    contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", Summary)
    SUMMARIES.clear()
    unused = TensorboardXWriter(str(tmp_path))
    unused.close()
    assert SUMMARIES == []
    writer = TensorboardXWriter(str(tmp_path), 20, flush_secs=1)
    with filled() as storage:
        storage.put_image("picture", torch.zeros(3, 2, 2))
        storage.put_histogram("weights", torch.tensor([0.0, 1.0, 1.0, 4.0]), bins=4)
        writer.write()
        writer.write()
        storage.put_histogram("gone", torch.tensor([1.0, 2.0]))
        storage.put_image("gone", torch.zeros(3, 2, 2))
        storage.clear_images()
        storage.clear_histograms()
        writer.write()
    writer.close()
    lines = SUMMARIES[0].lines
    histogram = next(line[1] for line in lines if line[0] == "histogram")
    assert histogram["bucket_counts"] == [1, 2, 0, 1]
    assert histogram["sum_squares"] == 18
    contract({"lines": lines, "opened": len(SUMMARIES)})


def printed(writer: CommonMetricPrinter) -> list[list[str]]:
    """Return the words of what a write logs."""
    handler = logging.Handler()
    found: list[list[str]] = []
    handler.emit = lambda record: found.append(record.getMessage().split())  # type: ignore[method-assign]
    writer.logger.addHandler(handler)
    level = writer.logger.level
    writer.logger.setLevel(logging.INFO)
    try:
        writer.write()
    finally:
        writer.logger.removeHandler(handler)
        writer.logger.setLevel(level)
    return [words[: words.index("max_mem:")] if "max_mem:" in words else words for words in found]


def test_line_of_progress(contract: Contract) -> None:
    writer = CommonMetricPrinter(100)
    with EventStorage(20) as storage:
        empty = printed(writer)
        for value in (3.0, 1.0, 2.0):
            storage.step()
            storage.put_scalars(
                total_loss=value, loss_cls=value / 3, other=9, time=value, data_time=value / 4
            )
            storage.put_scalar("[metric]accuracy", value * 10)
            storage.put_scalar("lr", 0.00123456, smoothing_hint=False)
        full = printed(writer)
        eta = storage.latest()["eta_seconds"]
        storage.iter = 100
        over = printed(writer)
    # Median of the times 2 s, 76 iterations to go.
    assert eta == (152.0, 23)
    assert full[0][:4] == ["eta:", "0:02:32", "iter:", "23"]
    assert over == []
    contract({"empty": empty, "full": full, "eta": eta, "over": over})


def test_line_of_progress_without_an_end(contract: Contract) -> None:
    with filled() as storage:
        storage.put_scalar("loss", 0.5)
        lines = printed(CommonMetricPrinter())
    assert "eta:" not in lines[0]
    contract({"lines": lines})


def test_the_base_writer(contract: Contract) -> None:
    class Half(EventWriter):
        pass

    assert raised(Half().write) == "NotImplementedError"
    contract({"write": raised(Half().write), "close": raised(Half().close)})
