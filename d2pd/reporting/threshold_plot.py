"""Precision, recall and F1 over the score threshold, and precision over recall, as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from d2pd.evaluation.operating_points import OperatingCurve
from d2pd.reporting.sheet import shorten

LONGEST_NAME = 30
NOTHING = "no label to find, or nothing detected"
STYLES = {"precision": ":", "recall": "--", "f1": "-"}


def draw_thresholds(
    curves: Mapping[str, OperatingCurve], path: str | Path, score_threshold: float
) -> None:
    """Draw how a detector trades right boxes for false ones; a star is where F1 is best.

    Args:
        curves: By the names of the classes, each in one colour.
        path: PNG file to write; its folder is made.
        score_threshold: 0..1, marked by a line.
    """
    figure = Figure(figsize=(11, 4.4), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    over_score, over_recall = figure.subplots(1, 2)
    for number, (name, curve) in enumerate(curves.items()):
        _draw_class(over_score, over_recall, name, curve, f"C{number % 10}")
    over_score.axvline(score_threshold, color="grey", linewidth=1, zorder=0)
    over_score.set_title(
        "Over the score threshold: F1 solid, recall dashed, precision dotted", fontsize=9
    )
    over_score.set_xlabel(f"score threshold (line: {score_threshold:.3g})")
    over_recall.set_title("Precision over recall", fontsize=9)
    over_recall.set(xlabel="recall", ylabel="precision")
    for axes in (over_score, over_recall):
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="best")
        else:
            axes.text(0.5, 0.5, NOTHING, transform=axes.transAxes, ha="center", color="grey")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _draw_class(
    over_score: Axes, over_recall: Axes, name: str, curve: OperatingCurve, colour: str
) -> None:
    best = curve.best_f1()
    if best is None:
        return
    name = shorten(name, LONGEST_NAME).replace("$", r"\$")  # which would begin a formula
    for measure, style in STYLES.items():
        label = f"{name}: best F1 {best.f1:.3f} at {best.score:.3g}" if measure == "f1" else "_"
        over_score.plot(
            curve.scores, getattr(curve, measure), style, color=colour, linewidth=1.6, label=label
        )
    over_recall.plot(curve.recall, curve.precision, color=colour, linewidth=1.6, label=name)
    star: dict[str, Any] = {"marker": "*", "s": 150, "color": colour, "ec": "black", "zorder": 5}
    over_score.scatter([best.score], [best.f1], **star)
    over_recall.scatter([best.recall], [best.precision], **star)
