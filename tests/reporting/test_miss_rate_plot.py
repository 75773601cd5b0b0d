"""The plot of papers: what is in it, and what it refuses."""

import struct

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from d2pd.errors import ConfigError
from d2pd.evaluation.miss_rate import MissRate
from d2pd.reporting.miss_rate_plot import Panel, _draw_panel, check_plot_path, draw_miss_rates


def make_rate(value=20.0, fppi=(0.0, 0.05, 0.4), miss=(0.6, 0.3, 0.1)):
    return MissRate(
        value=value,
        recall=100 * (1 - miss[-1]),
        num_labels=10,
        num_images=20,
        fppi=np.array(fppi),
        miss=np.array(miss),
        scores=np.linspace(1, 0, len(fppi)),
        at_references=np.full(9, value),
    )


def empty_rate():
    nothing = np.empty(0)
    return MissRate(100.0, 0.0, 5, 20, nothing, nothing, nothing, np.full(9, 100.0))


def drawn(panel, floor=0.05):
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw_panel(axes, panel, floor)
    return axes


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_legend_goes_by_miss_rate_and_colours_by_method():
    axes = drawn(Panel("", {"worse": make_rate(40.0), "better": make_rate(7.58)}))
    assert legend_of(axes) == ["7.58%  better", "40.00%  worse"]
    colours = {line.get_label(): line.get_color() for line in axes.lines}
    assert colours["40.00%  worse"] == "C0"
    assert colours["7.58%  better"] == "C1"


def test_a_curve_starts_at_one_steps_down_and_is_dotted_past_its_end():
    axes = drawn(Panel("", {"a": make_rate(fppi=(0.02, 0.05, 0.4))}))
    curve, rest = axes.lines
    assert curve.get_drawstyle() == "steps-post"
    assert curve.get_ydata().tolist() == [1.0, 0.6, 0.3, 0.1]
    assert curve.get_xdata()[0] < axes.get_xlim()[0]
    assert list(rest.get_xdata()) == [0.4, 1.0]
    assert list(rest.get_ydata()) == [0.1, 0.1]
    assert len(drawn(Panel("", {"a": make_rate(fppi=(0.02, 0.05, 3.0))})).lines) == 1


def test_axes_are_logarithmic_with_the_ticks_of_papers():
    axes = drawn(Panel("Reasonable", {"a": make_rate()}))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylim() == (0.05, 1.0)
    axes.figure.canvas.draw()
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    assert ticks == [".05", ".1", ".2", ".3", ".4", ".5", ".64", ".8", "1"]


def test_a_miss_of_zero_and_a_subset_without_labels_can_be_drawn():
    zero = make_rate(0.0, miss=(0.6, 0.3, 0.0))
    none = make_rate(float("nan"), miss=(np.nan, np.nan, np.nan))
    axes = drawn(Panel("", {"none": none, "zero": zero}))
    assert legend_of(axes) == ["0.00%  zero", "no label to find  none"]
    assert (np.concatenate([line.get_ydata() for line in axes.lines]) > 0).all()


def test_no_detections_give_a_line_at_one():
    axes = drawn(Panel("", {"e": empty_rate()}))
    assert legend_of(axes) == ["100.00%  e"]
    assert axes.lines[0].get_ydata().tolist() == [1.0]
    assert list(axes.lines[1].get_ydata()) == [1.0, 1.0]


def test_the_legend_of_many_methods_hides_no_curve():
    axes = drawn(Panel("", {f"{n}": make_rate(10.0 + n) for n in range(12)}))
    axes.figure.canvas.draw()
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0
    styles = {
        (line.get_color(), line.get_linestyle()) for line in axes.lines if "%" in line.get_label()
    }
    assert len(styles) == 12


def test_a_dollar_sign_is_no_formula_and_a_long_name_keeps_its_end():
    axes = drawn(Panel("$x", {"a$b$": make_rate(1.0), "n" * 60 + "/end": make_rate(2.0)}))
    axes.figure.canvas.draw()
    assert legend_of(axes)[0] == r"1.00%  a\$b\$"
    assert legend_of(axes)[1].endswith("nnn/end")
    assert len(legend_of(axes)[1]) < 60


def test_the_file_has_a_panel_for_each_subset(tmp_path):
    panel = Panel("Reasonable, all", {"a": make_rate()})
    widths = []
    for panels, columns in (([panel], 1), ([panel] * 3, 3)):
        path = tmp_path / "new" / "plot.PNG"
        draw_miss_rates(panels, columns, "title", path)
        head = path.read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        widths.append(struct.unpack(">I", head[16:20])[0])
    assert widths[1] > 2 * widths[0]
    assert [file.name for file in path.parent.iterdir()] == ["plot.PNG"]
    draw_miss_rates([panel] * 4, 3, "title", tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()


@pytest.mark.parametrize("name", ["plot", "plot.bmpx", "plot.txt"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"cannot be drawn; end the name in .png, or one of"):
        check_plot_path(tmp_path / name)
    with pytest.raises(ConfigError):
        draw_miss_rates([Panel("", {})], 1, "", tmp_path / name)
    assert list(tmp_path.iterdir()) == []
