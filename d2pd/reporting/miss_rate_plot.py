"""Miss rate over false positives per image, as papers draw it: both axes logarithmic."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from d2pd.atomic_file import atomic_file
from d2pd.errors import ConfigError, UserError
from d2pd.evaluation.miss_rate import MissRate

FPPI_LIMITS = (1e-3, 1e1)
MEASURED = (1e-2, 1e0)
"""Between these the log-average miss rate is taken."""

MISS_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.64, 0.8, 1.0)
HIGHEST_FLOOR = 0.05

MOST_PIXELS = 60_000
"""Of a side: more cannot be drawn."""

FEW = 6
"""Methods whose legend finds room inside the axes."""

LONGEST_NAME = 40

NEEDS_LATEX = {"pgf"}

STYLES = ("-", "--", "-.", (0, (1, 1)))
"""So that more methods than there are colours can be told apart."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: Above it.
        rates: Method -> its miss rate and curve.
    """

    title: str
    rates: Mapping[str, MissRate]


def check_plot_path(path: Path) -> None:
    """See that a picture can be written in the format that the name ends in.

    Raises:
        ConfigError: If matplotlib does not know the format.
    """
    known = sorted(set(FigureCanvasAgg(Figure()).get_supported_filetypes()) - NEEDS_LATEX)
    if path.suffix.lower().removeprefix(".") not in known:
        raise ConfigError(
            f"{path}: a picture of the format {path.suffix or '(none)'} cannot be drawn; end the "
            f"name in .png, or one of {', '.join(known)}"
        )


def draw_miss_rates(panels: Sequence[Panel], columns: int, title: str, path: Path) -> None:
    """Draw the curves of several methods, a panel for each subset.

    A curve is a step. It ends where a method has no more detections, and goes on dotted as far as
    the miss rate is measured. A method has one colour in all panels.

    Args:
        panels: From left to right and top to bottom.
        columns: Panels of a row.
        title: Above all.
        path: File to write, in the format of its suffix; its folder is made.

    Raises:
        ConfigError: If matplotlib does not know the format.
        UserError: If the file cannot be written.
    """
    check_plot_path(path)
    num_rows = math.ceil(len(panels) / columns)
    most = max(len(panel.rates) for panel in panels)
    legend = 0.19 * most if most > FEW else 0.0
    size = (1.2 + 4.6 * columns, 0.8 + (4.4 + legend) * num_rows)
    figure = Figure(
        figsize=size,
        dpi=min(110, MOST_PIXELS / max(size)),
        layout="constrained",
        facecolor="white",
    )
    FigureCanvasAgg(figure)
    places = figure.subplots(num_rows, columns, squeeze=False).ravel()
    floor = _floor([rate for panel in panels for rate in panel.rates.values()])
    for panel, axes in zip(panels, places, strict=False):
        _draw_panel(axes, panel, floor)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            figure.savefig(file, format=path.suffix.lower().removeprefix("."))
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): make room there, or choose another "
            "folder"
        ) from error


def _draw_panel(axes: Axes, panel: Panel, floor: float) -> None:
    axes.axvspan(*MEASURED, color="black", alpha=0.05, linewidth=0, zorder=0)
    order = sorted(panel.rates, key=lambda name: _sort_key(panel.rates[name].value))
    numbers = {name: number for number, name in enumerate(panel.rates)}
    for name in order:
        number = numbers[name]
        style = STYLES[number // 10 % len(STYLES)]
        _draw_curve(axes, panel.rates[name], name, f"C{number % 10}", style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*FPPI_LIMITS)
    axes.set_ylim(floor, 1.0)
    ticks = [tick for tick in MISS_TICKS if tick >= floor]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".lstrip("0")))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, zorder=0)
    axes.set_xlabel("false positives per image")
    axes.set_ylabel("miss rate")
    axes.set_title(panel.title.replace("$", r"\$"), fontsize=10)
    if len(panel.rates) <= FEW:
        axes.legend(fontsize=8, loc="lower left", framealpha=0.9)
    else:  # inside it would hide the curves
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)


def _draw_curve(
    axes: Axes, rate: MissRate, name: str, color: str, style: str | tuple[int, tuple[int, int]]
) -> None:
    if math.isnan(rate.value):
        axes.plot([], [], color=color, label=f"no label to find  {_shown(name)}")
        return
    fppi = np.concatenate([[FPPI_LIMITS[0] / 10], np.maximum(rate.fppi, FPPI_LIMITS[0] / 10)])
    # A miss of 0 has no place on a logarithmic axis: far below its lower end.
    miss = np.maximum(np.concatenate([[1.0], rate.miss]), 1e-6)
    axes.plot(
        fppi,
        miss,
        drawstyle="steps-post",
        color=color,
        linestyle=style,
        linewidth=1.8,
        label=f"{rate.value:.2f}%  {_shown(name)}",
    )
    if fppi[-1] < MEASURED[1]:
        axes.plot(
            [fppi[-1], MEASURED[1]], [miss[-1]] * 2, color=color, linestyle=":", linewidth=1.2
        )


def _shown(name: str) -> str:
    # A dollar sign would begin a formula. The end of a long name tells files apart.
    short = name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"
    return short.replace("$", r"\$")


def _sort_key(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _floor(rates: Sequence[MissRate]) -> float:
    """Give the tick below the lowest miss that any curve reaches within the limits."""
    lowest = min(
        (
            float(miss)
            for rate in rates
            for miss in rate.miss[(rate.fppi <= FPPI_LIMITS[1]) & (rate.miss > 0)]
        ),
        default=HIGHEST_FLOOR,
    )
    below = [tick for tick in MISS_TICKS if tick <= min(lowest, HIGHEST_FLOOR)]
    return below[-1] if below else MISS_TICKS[0]
