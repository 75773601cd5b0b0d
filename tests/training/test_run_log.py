import logging
import math
import re

import pytest

from d2pd.d2 import EventStorage
from d2pd.errors import UserError
from d2pd.training.writers.run_log import RunLog, number


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The columns must not depend on the machine of the test."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.log"


@pytest.fixture
def storage():
    with EventStorage() as storage:
        yield storage


def put(storage, iteration, total_loss=1.5, rate=1e-3, **more):
    storage.iter = iteration
    storage.put_scalars(
        total_loss=total_loss, loss_cls=1.0, loss_rpn_loc=0.0005, cur_iter=iteration
    )
    storage.put_scalars(time=0.5, data_time=0.25, grad_norm=2.0, cur_iter=iteration)
    storage.put_scalars(lr=rate, smoothing_hint=False, cur_iter=iteration)
    for name, value in more.items():
        storage.put_scalar(name, value, smoothing_hint=False, cur_iter=iteration)


def log_at(path, **options):
    return RunLog(path, max_iter=100, **options)


def lines_of(path):
    """The lines without their clocks, which every one of them has."""
    lines = path.read_text().splitlines()
    assert all(re.match(r"\d\d-\d\d \d\d:\d\d  ", line) for line in lines)
    return [line[13:] for line in lines]


def table_of(path):
    """The rows below the first heading, by heading."""
    lines = lines_of(path)
    heads = re.split(r"\s{2,}", lines[0].strip())
    return [dict(zip(heads, re.split(r"\s{2,}", line.strip()), strict=True)) for line in lines[1:]]


def test_line_tells_iteration_losses_rate_and_times(path, storage):
    put(storage, 19)
    log_at(path, iters_per_epoch=8).write()
    assert table_of(path) == [
        {
            "iteration": "19/100",
            "epoch": "2.5",
            "left": "0:00:40",
            "loss": "1.500",
            "cls": "1.000",
            "rpn_loc": "5.0e-04",
            "rate": "0.001",
            "s/iter": "0.500",
            "s data": "0.250",
            "grad": "2.000",
        }
    ]


def test_losses_are_medians_of_twenty_iterations_and_the_rate_is_the_last(path, storage):
    for iteration in range(40):
        put(storage, iteration, total_loss=float(iteration), rate=0.001 * iteration)
    log_at(path).write()
    row = table_of(path)[0]
    assert float(row["loss"]) == pytest.approx(29.5)
    assert row["rate"] == "0.039"


def test_columns_stand_below_their_headings(path, storage):
    log = log_at(path, iters_per_epoch=8)
    for iteration in (19, 39, 99):
        put(storage, iteration, total_loss=10.0**iteration % 7919)
        log.write()
    heading, *rows = lines_of(path)
    assert len(rows) == 3
    ends = [match.end() for match in re.finditer(r"\S+( \S+)*", heading)]
    for row in rows:
        assert [match.end() for match in re.finditer(r"\S+", row)] == ends


def test_what_the_step_logs_only_now_and_then_has_a_column_when_it_does(path, storage):
    log = log_at(path)
    put(storage, 19)
    log.write()
    put(storage, 39, skipped_steps=3, loss_scale=65536)
    log.write()
    first, _, second, row = lines_of(path)
    assert "skipped steps" not in first
    assert "skipped steps" in second
    assert re.search(r"3\s+65536$", row)


def test_gpu_memory_has_a_column_where_there_is_a_gpu(path, storage, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 5 * 2**29)
    put(storage, 19)
    log_at(path).write()
    assert table_of(path)[0]["GPU GB"] == "2.5"


def test_time_left_is_put_for_the_other_writers_as_detectron2_does(path, storage):
    put(storage, 19)
    log_at(path).write()
    assert storage.latest()["eta_seconds"] == (40.0, 19)
    assert storage.smoothing_hints()["eta_seconds"] is False


def test_before_the_first_times_are_known_nothing_is_made_up(path, storage):
    storage.put_scalar("total_loss", float("nan"))
    log_at(path).write()
    row = table_of(path)[0]
    assert (row["left"], row["loss"], row["s/iter"]) == ("?", "nan", "?")
    assert "eta_seconds" not in storage.latest()


def test_same_iteration_is_told_once(path, storage):
    log = log_at(path)
    log.write()
    assert not path.exists()
    put(storage, 19)
    log.write()
    storage.iter = 20  # what the loop does when it ends
    log.write()
    assert len(table_of(path)) == 1


def test_evaluation_stands_below_its_line_in_the_same_columns(path, storage):
    figures = {
        "val/total_loss": 1.75,
        "val/loss_cls": 1.25,
        "bbox/AP": 20.0,
        "bbox/AP50": 41.237,
        "bbox/APs": math.nan,
        "best/bbox/AP": 20.0,
        "early_stopping/patience_left": 1,
    }
    put(storage, 19, **figures)
    log_at(path).write()
    heading, row, validation, *rest = lines_of(path)
    assert rest == [
        "  bbox  AP 20  AP50 41.24  APs nan",
        "  best  bbox/AP 20 (now)",
        "  patience left: 1 evaluation",
    ]
    assert validation.split() == ["validation", "1.750", "1.250"]
    for head, train, val in (("loss", "1.500", "1.750"), ("cls", "1.000", "1.250")):
        end = re.search(rf"\b{head}\b", heading).end()
        assert row[:end].endswith(train)
        assert validation[:end].endswith(val)


def test_best_so_far_is_told_with_its_iteration(path, storage):
    log = log_at(path)
    for iteration, ap, best in ((19, 20.0, 20.0), (39, 30.0, 30.0), (59, 25.0, 30.0)):
        put(storage, iteration, **{"bbox/AP": ap, "best/bbox/AP": best})
        log.write()
    told = [line.strip() for line in lines_of(path) if "best" in line]
    assert told == [
        "best  bbox/AP 20 (now)",
        "best  bbox/AP 30 (now)",
        "best  bbox/AP 30 (at iteration 39)",
    ]


def test_best_of_before_a_resume_keeps_its_iteration(path):
    for known, at in (({"bbox/AP": (9, 30.0)}, 9), ({}, 39), ({"bbox/AP": (9, 29.0)}, 39)):
        path.unlink(missing_ok=True)
        with EventStorage(60) as storage:
            # As far back as the resumed storage reaches.
            for iteration in (39, 59):
                put(storage, iteration, **{"bbox/AP": 1.0, "best/bbox/AP": 30.0})
            log = log_at(path, best=known)
            log.start([], start_iter=60)
            put(storage, 79, **{"bbox/AP": 20.0, "best/bbox/AP": 30.0})
            log.write()
        assert f"  best  bbox/AP 30 (at iteration {at})" in lines_of(path)


def test_evaluation_is_told_once_and_not_again_after_a_resume(path, storage):
    log = log_at(path)
    put(storage, 19, **{"bbox/AP": 20.0})
    log.write()
    put(storage, 39)
    log.write()
    again = log_at(path)
    again.start(["12 images"], start_iter=40)
    put(storage, 59)
    again.write()
    lines = lines_of(path)
    assert sum("bbox" in line for line in lines) == 1
    assert [line.split()[0] for line in lines if "/100" in line] == ["19/100", "39/100", "59/100"]


def test_evaluation_that_a_resume_makes_up_for_is_told_with_its_line(path, storage):
    put(storage, 19)
    log = log_at(path)
    log.start([], start_iter=20)
    put(storage, 19, **{"val/total_loss": 1.75})
    log.write()
    assert [line.split()[0] for line in lines_of(path)[1:]] == ["iteration", "19/100", "validation"]


def test_metric_that_decides_in_every_iteration_is_no_evaluation(path, storage):
    log = log_at(path)
    for iteration in (19, 39):
        put(storage, iteration, **{"best/total_loss": 1.5, "early_stopping/patience_left": 5})
        log.write()
    assert len(table_of(path)) == 2


def test_start_resume_and_end_are_dated(path, storage):
    log = log_at(path)
    log.start(["12 images of toys"])
    put(storage, 19)
    log.write()
    log.finish("stopped by SIGTERM after iteration 19")
    log_at(path).start(["12 images of toys"], start_iter=20)
    lines = lines_of(path)
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ==="
    assert re.fullmatch(rf"=== started, {date}", lines[0])
    assert lines[1] == "12 images of toys"
    assert re.fullmatch(rf"=== stopped by SIGTERM after iteration 19, {date}", lines[4])
    assert re.fullmatch(rf"=== resumed after iteration 19, {date}", lines[5])


def test_heading_comes_again_after_an_evaluation_and_after_a_screenful(path, storage):
    log = log_at(path)
    for iteration in range(60):
        put(storage, iteration, **({"bbox/AP": 1.0} if iteration == 4 else {}))
        log.write()
    lines = [line for line in lines_of(path) if "bbox" not in line]
    headings = [number for number, line in enumerate(lines) if "iteration" in line]
    assert headings == [0, 6, 33, 60]


def test_many_metrics_are_broken_into_lines_that_fit(path, storage):
    put(storage, 19, **{f"bbox/AP-class{n}": 50.0 for n in range(40)})
    log_at(path).write()
    metrics = lines_of(path)[2:]
    assert len(metrics) > 3
    assert all(len(line) <= 104 for line in metrics)
    assert sum(line.count("AP-class") for line in metrics) == 40


def test_terminal_gets_the_same_lines(path, storage, caplog):
    put(storage, 19)
    with caplog.at_level(logging.INFO, logger="d2pd.run"):
        log_at(path).write()
    assert [r.getMessage() for r in caplog.records if r.name == "d2pd.run"] == lines_of(path)


def test_full_disk_is_one_line(storage):
    put(storage, 19)
    with pytest.raises(UserError, match=r"cannot write /dev/full \(No space left on device\)"):
        log_at("/dev/full").write()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.012, "0.012"),
        (0.00052, "5.2e-04"),
        (999.4, "999.400"),
        (12345.0, "1.2e+04"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_losses_fit_into_seven_characters(value, text):
    assert number(value) == text
    assert len(text) <= 7
