"""The table that runs are compared by: a row for each, or the mean of its seeds."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = ("MR all", "MR day", "MR night", "AP", "AP50")
SETTING = "reasonable"
METRICS: dict[str, tuple[str, str]] = {
    **{f"MR {split}": ("MR", f"{SETTING}/{split}") for split in ("all", "day", "night")},
    **{name: ("bbox", name) for name in ("AP", "AP50")},
}
"""Column -> task and metric of a run's results."""

_ABSENT = "-"


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        name: Of its configuration.
        seed: Its seed.
        values: Column -> 0..100, those that were measured.
        missing: Column -> why it was not.
        seconds: That it took.
        why: What is amiss with the run; empty where nothing is.
    """

    name: str
    seed: int
    values: Mapping[str, float]
    missing: Mapping[str, str]
    seconds: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Mean:
    """A column over the seeds of a configuration.

    Attributes:
        mean: NaN of none.
        deviation: Of a sample (n - 1); NaN of fewer than two.
        number: Of the seeds that have a value.
    """

    mean: float
    deviation: float
    number: int


def make_row(
    name: str, seed: int, results: Mapping[str, Any] | None, seconds: float, why: str
) -> Row:
    """Take the columns out of the results of a run.

    Args:
        name: Of its configuration.
        seed: Its seed.
        results: task -> metric -> 0..100, of one dataset; None where there are none.
        seconds: That it took.
        why: What is amiss.
    """
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for column, (task, metric) in METRICS.items():
        found = results.get(task, {}) if results is not None else {}
        value = found.get(metric)
        if isinstance(value, int | float) and math.isfinite(value):
            values[column] = float(value)
        elif results is None:
            missing[column] = why
        elif value is not None:
            missing[column] = "there is no label to find"
        else:
            missing[column] = f"the results hold no {task}/{metric}{_instead(found)}"
    return Row(name, seed, values, missing, seconds, why)


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Mean]]:
    """Return name -> column -> mean over the seeds; ``time``, in seconds, is of finished runs."""
    summary: dict[str, dict[str, Mean]] = {}
    for name in dict.fromkeys(row.name for row in rows):
        seeds = [row for row in rows if row.name == name]
        columns = {
            column: _mean([row.values[column] for row in seeds if column in row.values])
            for column in COLUMNS
        }
        columns["time"] = _mean([row.seconds for row in seeds if row.values])
        summary[name] = columns
    return summary


def format_table(rows: Sequence[Row]) -> str:
    """Return Markdown: a line for each configuration, then one for each run, then what is amiss."""
    return "\n".join(_lines(rows))


def format_duration(seconds: float) -> str:
    """Return such as ``1 h 02 min``, ``3 min 05 s`` or ``12 s``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _instead(found: Any) -> str:
    names = list(found)[:3] if isinstance(found, Mapping) else []
    return f" (but {', '.join(names)})" if names else ""


def _mean(values: Sequence[float]) -> Mean:
    return Mean(
        statistics.fmean(values) if values else math.nan,
        statistics.stdev(values) if len(values) > 1 else math.nan,
        len(values),
    )


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    summary = summarise(rows)
    seeds = {name: [row.seed for row in rows if row.name == name] for name in summary}
    has_several = any(len(of_run) > 1 for of_run in seeds.values())
    title = "seeds" if has_several else "seed"
    yield from _grid(
        [["run", title, *COLUMNS, "time"]]
        + [
            [name, ", ".join(map(str, seeds[name])), *_cells(columns, len(seeds[name]))]
            for name, columns in summary.items()
        ]
    )
    if has_several:
        yield from ("", "Each seed:", "")
        yield from _grid(
            [["run", "seed", *COLUMNS, "time"]]
            + [[row.name, str(row.seed), *_cells(summarise([row])[row.name], 1)] for row in rows]
        )
    amiss = list(_amiss(rows))
    if amiss:
        yield from ("", "What is missing or amiss:", "", *amiss)


def _cells(columns: Mapping[str, Mean], number: int) -> list[str]:
    time = columns["time"]
    shown = format_duration(time.mean) if time.number else _ABSENT
    return [*(_cell(columns[column], number) for column in COLUMNS), shown]


def _cell(value: Mean, number: int) -> str:
    if not value.number:
        return _ABSENT
    deviation = f" ± {value.deviation:.2f}" if value.number > 1 else ""
    share = f" ({value.number} of {number})" if value.number < number else ""
    return f"{value.mean:.2f}{deviation}{share}"


def _grid(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a Markdown table whose columns stand below each other in a terminal too."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"


def _amiss(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each thing that is amiss or missing, with the runs that it is true of."""
    of_reason: dict[str, list[str]] = {}
    for row in rows:
        reasons: dict[str, list[str]] = {row.why: []} if row.why else {}
        for column, reason in row.missing.items():
            reasons.setdefault(reason, []).append(column)
        for reason, columns in reasons.items():
            which = f" ({', '.join(columns)})" if 0 < len(columns) < len(COLUMNS) else ""
            of_reason.setdefault(reason, []).append(f"{row.name} seed {row.seed}{which}")
    for reason, where in of_reason.items():
        yield f"- {', '.join(where)}: {reason}"
