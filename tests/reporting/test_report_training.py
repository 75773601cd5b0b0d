import json

import pytest
from report_toys import write_metrics

from d2pd.reporting.report.status import run_status
from d2pd.reporting.report.training import read_history, training_charts


def lines_of(charts):
    return {line.name: line for chart in charts for line in chart.lines}


def test_losses_and_metrics_with_their_best_value(tmp_path):
    write_metrics(tmp_path)

    charts = training_charts(read_history(tmp_path))
    lines = lines_of(charts)

    assert [chart.title.split(" (")[0] for chart in charts] == [
        "Loss",
        "Average precision",
        "Learning rate",
    ]
    assert lines["val/total_loss"].dash == "dashed"
    assert lines["total_loss"].points[0] == (0, 2.0)
    assert lines["bbox/AP"].note == "last 12, best 12 at 80"
    assert lines["bbox/AP"].star == (80, 12.0)
    assert (80.0, "best") in charts[0].marks
    assert {chart.x_range for chart in charts} == {(0.0, 80.0)}


def test_what_was_not_measured_is_told(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"iteration": 0, "lr": 0.1}))

    loss, precision, _ = training_charts(read_history(tmp_path))

    assert (loss.lines, loss.absent) == ([], "No losses in metrics.json.")
    assert "TEST.EVAL_PERIOD says how often" in precision.absent


@pytest.mark.parametrize("content", ["", "{", "\xff"])
def test_file_that_cannot_be_used_is_told_of(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content, encoding="latin-1")

    history = read_history(tmp_path)

    assert history.trouble.startswith("metrics.json cannot be used")
    assert training_charts(history) == []


def test_status_of_every_end(tmp_path):
    history = read_history(tmp_path)
    assert (
        history.trouble
        == "This folder has no metrics.json: train_net.py writes it while it trains."
    )
    assert run_status(tmp_path, history, 100)[0] == "evaluated"

    write_metrics(tmp_path)
    status, words = run_status(tmp_path, read_history(tmp_path), 100)
    assert status == "unfinished"
    assert "iteration 80 of 100" in words
    assert "--resume goes on" in words

    (tmp_path / "results.json").write_text("{}")
    assert run_status(tmp_path, read_history(tmp_path), 100) == (
        "finished",
        "Trained to the end, 100 iterations.",
    )

    write_metrics(tmp_path, stopped="AP stands still")
    assert run_status(tmp_path, read_history(tmp_path), 100) == (
        "stopped early",
        "Stopped after iteration 80 of 100: AP stands still.",
    )
