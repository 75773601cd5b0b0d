"""Curves of a training run: losses, metrics and learning rate over the iterations."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from d2pd.reporting.run_metrics import (
    VALIDATION,
    Series,
    add_latest,
    best_points,
    miss_rates,
    precision_metrics,
    read_metrics,
    read_stop,
    training_losses,
)

Best = Mapping[str, tuple[int, float]]

MANY_POINTS = 400
"""A longer training curve is drawn as medians, about half as many as this."""


def draw_curves(
    metrics_json: str | Path,
    path: str | Path,
    *,
    latest: Mapping[str, tuple[float, int]] | None = None,
    stopped: tuple[int, str] | None = None,
) -> None:
    """Draw training against validation loss, the metrics and the learning rate.

    The best iterations of the watched metrics are marked, and where and why the run stopped.

    Args:
        metrics_json: One JSON object a line, with ``iteration``, as the trainer writes it.
        path: PNG file to write; its folder is made.
        latest: For a run in progress, what it has not written yet: metric -> value and iteration.
            The file may then be absent or, after a resume, empty.
        stopped: Iteration and reason of a stop that the file does not hold yet.

    Raises:
        MissingFileError: If there is no such file.
        AnnotationError: If it holds no row with an iteration.
    """
    file = Path(metrics_json)
    is_there = latest is None or (file.is_file() and file.stat().st_size > 0)
    series = add_latest(read_metrics(metrics_json) if is_there else {}, latest or {})
    stopped = stopped or (read_stop(metrics_json) if is_there else None)
    best = best_points(series)
    panels = _panels(series)
    figure = Figure(
        figsize=(11, 0.7 + sum(height for _, height in panels)),
        dpi=110,
        layout="constrained",
        facecolor="white",
    )
    FigureCanvasAgg(figure)
    rows = figure.subplots(
        len(panels), 1, sharex=True, gridspec_kw={"height_ratios": [h for _, h in panels]}
    )
    for axes, (draw, _) in zip(rows, panels, strict=True):
        draw(axes, series, best)
        _mark_iterations(axes, best, stopped)
    for axes in rows[:-1]:
        if axes.get_legend_handles_labels()[0]:
            # Beside the curves: inside it would hide some of them.
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False)
    rows[-1].set_xlabel("iteration")
    rows[-1].xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    figure.suptitle(_title(Path(metrics_json).parent, stopped), fontsize=10)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _panels(series: Series) -> list[tuple[Callable[[Axes, Series, Best], None], float]]:
    """Return what to draw, from top to bottom, with its height in inches."""
    metrics = (
        [(_draw_precision, 3.2)] if precision_metrics(series) or not miss_rates(series) else []
    )
    if miss_rates(series):
        metrics.append((_draw_miss_rates, 3.2))
    return [(_draw_losses, 4.2), *metrics, (_draw_rate, 1.6)]


def _title(folder: Path, stopped: tuple[int, str] | None) -> str:
    if stopped is None:
        return str(folder)
    reason = textwrap.fill(f"stopped after iteration {stopped[0]}: {stopped[1]}", 110)
    return f"{folder}\n{reason}"


def _mark_iterations(axes: Axes, best: Best, stopped: tuple[int, str] | None) -> None:
    for number, iteration in enumerate(sorted({iteration for iteration, _ in best.values()})):
        line = axes.axvline(iteration, color="tab:green", alpha=0.5, linewidth=1.2, zorder=0)
        line.set_label("_" if number else "best so far")
    if stopped is not None:
        line = axes.axvline(stopped[0], color="tab:red", linestyle=":", linewidth=1.2, zorder=0)
        line.set_label("stopped")


def _draw_losses(axes: Axes, series: Series, best: Best) -> None:
    parts = training_losses(series)
    colors = {"total_loss": "black", **{name: f"C{n}" for n, name in enumerate(parts)}}
    for name, color in colors.items():
        width = 2.2 if name == "total_loss" else 1.0
        if name in series:
            _plot(axes, smooth(series[name]), name, color=color, linewidth=width)
        checked = VALIDATION + name
        if checked in series:
            style: dict[str, Any] = {"color": color, "linewidth": width, "linestyle": "--"}
            is_told = name == "total_loss" or checked in best
            _plot_evaluations(axes, series, checked, best, is_in_legend=is_told, **style)
    if any(value > 0 for name in colors for _, value in series.get(name, [])):
        _log_scale(axes)
    is_checked = any(VALIDATION + name in series for name in colors)
    label = "loss (log scale; dashed: validation)" if is_checked else "loss (log scale)"
    _finish(axes, label, "no losses in this file")


def _draw_precision(axes: Axes, series: Series, best: Best) -> None:
    names = precision_metrics(series)
    for name in names:
        _plot_evaluations(axes, series, name, best, choose=max)
    highest = max((value for name in names for _, value in series[name]), default=100.0)
    axes.set_ylim(0, next(top for top in (10, 25, 50, 100) if highest <= 0.95 * top or top == 100))
    _finish(axes, "average precision (of 100)", "no evaluation yet")


def _draw_miss_rates(axes: Axes, series: Series, best: Best) -> None:
    for name in miss_rates(series):
        _plot_evaluations(axes, series, name, best)
    axes.set_ylim(bottom=0)
    _finish(axes, "miss rate (lower is better)", "no evaluation yet")


def _draw_rate(axes: Axes, series: Series, _best: Best) -> None:
    if "lr" in series:
        _plot(axes, series["lr"], "lr", color="black", linewidth=1.2)
    axes.set_ylim(bottom=0)
    _finish(axes, "learning rate", "no learning rate in this file")


def _plot_evaluations(
    axes: Axes,
    series: Series,
    name: str,
    best: Best,
    *,
    choose: Callable[..., tuple[int, float]] = min,
    is_in_legend: bool = True,
    **style: Any,
) -> None:
    """Draw a metric of evaluations; a star where it was best, if the run watched it."""
    points = series[name]
    iteration, value = best.get(name) or choose(points, key=lambda point: point[1])
    label = f"{name}: {points[-1][1]:.4g}\nbest {value:.4g} at {iteration}"
    _plot(
        axes,
        points,
        label if is_in_legend else "_",
        marker="o",
        markersize=4,
        **{"linewidth": 1.5, **style},
    )
    if name in best:
        color = axes.lines[-1].get_color()
        axes.scatter([iteration], [value], marker="*", s=190, color=color, ec="black", zorder=5)


def _plot(axes: Axes, points: list[tuple[int, float]], label: str, **style: Any) -> None:
    iterations, values = zip(*points, strict=True)
    if len(points) == 1:  # a line of one point is not seen
        style.setdefault("marker", "o")
    axes.plot(iterations, values, label=label, **style)


def smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return a long series as the medians of equal runs of its points; a short one as it is."""
    if len(points) <= MANY_POINTS:
        return points
    size = len(points) // (MANY_POINTS // 2)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[len(part) // 2][0], sorted(v for _, v in part)[len(part) // 2]) for part in parts]


def _log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _finish(axes: Axes, label: str, absent: str) -> None:
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if not axes.lines:
        axes.text(0.5, 0.5, absent, transform=axes.transAxes, ha="center", color="grey")
