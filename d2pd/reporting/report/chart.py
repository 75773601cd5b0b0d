"""Line charts as numbers of a drawing: the page's template makes SVG of them.

The drawing has no colours of its own: lines are numbered, and the style sheet gives each number a
colour and a dash pattern for light and for dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.ticker import LogLocator, MaxNLocator

WIDTH, HEIGHT = 460, 294
LEFT, RIGHT, TOP, BOTTOM = 62, 446, 14, 248
NEAR = 0.8  # px: points that are nearer to the last one drawn are left out
LEAST = 1e-300  # smaller numbers have no logarithm to rely on
MOST = 1e300  # larger ones overflow in the sums that place ticks
STYLES = 10
"""Number of line styles in the style sheet; more lines begin again."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: In the legend.
        points: (x, y), x ascending; those that are not finite, beyond all bounds, or not positive
            on a log axis, are left out.
        style: 0..STYLES - 1: colour and dashes.
        dash: ``solid`` or ``dashed`` whatever its style; empty for the pattern of its style.
        has_markers: Draws each point; for few points.
        is_stepped: A value holds until the next point.
        note: Beside the name, such as its best value.
        star: A point to mark.
    """

    name: str
    points: Sequence[Point]
    style: int = 0
    dash: str = ""
    has_markers: bool = False
    is_stepped: bool = False
    note: str = ""
    star: Point | None = None


@dataclass(frozen=True)
class Chart:
    """Some curves over one x axis.

    Attributes:
        title: What is to be seen, with the unit of y.
        x_label: With its unit.
        lines: May be empty; then ``absent`` is shown instead.
        absent: Why there is no line, and how to get one.
        is_x_log: The x axis is logarithmic.
        is_y_log: The y axis is logarithmic.
        x_range: Ends of the x axis; None for those of the data.
        y_range: Ends of the y axis; None for those of the data.
        marks: Vertical lines: x and the words at it.
        note: A sentence below the chart.
    """

    title: str
    x_label: str
    lines: Sequence[Line]
    absent: str = ""
    is_x_log: bool = False
    is_y_log: bool = False
    x_range: Point | None = None
    y_range: Point | None = None
    marks: Sequence[tuple[float, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """From values to pixels: ``low`` is drawn at ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value, clamped to the axis."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return pixel and words of about five round values."""
        if self.is_log:
            values: Any = LogLocator(subs=self._subs()).tick_values(self.low, self.high)
        else:
            values = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        slack = 1e-9 * abs(self.high - self.low)
        inside = [v for v in values if self.low - slack <= v <= self.high + slack]
        return [(self.place(float(value)), short_number(float(value))) for value in inside]

    def _subs(self) -> tuple[float, ...]:
        decades = math.log10(self.high / self.low)
        if decades < 1.2:
            return (1.0, 2.0, 3.0, 5.0, 7.0)
        return (1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)


@dataclass
class Drawn:
    """A chart to be written as SVG, and the numbers that a pointer over it shows."""

    chart: Chart
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    paths: list[tuple[Line, str, list[Point], Point | None]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)


def place_chart(chart: Chart) -> Drawn | None:
    """Compute where everything of a chart lies.

    Returns:
        The drawing; ``values`` holds, for each line, its name and [pixel x, pixel y, x, y] of each
        point. None where no line has a point.
    """
    drawable = {id(line): _drawable(line, chart) for line in chart.lines}
    points = [point for found in drawable.values() for point in found]
    if not points:
        return None
    x_axis = _axis([x for x, _ in points], chart.x_range, chart.is_x_log, (LEFT, RIGHT))
    y_axis = _axis([y for _, y in points], chart.y_range, chart.is_y_log, (BOTTOM, TOP))
    drawn = Drawn(chart, x_axis.ticks(), y_axis.ticks())
    drawn.marks = [(x_axis.place(x), text) for x, text in chart.marks]
    for line in chart.lines:
        if not drawable[id(line)]:
            continue
        places = [(x_axis.place(x), y_axis.place(y), x, y) for x, y in drawable[id(line)]]
        places = _thinned(places)
        star = line.star and (x_axis.place(line.star[0]), y_axis.place(line.star[1]))
        dots = [(x, y) for x, y, _, _ in places] if line.has_markers or len(places) == 1 else []
        drawn.paths.append((line, _path(places, line.is_stepped), dots, star))
        numbers = [[x, y, _digits(vx), _digits(vy)] for x, y, vx, vy in places]
        drawn.values.append({"name": line.name, "points": numbers})
    return drawn


def short_number(value: float) -> str:
    """Write a number with up to four digits that tell something."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2g}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _drawable(line: Line, chart: Chart) -> list[Point]:
    return [
        (float(x), float(y))
        for x, y in line.points
        if abs(x) < MOST
        and abs(y) < MOST
        and (x > LEAST or not chart.is_x_log)
        and (y > LEAST or not chart.is_y_log)
    ]


def _axis(
    values: Sequence[float], ends: Point | None, is_log: bool, places: tuple[float, float]
) -> Axis:
    low, high = sorted(ends or (min(values), max(values)))
    if is_log and ends is None:
        low, high = low / 1.1, high * 1.1
    if high - low <= 1e-9 * abs(high):  # a single value lies in the middle
        space = max(abs(high) / 2, 0.5)
        low, high = (low / 2, high * 2) if is_log else (low - space, high + space)
    return Axis(low, high, *places, is_log)


def _thinned(
    places: Sequence[tuple[float, float, float, float]],
) -> list[tuple[float, float, float, float]]:
    """Leave out what would fall on the pixel of the point before; the last one stays."""
    kept = list(places[:1])
    for place in places[1:]:
        if abs(place[0] - kept[-1][0]) >= NEAR or abs(place[1] - kept[-1][1]) >= NEAR:
            kept.append(place)
    if len(kept) > 1 and kept[-1] is not places[-1]:
        kept[-1] = places[-1]
    return kept


def _path(places: Sequence[tuple[float, float, float, float]], is_stepped: bool) -> str:
    words = [f"M{places[0][0]:g} {places[0][1]:g}"]
    for x, y, _, _ in places[1:]:
        words.append(f"H{x:g}V{y:g}" if is_stepped else f"L{x:g} {y:g}")
    return "".join(words)


def _digits(value: float) -> float:
    return float(f"{value:.5g}")
