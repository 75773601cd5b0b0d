"""Anchor fit as a picture: the best IoU of each label over its height."""

import math
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from d2pd.atomic_file import atomic_file
from d2pd.errors import UserError
from d2pd.modeling.anchor_fit import BAND_EDGES, AnchorFit, Band

HEIGHT_TICKS = (5, 10, 20, 30, 45, 55, 80, 115, 200, 300, 500, 1000, 2000)

MANY = 2000
"""A cloud of more labels is drawn fainter, so that its denser parts can be told."""


def draw_anchor_fit(fit: AnchorFit, title: str, path: Path) -> None:
    """Draw a point for each label, the threshold, and the median of each band of heights.

    Args:
        fit: Of at least one label, or of none: the axes are then empty.
        title: Above the axes.
        path: PNG file to write; its folder is made.

    Raises:
        UserError: If the file cannot be written.
    """
    figure = Figure(figsize=(11, 5.8), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    draw_cloud(figure.subplots(), fit)
    figure.suptitle(title.replace("$", r"\$"), fontsize=10)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            figure.savefig(file, format="png")
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): make room there, or choose another "
            "OUTPUT_DIR"
        ) from error


def draw_cloud(axes: Axes, fit: AnchorFit) -> None:
    """Draw the labels, the bands and the threshold into axes."""
    heights = fit.heights.numpy()
    low, high = (heights.min(), heights.max()) if len(heights) else (10.0, 500.0)
    axes.scatter(
        heights,
        fit.best_iou.numpy(),
        s=5,
        linewidths=0,
        alpha=min(0.5, max(0.08, 0.5 * MANY / max(1, len(heights)))),
        color="C0",
    )
    axes.axhline(fit.iou_threshold, color="C3", linewidth=1.4, label=_threshold_label(fit))
    limits = (low / 1.15, high * 1.15)
    for band, (start, end) in zip(fit.bands(), pairwise(BAND_EDGES), strict=False):
        _draw_band(axes, band, max(start, limits[0]), min(end, limits[1]))
    axes.plot([], [], color="black", linewidth=1.6, label="median of the labels of these heights")
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_ylim(0, 1.17)
    axes.xaxis.set_major_locator(FixedLocator(HEIGHT_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_yticks([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlabel("height of the label in the picture, px")
    axes.set_ylabel("best IoU with an anchor")
    axes.legend(fontsize=8, loc="lower right", framealpha=0.9)


def _threshold_label(fit: AnchorFit) -> str:
    missed = fit.bands()[-1].missed
    share = "" if math.isnan(missed) else f"; {100 * missed:.1f} % of all are below"
    return f"IoU {fit.iou_threshold:g}, from which an anchor learns a label{share}"


def _draw_band(axes: Axes, band: Band, start: float, end: float) -> None:
    """Draw the border and the median of a band, and write above it how many labels are missed."""
    if start >= end or not band.num_labels:
        return
    axes.axvline(end, color="black", alpha=0.35, linewidth=0.8, linestyle="--")
    axes.plot([start, end], [band.median_iou] * 2, color="black", linewidth=1.6)
    axes.text(
        math.sqrt(start * end),
        1.155,
        f"{band.name}\n{band.num_labels:,} labels\n{100 * band.missed:.1f} % below",
        ha="center",
        va="top",
        fontsize=7,
    )
