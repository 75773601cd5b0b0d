"""What happened over the iterations of a run, from its ``metrics.json``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from d2pd.errors import UserError
from d2pd.reporting.curves import smooth
from d2pd.reporting.report.chart import Chart, Line, Point
from d2pd.reporting.run_metrics import (
    VALIDATION,
    Series,
    best_points,
    miss_rates,
    precision_metrics,
    read_metrics,
    read_stop,
    training_losses,
)

Best = Mapping[str, tuple[int, float]]

NO_METRICS = "This folder has no metrics.json: train_net.py writes it while it trains."
NO_EVALUATION = "No evaluation in metrics.json: TEST.EVAL_PERIOD says how often there is one."
TOP_OF_AXIS = (5.0, 10.0, 25.0, 50.0, 100.0)


@dataclass(frozen=True)
class History:
    """The numbers of a run.

    Attributes:
        series: See ``run_metrics.read_metrics``; empty where there are none.
        best: Watched metric -> iteration and value.
        stop: Iteration and reason of an early stop.
        trouble: Why there are no numbers; empty where there are some.
    """

    series: Series
    best: Best
    stop: tuple[int, str] | None
    trouble: str = ""

    def last_iteration(self) -> int | None:
        """Return the last iteration of which anything is known, counted from 0."""
        return max((points[-1][0] for points in self.series.values()), default=None)


def read_history(output_dir: Path) -> History:
    """Read the numbers of a run, or why there are none."""
    path = output_dir / "metrics.json"
    if not path.is_file():
        return History({}, {}, None, NO_METRICS)
    try:
        series = read_metrics(path)
    except (UserError, OSError, UnicodeDecodeError) as error:
        return History({}, {}, None, f"metrics.json cannot be used: {error}")
    return History(series, best_points(series), read_stop(path))


def training_charts(history: History) -> list[Chart]:
    """Make the charts over the iterations: losses, AP, miss rates, learning rate.

    A chart without a line says why it has none; that of miss rates is left out then. Without any
    numbers there are no charts.
    """
    if not history.series:
        return []
    series, marks = history.series, _marks(history)
    ends = (0.0, float(max(history.last_iteration() or 0, 1)))
    charts = [_losses(history, marks)]
    precision = precision_metrics(series)
    highest = max((value for name in precision for _, value in series[name]), default=100.0)
    top = next(top for top in TOP_OF_AXIS if highest <= 0.96 * top or top == 100.0)
    charts.append(
        Chart(
            "Average precision (of 100; higher is better)",
            "iteration",
            _evaluations(history, precision, max),
            absent=NO_EVALUATION,
            y_range=(0.0, top),
            marks=marks,
        )
    )
    rates = miss_rates(series)
    if rates:
        values = [value for name in rates for _, value in series[name]]
        charts.append(
            Chart(
                "Log-average miss rate (%; lower is better)",
                "iteration",
                _evaluations(history, rates, min),
                y_range=(0.0, max(1.0, 1.05 * max(values))),
                marks=marks,
            )
        )
    rate = series.get("lr", [])
    charts.append(
        Chart(
            "Learning rate",
            "iteration",
            [Line("lr", rate)] if rate else [],
            absent="No learning rate in metrics.json.",
            y_range=(0.0, 1.05 * max((value for _, value in rate), default=1.0)),
        )
    )
    return [replace(chart, x_range=ends) for chart in charts]


def _losses(history: History, marks: Sequence[tuple[float, str]]) -> Chart:
    lines = []
    for style, name in enumerate(["total_loss", *training_losses(history.series)]):
        points = history.series.get(name, [])
        if points:
            lines.append(
                Line(name, smooth(points), style, "solid", note=f"last {points[-1][1]:.4g}")
            )
        checked = VALIDATION + name
        if checked in history.series:
            lines.append(_evaluation(history, checked, min, style, "dashed"))
    is_checked = any(name.startswith(VALIDATION) for name in history.series)
    return Chart(
        "Loss (log scale; dashed: validation)" if is_checked else "Loss (log scale)",
        "iteration",
        lines,
        absent="No losses in metrics.json.",
        is_y_log=True,
        marks=marks,
    )


def _evaluations(
    history: History, names: Sequence[str], choose: Callable[..., Point]
) -> list[Line]:
    return [_evaluation(history, name, choose, style) for style, name in enumerate(names)]


def _evaluation(
    history: History, name: str, choose: Callable[..., Point], style: int, dash: str = ""
) -> Line:
    """Draw a metric of evaluations, with its best value; a star where the run watched it."""
    points = history.series[name]
    best = history.best.get(name) or choose(points, key=lambda point: point[1])
    note = f"last {points[-1][1]:.4g}, best {best[1]:.4g} at {best[0]}"
    star = best if name in history.best else None
    return Line(name, points, style, dash, has_markers=True, note=note, star=star)


def _marks(history: History) -> list[tuple[float, str]]:
    marks = [
        (float(iteration), "best") for iteration in sorted({at for at, _ in history.best.values()})
    ]
    if history.stop is not None:
        marks.append((float(history.stop[0]), "stopped"))
    return marks
