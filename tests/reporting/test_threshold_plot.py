"""The picture of thresholds: what is in it, whatever the curves are."""

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from d2pd.evaluation.operating_points import OperatingCurve
from d2pd.reporting.threshold_plot import _draw_class, draw_thresholds

EMPTY = OperatingCurve(*[np.empty(0)] * 5, num_labels=0, num_images=3)


def make_curve():
    scores, right = np.array([0.9, 0.6, 0.2]), np.array([1, 2, 2])
    counted = np.array([1, 2, 4])
    return OperatingCurve(
        scores,
        precision=right / counted,
        recall=right / 4,
        f1=2 * right / (counted + 4),
        fppi=(counted - right) / 2,
        num_labels=4,
        num_images=2,
    )


def test_lines_are_the_curve_and_the_star_is_at_the_best_f1():
    figure = Figure()
    FigureCanvasAgg(figure)
    over_score, over_recall = figure.subplots(1, 2)
    curve = make_curve()
    _draw_class(over_score, over_recall, "person", curve, "C0")
    drawn = [line.get_ydata().tolist() for line in over_score.lines]
    assert drawn == [curve.precision.tolist(), curve.recall.tolist(), curve.f1.tolist()]
    assert over_score.collections[0].get_offsets().tolist() == [[0.6, 2 / 3]]
    assert over_recall.collections[0].get_offsets().tolist() == [[0.5, 1.0]]
    assert over_score.get_legend_handles_labels()[1] == ["person: best F1 0.667 at 0.6"]


@pytest.mark.parametrize(
    "curves",
    [{}, {"person": EMPTY}, {"$x": make_curve(), "a" * 300: EMPTY, "person": make_curve()}],
)
def test_a_picture_comes_of_any_classes(tmp_path, curves):
    path = tmp_path / "new folder" / "thresholds.png"
    draw_thresholds(curves, path, 0.5)
    assert cv2.imread(str(path)).shape == (440, 1100, 3)
