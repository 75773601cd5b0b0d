import json
import logging

import cv2
import pytest
from matplotlib.figure import Figure

from d2pd.errors import AnnotationError, MissingFileError
from d2pd.reporting.curves import _plot, draw_curves, precision_metrics, read_metrics


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_numbers_by_metric_in_order_of_the_iteration(tmp_path):
    rows = [
        {"iteration": 0, "total_loss": 3.0, "lr": 0.1},
        {"iteration": 20, "total_loss": 2.0, "lr": 0.1, "bbox/AP": float("nan"), "eta": "1 h"},
        {"iteration": 19, "bbox/AP": 5.0},
    ]
    assert read_metrics(write(tmp_path / "m.json", rows)) == {
        "total_loss": [(0, 3.0), (20, 2.0)],
        "lr": [(0, 0.1), (20, 0.1)],
        "bbox/AP": [(19, 5.0)],
    }


def test_row_written_again_after_a_resume_counts_once(tmp_path):
    rows = [{"iteration": 5, "total_loss": 3.0}, {"iteration": 5, "total_loss": 2.0}]
    assert read_metrics(write(tmp_path / "m.json", rows)) == {"total_loss": [(5, 2.0)]}


def test_row_that_is_not_whole_is_left_out_and_named(tmp_path, caplog):
    path = write(tmp_path / "m.json", [{"iteration": 0, "total_loss": 3.0}])
    path.write_text(path.read_text() + '{"iteration": 20, "tot')
    with caplog.at_level(logging.WARNING):
        assert read_metrics(path) == {"total_loss": [(0, 3.0)]}
    assert "m.json:2: not a whole row" in caplog.text


def test_metrics_that_are_drawn():
    names = ["bbox/APs", "bbox/AP50", "bbox/AP-person", "bbox/AP", "lr", "total_loss"]
    assert precision_metrics(names) == ["bbox/AP", "bbox/AP50"]
    assert precision_metrics([*names, "bbox/AP-car"]) == [
        "bbox/AP",
        "bbox/AP50",
        "bbox/AP-car",
        "bbox/AP-person",
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [{"iteration": 0, "total_loss": 3.0}],
        [{"iteration": i, "lr": 0.1, "loss_cls": 0.0, "total_loss": 0.0} for i in range(3)],
        [{"iteration": 9, "toys/bbox/AP": 50.0, "toys/bbox/AP50": 70.0}],
    ],
)
def test_what_is_absent_does_not_stop_the_drawing(tmp_path, rows):
    draw_curves(write(tmp_path / "m.json", rows), tmp_path / "new" / "curves.png")
    assert cv2.imread(str(tmp_path / "new" / "curves.png")).std() > 5


def test_run_of_one_row_shows_its_points(tmp_path):
    axes = Figure().subplots()
    _plot(axes, [(9, 1.0)], "total_loss")
    _plot(axes, [(9, 1.0), (19, 0.5)], "loss_cls")
    assert [line.get_marker() for line in axes.lines] == ["o", "None"]


def test_file_without_numbers_or_no_file_is_an_error(tmp_path):
    with pytest.raises(MissingFileError, match=r"no .*gone\.json; a training run writes it"):
        draw_curves(tmp_path / "gone.json", tmp_path / "c.png")
    with pytest.raises(AnnotationError, match="no row with an iteration"):
        draw_curves(write(tmp_path / "m.json", []), tmp_path / "c.png")
