import json
import logging

import pytest

from d2pd.errors import AnnotationError, MissingFileError
from d2pd.reporting.run_metrics import (
    MOST_CLASSES,
    add_latest,
    best_points,
    miss_rates,
    precision_metrics,
    read_metrics,
    read_stop,
    training_losses,
)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_numbers_by_metric_in_order_of_the_iteration(tmp_path):
    rows = [
        {"iteration": 0, "total_loss": 3.0, "lr": 0.1},
        {"iteration": 20, "total_loss": 2.0, "lr": 0.1, "bbox/AP": float("nan"), "eta": "1 h"},
        {"iteration": 19, "bbox/AP": 5.0},
        {"iteration": 40, "total_loss": float("inf"), "lr": 0.1},
    ]
    assert read_metrics(write(tmp_path / "m.json", rows)) == {
        "total_loss": [(0, 3.0), (20, 2.0)],
        "lr": [(0, 0.1), (20, 0.1), (40, 0.1)],
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


def test_file_without_numbers_or_no_file_is_an_error(tmp_path):
    with pytest.raises(MissingFileError, match=r"no .*gone\.json; a training run writes it"):
        read_metrics(tmp_path / "gone.json")
    with pytest.raises(AnnotationError, match="no row with an iteration"):
        read_metrics(write(tmp_path / "m.json", [{"iteration": 3, "stopped": "at once"}]))


def test_reason_of_a_stop_counts_while_nothing_comes_after_it(tmp_path):
    rows = [{"iteration": 4, "lr": 0.1}, {"iteration": 4, "stopped": "no patience left"}]
    assert read_stop(write(tmp_path / "m.json", rows)) == (4, "no patience left")
    rows.append({"iteration": 9, "lr": 0.1})
    assert read_stop(write(tmp_path / "m.json", rows)) is None
    assert read_stop(write(tmp_path / "m.json", [])) is None


def test_best_is_where_the_best_value_was_first_written():
    series = {
        "bbox/AP": [(9, 10.0), (19, 30.0), (29, 20.0), (39, 25.0)],
        "best/bbox/AP": [(9, 10.0), (19, 30.0), (29, 30.0), (39, 30.0)],
        "best/val/total_loss": [(9, 2.0), (19, 1.5), (29, 1.4)],
    }
    assert best_points(series) == {"bbox/AP": (19, 30.0), "val/total_loss": (29, 1.4)}


def test_best_that_came_back_counts_from_its_return():
    # After a resume with other metrics watched, a best may start anew.
    assert best_points({"best/a": [(9, 3.0), (19, 1.0), (29, 3.0)]}) == {"a": (29, 3.0)}


def test_latest_values_extend_the_series_and_change_nothing_before():
    series = {"lr": [(9, 0.2), (19, 0.1)]}
    latest = {"lr": (0.05, 29), "val/total_loss": (1.5, 29), "bbox/AP": (float("nan"), 29)}
    assert add_latest(series, latest) == {
        "lr": [(9, 0.2), (19, 0.1), (29, 0.05)],
        "val/total_loss": [(29, 1.5)],
    }
    assert series == {"lr": [(9, 0.2), (19, 0.1)]}
    assert add_latest(series, {"lr": (7.0, 19)}) == series


def test_average_precisions_that_are_drawn():
    names = ["bbox/APs", "bbox/AP50", "bbox/AP-person", "bbox/AP", "lr", "best/bbox/AP"]
    assert precision_metrics(names) == ["bbox/AP", "bbox/AP50"]
    assert precision_metrics([*names, "bbox/AP-car"]) == [
        "bbox/AP",
        "bbox/AP50",
        "bbox/AP-car",
        "bbox/AP-person",
    ]
    many = [f"bbox/AP-{number}" for number in range(MOST_CLASSES + 1)]
    assert precision_metrics(["bbox/AP", *many]) == ["bbox/AP"]


def test_miss_rates_are_known_by_their_names():
    names = [
        "miss_rate/Reasonable",
        "bbox/MR-All",
        "mr",
        "log_average_miss_rate",
        "kaist/LAMR",
        "MR2",
    ]
    others = ["bbox/AP", "best/miss_rate/Reasonable", "lr", "time", "loss_mrcnn", "mrs"]
    assert miss_rates([*names, *others]) == sorted(names)


def test_of_many_miss_rates_the_reasonable_ones_are_drawn():
    reasonable = [f"MR/reasonable/{split}" for split in ("all", "day", "night")]
    others = [f"MR/{name}/{split}" for name in ("far", "near") for split in ("all", "day", "night")]
    assert miss_rates([*others, *reasonable]) == reasonable
    assert miss_rates(others) == others
    assert miss_rates(reasonable[:1] + others[:1]) == [others[0], reasonable[0]]


def test_the_parts_of_the_loss_are_not_what_it_is_scaled_by():
    names = ["total_loss", "loss_seg/conv7", "loss_scale", "loss_seg", "loss_cls", "val/loss_cls"]
    assert training_losses(names) == ["loss_cls", "loss_seg", "loss_seg/conv7"]
