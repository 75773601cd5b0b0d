"""Curves of a training run, from its ``metrics.json``."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from d2pd.errors import AnnotationError, MissingFileError

logger = logging.getLogger(__name__)

Series = dict[str, list[tuple[int, float]]]
SIZE_RANGES = ("APs", "APm", "APl")


def draw_curves(metrics_json: str | Path, path: str | Path) -> None:
    """Draw losses, AP and learning rate over the iterations.

    Args:
        metrics_json: One JSON object a line, with ``iteration``, as the trainer writes it.
        path: PNG file to write; its folder is made.

    Raises:
        MissingFileError: If there is no such file.
        AnnotationError: If it holds no row with an iteration.
    """
    series = read_metrics(metrics_json)
    figure = Figure(figsize=(9, 10), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    losses, precision, rate = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 1.4]}
    )
    figure.suptitle(str(Path(metrics_json).parent), fontsize=10)
    _draw_losses(losses, series)
    _draw_precision(precision, series)
    _draw_rate(rate, series)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def read_metrics(metrics_json: str | Path) -> Series:
    """Read the numbers of a ``metrics.json``.

    A line that is not whole (the run was killed while writing) is left out, with a warning. Where
    a resume wrote an iteration again, the later row counts.

    Returns:
        metric -> (iteration, value) in order of the iteration; NaN is left out.

    Raises:
        MissingFileError: If there is no such file.
        AnnotationError: If it holds no row with an iteration.
    """
    path = Path(metrics_json)
    if not path.is_file():
        raise MissingFileError(f"no {path}; a training run writes it, give its OUTPUT_DIR")
    values: dict[str, dict[int, float]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = _parse(line)
        if row is None:
            logger.warning("%s:%d: not a whole row, left out", path, number)
            continue
        for name, value in row.items():
            if name != "iteration" and isinstance(value, int | float) and value == value:
                values.setdefault(name, {})[int(row["iteration"])] = float(value)
    if not values:
        raise AnnotationError(f"{path}: no row with an iteration and a number; nothing to draw")
    return {name: sorted(points.items()) for name, points in values.items()}


def _parse(line: str) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "iteration" in row else None


def _draw_losses(axes: Axes, series: Series) -> None:
    names = sorted(name for name in series if _last(name).startswith("loss_"))
    for name in names:
        _plot(axes, series[name], name, linewidth=1.0)
    if "total_loss" in series:
        _plot(axes, series["total_loss"], "total_loss", linewidth=2.0, color="black")
    if any(value > 0 for name in (*names, "total_loss") for _, value in series.get(name, [])):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
    _finish(axes, "loss (log scale)", "no losses in this file")


def _draw_precision(axes: Axes, series: Series) -> None:
    for name in precision_metrics(series):
        best_iteration, best = max(series[name], key=lambda point: point[1])
        last = series[name][-1][1]
        label = f"{name}: {last:.1f}, best {best:.1f} at {best_iteration}"
        _plot(axes, series[name], label, marker="o", markersize=4, linewidth=1.5)
    axes.set_ylim(0, 100)
    _finish(axes, "average precision", "no evaluation yet")


def _draw_rate(axes: Axes, series: Series) -> None:
    if "lr" in series:
        _plot(axes, series["lr"], "lr", color="black", linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("iteration")
    _finish(axes, "learning rate", "no learning rate in this file", legend=False)


def _plot(axes: Axes, points: list[tuple[int, float]], label: str, **style: Any) -> None:
    iterations, values = zip(*points, strict=True)
    if len(points) == 1:  # a line of one point is not seen
        style.setdefault("marker", "o")
    axes.plot(iterations, values, label=label, **style)


def _finish(axes: Axes, label: str, absent: str, *, legend: bool = True) -> None:
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if not axes.lines:
        axes.text(0.5, 0.5, absent, transform=axes.transAxes, ha="center", color="grey")
    elif legend:
        axes.legend(fontsize=8, loc="best")


def precision_metrics(names: Iterable[str]) -> list[str]:
    """Return the metrics to draw, by task: AP, AP50, AP75, then those of the classes.

    Left out are the size ranges, and the class where there is only one: its AP is the AP.
    """
    wanted = [n for n in names if _last(n).startswith("AP") and _last(n) not in SIZE_RANGES]
    classes = Counter(_task(name) for name in wanted if "-" in _last(name))
    drawn = [name for name in wanted if "-" not in _last(name) or classes[_task(name)] > 1]
    return sorted(drawn, key=lambda name: (_task(name), "-" in _last(name), _last(name)))


def _task(name: str) -> str:
    return name.rpartition("/")[0]


def _last(name: str) -> str:
    return name.rpartition("/")[2]
