"""The picture of anchor fit: what is in it, and what it says when it cannot be written."""

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from d2pd.errors import UserError
from d2pd.modeling.anchor_fit import AnchorFit
from d2pd.reporting.anchor_fit_plot import draw_anchor_fit, draw_cloud

FIT = AnchorFit(
    torch.tensor([30.0, 40, 50, 70, 200]), torch.tensor([0.2, 0.3, 0.4, 0.6, 0.8]), 0.5, {}
)
NOTHING = AnchorFit(torch.zeros(0), torch.zeros(0), 0.5, {})


def drawn(fit):
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw_cloud(axes, fit)
    figure.canvas.draw()
    return axes


def test_a_point_for_each_label_and_a_line_at_the_threshold():
    axes = drawn(FIT)

    points = torch.tensor(axes.collections[0].get_offsets().data)
    torch.testing.assert_close(points[:, 0].float(), FIT.heights)
    torch.testing.assert_close(points[:, 1].float(), FIT.best_iou)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[0] == "IoU 0.5, from which an anchor learns a label; 60.0 % of all are below"
    line = next(line for line in axes.lines if line.get_label() == legend[0])
    assert list(line.get_ydata()) == [0.5, 0.5]


def test_each_band_has_its_median_and_its_share_above():
    axes = drawn(FIT)

    assert [text.get_text().split("\n") for text in axes.texts] == [
        ["under 45 px", "2 labels", "100.0 % below"],
        ["45 to 55 px", "1 labels", "100.0 % below"],
        ["55 to 115 px", "1 labels", "0.0 % below"],
        ["115 px and more", "1 labels", "0.0 % below"],
    ]
    levels = [line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1]
    assert levels == pytest.approx([0.5, 0.25, 0.4, 0.6, 0.8])


def test_the_words_of_the_narrow_band_fit_between_its_borders(tmp_path):
    """At the size of the file, with the heights of KAIST."""
    heights = torch.cat(
        (torch.linspace(19, 44, 2000), torch.full((8000,), 50.0), torch.tensor(340.0)[None])
    )
    figure = Figure(figsize=(11, 5.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw_cloud(axes, AnchorFit(heights, torch.full_like(heights, 0.3), 0.5, {}))
    figure.canvas.draw()

    box = axes.texts[1].get_window_extent()
    left, right = (axes.transData.transform((edge, 0))[0] for edge in (45, 55))
    assert axes.texts[1].get_text() == "45 to 55 px\n8,000 labels\n100.0 % below"
    assert box.x0 > left - 6
    assert box.x1 < right + 6


def test_no_labels_are_empty_axes():
    axes = drawn(NOTHING)

    assert len(axes.texts) == 0
    assert (
        axes.get_legend().get_texts()[0].get_text()
        == "IoU 0.5, from which an anchor learns a label"
    )


def test_the_file_is_a_png_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "new" / "anchor_fit.png"

    draw_anchor_fit(FIT, "5 labels of a$b$c", path)

    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["anchor_fit.png"]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match=r"cannot write .*anchor_fit\.png .*another OUTPUT_DIR"):
        draw_anchor_fit(FIT, "", tmp_path / "file" / "anchor_fit.png")
