import json

import cv2
import pytest
from matplotlib.figure import Figure

from d2pd.errors import MissingFileError
from d2pd.reporting import curves
from d2pd.reporting.curves import MANY_POINTS, draw_curves, smooth


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(iteration, **fields):
    return {"iteration": iteration, "loss_cls": 0.4, "total_loss": 1.0, "lr": 0.1, **fields}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw rows and return the figure, to look at what is in it."""
    figures = []

    def keep(*args, **kwargs):
        figures.append(Figure(*args, **kwargs))
        return figures[-1]

    monkeypatch.setattr(curves, "Figure", keep)

    def draw(rows, **options):
        draw_curves(write(tmp_path / "metrics.json", rows), tmp_path / "curves.png", **options)
        return figures[-1]

    return draw


def lines(axes):
    return {line.get_label().split(":")[0]: line for line in axes.lines}


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize(
    "rows",
    [
        [{"iteration": 0, "total_loss": 3.0}],
        [{"iteration": i, "lr": 0.1, "loss_cls": 0.0, "total_loss": 0.0} for i in range(3)],
        [{"iteration": 9, "toys/bbox/AP": 50.0, "toys/bbox/AP50": 70.0}],
        [{"iteration": 9, "miss_rate/Reasonable": 50.0}],
        [{"iteration": 9, "val/total_loss": 1.0, "best/val/total_loss": 1.0}],
        [row(i, total_loss=float("nan" if i % 2 else "inf")) for i in range(9)],
        [row(i, total_loss=-1.0) for i in range(3)],
        [row(20 * i) for i in range(5000)],
    ],
)
def test_what_is_absent_or_plenty_does_not_stop_the_drawing(tmp_path, rows):
    draw_curves(write(tmp_path / "m.json", rows), tmp_path / "new" / "curves.png")
    picture = cv2.imread(str(tmp_path / "new" / "curves.png"))
    assert picture.std() > 5
    assert picture.shape[1] <= 1600


def test_validation_is_dashed_in_the_colour_of_its_training_loss(drawn):
    checked = {"val/total_loss": 1.2, "val/loss_cls": 0.5}
    axes = drawn([row(9), row(19, **checked), row(29), row(39, **checked)]).axes[0]

    total, part = (line for line in axes.lines if line.get_linestyle() == "-")
    val_total, val_part = (line for line in axes.lines if line.get_linestyle() == "--")
    assert total.get_color() == val_total.get_color() == "black"
    assert part.get_color() == val_part.get_color() != "black"
    assert total.get_linewidth() > part.get_linewidth()
    assert list(val_total.get_xdata()) == [19, 39]
    assert val_total.get_marker() == "o"
    assert "dashed: validation" in axes.get_ylabel()


def test_without_validation_nothing_is_said_of_it(drawn):
    figure = drawn([row(9), row(19)])
    assert "validation" not in figure.axes[0].get_ylabel()
    assert texts(figure) == ["no evaluation yet"]


def test_best_iteration_is_marked_in_every_panel_and_starred_on_its_metric(drawn):
    rows = [
        row(9, **{"bbox/AP": 10.0, "best/bbox/AP": 10.0}),
        row(19, **{"bbox/AP": 30.0, "best/bbox/AP": 30.0}),
        row(29, **{"bbox/AP": 20.0, "best/bbox/AP": 30.0}),
    ]
    figure = drawn(rows)
    losses, precision, rate = figure.axes
    for axes in (losses, precision, rate):
        assert list(lines(axes)["best so far"].get_xdata()) == [19, 19]
    assert precision.collections[0].get_offsets().tolist() == [[19.0, 30.0]]
    assert "bbox/AP: 20\nbest 30 at 19" in [line.get_label() for line in precision.lines]
    assert "best/bbox/AP" not in lines(precision)


def test_metric_that_nobody_watches_tells_its_best_without_a_star(drawn):
    figure = drawn([row(9, **{"bbox/AP": 30.0}), row(19, **{"bbox/AP": 20.0})])
    axes = figure.axes[1]
    assert axes.lines[0].get_label() == "bbox/AP: 20\nbest 30 at 9"
    assert not axes.collections
    assert "best so far" not in lines(axes)


@pytest.mark.parametrize(
    ("highest", "top"), [(0.3, 10), (9.6, 25), (30.0, 50), (48.0, 100), (99.0, 100), (100.0, 100)]
)
def test_low_precision_is_not_drawn_on_the_floor(drawn, highest, top):
    figure = drawn([row(9, **{"bbox/AP": 0.1, "bbox/AP50": highest})])
    assert figure.axes[1].get_ylim() == (0, top)


def test_lower_is_better_for_a_miss_rate(drawn):
    rates = [row(9, **{"miss_rate/All": 30.0}), row(19, **{"miss_rate/All": 40.0})]
    figure = drawn(rates)
    assert [axes.get_ylabel() for axes in figure.axes[1:]] == [
        "miss rate (lower is better)",
        "learning rate",
    ]
    assert figure.axes[1].lines[0].get_label() == "miss_rate/All: 40\nbest 30 at 9"


def test_reason_of_a_stop_is_shown_with_its_iteration(drawn):
    figure = drawn([row(9), row(19), {"iteration": 19, "stopped": "no patience left"}])
    assert "stopped after iteration 19: no patience left" in figure.get_suptitle()
    assert list(lines(figure.axes[0])["stopped"].get_xdata()) == [19, 19]
    assert "stopped" not in drawn([row(9), row(19)]).get_suptitle()


def test_stop_that_is_not_written_yet_is_shown_too(drawn):
    figure = drawn([row(9)], stopped=(19, "no patience left"))
    assert "stopped after iteration 19: no patience left" in figure.get_suptitle()


def test_run_in_progress_shows_what_it_has_not_written_yet(drawn, tmp_path):
    figure = drawn([row(9)], latest={"total_loss": (0.5, 19), "val/total_loss": (0.6, 19)})
    axes = figure.axes[0]
    assert list(lines(axes)["total_loss"].get_xdata()) == [9, 19]
    assert list(lines(axes)["val/total_loss"].get_xdata()) == [19]

    draw_curves(tmp_path / "none.json", tmp_path / "c.png", latest={"lr": (0.1, 0)})
    with pytest.raises(MissingFileError, match=r"none\.json"):
        draw_curves(tmp_path / "none.json", tmp_path / "c.png")


def test_file_that_a_resume_has_emptied_does_not_keep_the_run_from_its_curves(tmp_path):
    (tmp_path / "metrics.json").touch()
    draw_curves(tmp_path / "metrics.json", tmp_path / "c.png", latest={"lr": (0.1, 4)})
    assert (tmp_path / "c.png").stat().st_size > 0


def test_run_of_one_row_shows_its_points(drawn):
    assert lines(drawn([row(9)]).axes[0])["total_loss"].get_marker() == "o"
    assert lines(drawn([row(9), row(19)]).axes[0])["total_loss"].get_marker() == "None"


def test_long_series_is_drawn_as_medians_and_a_short_one_as_it_is():
    points = [(20 * n, float(n)) for n in range(10 * MANY_POINTS)]
    spoilt = [(x, 1e9 if n % 5 == 0 else y) for n, (x, y) in enumerate(points)]
    shown = smooth(spoilt)
    assert MANY_POINTS // 3 <= len(shown) <= MANY_POINTS
    assert max(value for _, value in shown) < 1e9
    assert all(abs(value - x / 20) <= 10 for x, value in shown)
    assert smooth(points[:MANY_POINTS]) == points[:MANY_POINTS]
