"""The table that runs are compared by: a row for each, or the mean of its folds or seeds."""

import math
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2pd.markdown_table import markdown_table

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
        missing: Column -> why it was not. Columns in neither are of a task that the data has not:
            a miss rate, where it is not KAIST's.
        seconds: That it took.
        why: What is amiss with the run; empty where nothing is.
        fold: That was held out; None where the runs are not over folds.
    """

    name: str
    seed: int
    values: Mapping[str, float]
    missing: Mapping[str, str]
    seconds: float = 0.0
    why: str = ""
    fold: int | None = None

    @property
    def sample(self) -> int:
        """What a deviation is over: folds where there are any, else seeds."""
        return self.seed if self.fold is None else self.fold

    def __str__(self) -> str:
        fold = "" if self.fold is None else f" fold {self.fold}"
        return f"{self.name}{fold} seed {self.seed}"


@dataclass(frozen=True)
class Mean:
    """A column over the folds of a configuration, or over its seeds.

    Attributes:
        mean: NaN of none.
        deviation: Of a sample (n - 1); NaN of fewer than two.
        number: Of the folds, or seeds, that have a value.
    """

    mean: float
    deviation: float
    number: int


def make_row(
    name: str,
    seed: int,
    results: Mapping[str, Any] | None,
    seconds: float,
    why: str,
    fold: int | None = None,
) -> Row:
    """Take the columns out of the results of a run.

    Args:
        name: Of its configuration.
        seed: Its seed.
        results: task -> metric -> 0..100, of one dataset; None where there are none.
        seconds: That it took.
        why: What is amiss.
        fold: See ``Row``.
    """
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    has_other_task = results is not None and bool(results.get("bbox"))
    for column, (task, metric) in METRICS.items():
        if has_other_task and task not in (results or {}):
            continue
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
    return Row(name, seed, values, missing, seconds, why, fold)


def shown_columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns that any measured run has, or could have; all before the first."""
    measured = [row for row in rows if row.values] or rows
    return tuple(
        column
        for column in COLUMNS
        if any(column in row.values or column in row.missing for row in measured)
    )


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Mean]]:
    """Return name -> column -> mean; ``time``, in seconds, is of finished runs.

    Over folds, where the rows have any: a fold's value is the mean of its seeds, which are no
    samples of their own. Else over seeds.
    """
    summary: dict[str, dict[str, Mean]] = {}
    for name in dict.fromkeys(row.name for row in rows):
        runs = [row for row in rows if row.name == name]
        columns = {column: _mean(_samples(runs, column)) for column in COLUMNS}
        columns["time"] = _mean([row.seconds for row in runs if row.values])
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


def _samples(runs: Sequence[Row], column: str) -> list[float]:
    """Return a value for each fold, or seed, that has any."""
    of_sample: dict[int, list[float]] = {}
    for row in runs:
        if column in row.values:
            of_sample.setdefault(row.sample, []).append(row.values[column])
    return [statistics.fmean(values) for values in of_sample.values()]


def _mean(values: Sequence[float]) -> Mean:
    return Mean(
        statistics.fmean(values) if values else math.nan,
        statistics.stdev(values) if len(values) > 1 else math.nan,
        len(values),
    )


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    of_name = {name: [row for row in rows if row.name == name] for name in summarise(rows)}
    has_several = any(len(runs) > 1 for runs in of_name.values())
    columns = shown_columns(rows)
    yield from _grid(of_name.items(), columns, "s" if has_several else "")
    if has_several:
        has_folds = any(row.fold is not None for row in rows)
        yield from ("", "Each run:" if has_folds else "Each seed:", "")
        yield from _grid([(row.name, [row]) for row in rows], columns, "")
    amiss = list(_amiss(rows))
    if amiss:
        yield from ("", "What is missing or amiss:", "", *amiss)


def _grid(
    groups: Collection[tuple[str, Sequence[Row]]], columns: Sequence[str], plural: str
) -> Iterator[str]:
    """Return the lines of a table, one for each group of runs."""
    has_folds = any(row.fold is not None for _, runs in groups for row in runs)
    heads = [f"fold{plural}", f"seed{plural}"] if has_folds else [f"seed{plural}"]
    lines = [["run", *heads, *columns, "time"]]
    for name, runs in groups:
        of_runs = [_numbers(row.fold for row in runs)] if has_folds else []
        number = len({row.sample for row in runs})
        cells = _cells(summarise(runs)[name], columns, number)
        lines.append([name, *of_runs, _numbers(row.seed for row in runs), *cells])
    return markdown_table(lines)


def _numbers(values: Iterable[int | None]) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values) if value is not None)


def _cells(means: Mapping[str, Mean], columns: Sequence[str], number: int) -> list[str]:
    time = means["time"]
    shown = format_duration(time.mean) if time.number else _ABSENT
    return [*(_cell(means[column], number) for column in columns), shown]


def _cell(value: Mean, number: int) -> str:
    if not value.number:
        return _ABSENT
    deviation = f" ± {value.deviation:.2f}" if value.number > 1 else ""
    share = f" ({value.number} of {number})" if value.number < number else ""
    return f"{value.mean:.2f}{deviation}{share}"


def _amiss(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each thing that is amiss or missing, with the runs that it is true of."""
    of_reason: dict[str, list[str]] = {}
    for row in rows:
        reasons: dict[str, list[str]] = {row.why: []} if row.why else {}
        for column, reason in row.missing.items():
            reasons.setdefault(reason, []).append(column)
        for reason, columns in reasons.items():
            which = f" ({', '.join(columns)})" if 0 < len(columns) < len(COLUMNS) else ""
            of_reason.setdefault(reason, []).append(f"{row}{which}")
    for reason, where in of_reason.items():
        yield f"- {', '.join(where)}: {reason}"
