"""A comparison as tables for a terminal."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from d2pd.evaluation.comparison import Comparison, MethodResult, SubsetResult
from d2pd.evaluation.subsets import Setting
from d2pd.printable import printable

WIDTH = 100
"""Characters of a line; a table that is wider goes on below."""

LONGEST_NAME = 22

Column = list[str]


def format_comparison(comparison: Comparison) -> str:
    """Return the tables, and where strict and compat differ, as lines of ``WIDTH`` at most.

    A name that is too long for that makes its lines longer.
    """
    return "\n".join(_lines(comparison))


def _lines(comparison: Comparison) -> Iterator[str]:
    interval = f"95 % interval over {comparison.repetitions:,} resamples of the images"
    yield from _wrapped(
        f"Log-average miss rate in % ({comparison.mode}, IoU {comparison.iou_threshold:g}), lower "
        f"is better; in brackets the {interval}. Recall in %, at any score."
    )
    for note in comparison.notes:
        yield from _wrapped(note)
    grouped = comparison.by_class()
    for class_name, results in grouped.items():
        if len(grouped) > 1:
            yield from ("", f"=== class {printable(class_name)} ===")
        yield from _summary(comparison, results)
        yield from _all_subsets(results)
        yield from _differences(comparison, results)


def _summary(comparison: Comparison, results: Sequence[MethodResult]) -> Iterator[str]:
    """Yield one line per method, of the first setting on every split."""
    setting = comparison.protocol.settings[0]
    names = ["", *_shown_names(results)]
    columns = [
        [split.name, *(_rate(result.subsets[f"{setting.name}/{split.name}"]) for result in results)]
        for split in comparison.protocol.splits
    ]
    first = f"{setting.name}/{comparison.protocol.splits[0].name}"
    recall = f"recall, {comparison.protocol.splits[0].name}"
    columns.append([recall, *(_number(result.subsets[first].rate.recall) for result in results)])
    yield ""
    yield from _wrapped(f"{setting.name.capitalize()}: {_describe(setting)}")
    yield from _table([names], columns)


def _describe(setting: Setting) -> str:
    height = f"{setting.min_height:g} px high or more"
    if setting.max_height < math.inf:
        height = f"{setting.min_height:g} to {setting.max_height:g} px high"
    parts = [height, f"occlusion {', '.join(map(str, sorted(setting.occlusion)))}"]
    if setting.bounds is not None:
        parts.append(f"inside {', '.join(f'{value:g}' for value in setting.bounds)}")
    return "; ".join(parts)


def _all_subsets(results: Sequence[MethodResult]) -> Iterator[str]:
    """Yield one line per subset, of every method."""
    subsets = list(results[0].subsets)
    numbers = [max(_num_labels(result, subset) for result in results) for subset in subsets]
    fixed = [["", "", *subsets], ["", "labels", *(f"{number:6,}" for number in numbers)]]
    columns = [
        [
            name,
            f"{'miss rate':<{max(map(len, rates))}}  recall",
            *(
                f"{rate:<{max(map(len, rates))}}  {_number(part.rate.recall)}"
                for rate, part in zip(rates, result.subsets.values(), strict=True)
            ),
        ]
        for name, result in zip(_shown_names(results), results, strict=True)
        if (rates := [_rate(part) for part in result.subsets.values()])
    ]
    yield from ("", "All subsets")
    yield from _table(fixed, columns)


def _shown_names(results: Sequence[MethodResult]) -> list[str]:
    """Give the names, long ones by their end where that tells them apart."""
    names = [result.method for result in results]
    short = [
        name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}" for name in names
    ]
    return short if len(set(short)) == len(set(names)) else names


def _num_labels(result: MethodResult, subset: str) -> int:
    return result.subsets[subset].rate.num_labels


def _differences(comparison: Comparison, results: Sequence[MethodResult]) -> Iterator[str]:
    """Yield where compat prints other decimals, in words where it matters most."""
    first = f"{comparison.protocol.settings[0].name}/"
    for result in results:
        differing = {name: part for name, part in result.subsets.items() if part.difference}
        told = [name for name in differing if name.startswith(first)]
        rest = {name: part for name, part in differing.items() if name not in told}
        if rest:
            told.append(max(rest, key=lambda name: _gap(rest[name])))
        if differing:
            yield from ("", f"{result.method}: strict and compat differ")
        for name in told:
            yield from _wrapped(f"{name}: {differing[name].difference}", indent=2)
        if len(rest) > 1:
            others = {name: part for name, part in rest.items() if name not in told}
            yield from _wrapped(f"compat / strict elsewhere: {_both(others)}", indent=2)


def _gap(part: SubsetResult) -> float:
    return abs(part.values["strict"] - part.values["compat"])


def _both(parts: Mapping[str, SubsetResult]) -> str:
    return ", ".join(
        f"{name} {part.values['compat']:.2f} / {part.values['strict']:.2f}"
        for name, part in parts.items()
    )


def _rate(part: SubsetResult) -> str:
    if math.isnan(part.rate.value):
        return "no label"
    low, high = part.interval
    return f"{part.rate.value:6.2f} [{low:.2f}, {high:.2f}]"


def _number(value: float) -> str:
    return "     -" if math.isnan(value) else f"{value:6.2f}"


def _table(fixed: Sequence[Column], columns: Sequence[Column]) -> Iterator[str]:
    """Yield lines; ``fixed`` columns begin each part if the others do not fit beside each other."""
    start = 0
    while start < len(columns):
        stop = start + 1
        while stop < len(columns) and _width([*fixed, *columns[start : stop + 1]]) <= WIDTH:
            stop += 1
        if start:
            yield ""
        yield from _rows([*fixed, *columns[start:stop]])
        start = stop


def _width(columns: Sequence[Column]) -> int:
    return sum(max(map(len, column)) for column in columns) + 2 * (len(columns) - 1)


def _rows(columns: Sequence[Column]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _wrapped(text: str, indent: int = 0) -> list[str]:
    first = " " * indent
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=f"{first}  " if indent else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
