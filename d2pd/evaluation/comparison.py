"""Miss rates of several methods on the same labels, as data: to print, to plot, to write."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, of_class
from d2pd.evaluation.bootstrap import interval
from d2pd.evaluation.miss_rate import RULES, MissRate, explain_difference, miss_rate
from d2pd.evaluation.subsets import (
    KAIST,
    KAIST_BOUNDS,
    Protocol,
    Setting,
    has_unknown_occlusion,
    in_split,
    unused_prefixes,
)
from d2pd.evaluation.tally import REFERENCES, Tally, tallies

REPETITIONS = 1000
SEED = 0

KAIST_SIZE = (640, 512)
"""Width and height of the images that ``KAIST_BOUNDS`` leave a border of."""


@dataclass(frozen=True)
class SubsetResult:
    """One method on one subset.

    Attributes:
        rate: Miss rate, recall and curve by the rules that were asked for.
        interval: 95 % bootstrap interval of the miss rate, in percent.
        values: Miss rate in percent by each of ``RULES``.
        difference: Why they differ, in words; "" where two decimals are the same.
    """

    rate: MissRate
    interval: tuple[float, float]
    values: Mapping[str, float]
    difference: str


@dataclass(frozen=True)
class MethodResult:
    """One method on one class.

    Attributes:
        method: Its name.
        class_name: Of the labels.
        num_detections: Of that class.
        subsets: ``setting/split`` -> result, in the order of the protocol.
    """

    method: str
    class_name: str
    num_detections: int
    subsets: Mapping[str, SubsetResult]


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` found.

    Attributes:
        mode: Key of ``RULES``.
        iou_threshold: From which a label is found.
        repetitions: Resamples of the images for the intervals.
        protocol: The subsets, without splits that hold no image.
        results: Of each class, its methods in the order given.
        notes: What a reader must know to judge the numbers, a sentence each.
    """

    mode: str
    iou_threshold: float
    repetitions: int
    protocol: Protocol
    results: tuple[MethodResult, ...]
    notes: tuple[str, ...]

    def by_class(self) -> dict[str, list[MethodResult]]:
        """Group the results, classes and methods in their order."""
        grouped: dict[str, list[MethodResult]] = {}
        for result in self.results:
            grouped.setdefault(result.class_name, []).append(result)
        return grouped


def compare(
    labels: LabelArrays,
    methods: Mapping[str, DetectionArrays],
    protocol: Protocol,
    *,
    mode: str = "strict",
    iou_threshold: float = 0.5,
    repetitions: int = REPETITIONS,
    on_subset: Callable[[], object] = lambda: None,
) -> Comparison:
    """Compute the miss rates of every method on every class and subset, with intervals.

    Args:
        labels: Of the images that all methods were run on.
        methods: name -> detections.
        protocol: The subsets; splits that hold no image are left out, and a note says so.
        mode: ``strict`` or ``compat``.
        iou_threshold: In (0, 1].
        repetitions: Resamples of the images for the intervals.
        on_subset: Called after each subset of each method and class.

    Raises:
        ConfigError: If the threshold is outside (0, 1].
        KeyError: If there is no such mode.
    """
    present = with_images(labels, protocol)
    results = []
    for number, class_name in enumerate(labels.class_names):
        for name, detections in methods.items():
            ours, theirs = of_class(labels, detections, number)
            subsets: dict[str, SubsetResult] = {}
            for subset, tally in tallies(ours, theirs, present, iou_threshold):
                subsets[subset] = _measure(tally, mode, repetitions)
                on_subset()
            results.append(MethodResult(name, class_name, theirs.scores.size, subsets))
    notes = tuple(notes_on(labels, protocol))
    return Comparison(mode, iou_threshold, repetitions, present, tuple(results), notes)


def with_images(labels: LabelArrays, protocol: Protocol) -> Protocol:
    """Leave out the splits that hold no image."""
    splits = tuple(split for split in protocol.splits if in_split(labels, split).any())
    return replace(protocol, splits=splits)


def as_plain_data(comparison: Comparison) -> dict[str, Any]:
    """Return all of a comparison as plain data for JSON; NaN and infinities become None."""
    plain = {
        "mode": comparison.mode,
        "iou_threshold": comparison.iou_threshold,
        "settings": {s.name: _plain_setting(s) for s in comparison.protocol.settings},
        "splits": {split.name: list(split.prefixes) for split in comparison.protocol.splits},
        "bootstrap": {"repetitions": comparison.repetitions, "seed": SEED, "percent": 95},
        "fppi_references": REFERENCES.tolist(),
        "notes": list(comparison.notes),
        "results": [
            {
                "method": result.method,
                "class": result.class_name,
                "num_detections": result.num_detections,
                "subsets": {name: _plain_subset(part) for name, part in result.subsets.items()},
            }
            for result in comparison.results
        ],
    }
    return _without_nan(plain)


def _measure(tally: Tally, mode: str, repetitions: int) -> SubsetResult:
    rates = {name: miss_rate(tally, rules) for name, rules in RULES.items()}
    return SubsetResult(
        rate=rates[mode],
        interval=interval(tally, RULES[mode], repetitions, SEED),
        values={name: rate.value for name, rate in rates.items()},
        difference=explain_difference(tally),
    )


def notes_on(labels: LabelArrays, protocol: Protocol) -> Iterator[str]:
    """Yield what a reader must know of labels and subsets to judge the numbers, in sentences."""
    if has_unknown_occlusion(labels):
        yield (
            "Labels without an occlusion flag are judged on height and bounds: settings that "
            "differ in occlusion alone are the same there."
        )
    empty = [split.name for split in protocol.splits if not in_split(labels, split).any()]
    if empty:
        yield f"No image is in the split {' or '.join(empty)}: left out."
    for split in protocol.splits:
        unused = unused_prefixes(labels, split) if split not in KAIST.splits else ()
        if unused and split.name not in empty:
            yield f"No image of the split {split.name} is under {' or '.join(unused)}."
    sizes = {(int(width), int(height)) for height, width in labels.image_sizes} - {KAIST_SIZE}
    if sizes and any(setting.bounds == KAIST_BOUNDS for setting in protocol.settings):
        width, height = max(sizes)
        yield (
            f"Images of {f'{width}x{height} px' if width else 'unknown size'} are judged by bounds "
            f"made for KAIST's {KAIST_SIZE[0]}x{KAIST_SIZE[1]}: give settings of your own "
            "(MISS_RATE.SETTINGS of a configuration)."
        )


def _plain_setting(setting: Setting) -> dict[str, Any]:
    return {
        "height": [setting.min_height, setting.max_height],
        "occlusion": sorted(setting.occlusion),
        "bounds": list(setting.bounds) if setting.bounds else None,
    }


def _plain_subset(result: SubsetResult) -> dict[str, Any]:
    return {
        "miss_rate": result.rate.value,
        "interval": list(result.interval),
        "recall": result.rate.recall,
        "num_images": result.rate.num_images,
        "num_labels": result.rate.num_labels,
        "miss_at_references": result.rate.at_references.tolist(),
        **result.values,
        "difference": result.difference or None,
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, np.floating | np.integer):
        return _without_nan(value.item())
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return value
