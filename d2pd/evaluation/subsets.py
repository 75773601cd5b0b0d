"""The subsets that a miss rate is computed on: a setting says which labels count, a split where."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2pd.errors import ConfigError
from d2pd.evaluation.arrays import UNKNOWN, LabelArrays, labels_to_find

Bounds = tuple[float, float, float, float]

OCCLUSIONS = frozenset({0, 1, 2})
"""None, partial, heavy."""

ALL = "all"
NAME = re.compile(r"[a-z0-9_.-]+")


@dataclass(frozen=True)
class Setting:
    """Which labels are to be found; every other one is a region to ignore.

    Attributes:
        name: Lower case, part of a metric's name.
        min_height: Of the box in pixels; equality counts.
        max_height: Of the box in pixels, or infinite; equality counts.
        occlusion: What a label's occlusion may be, of 0 none, 1 partial, 2 heavy.
        bounds: x1, y1, x2, y2 in pixels; a box must lie inside, touching counts. None: anywhere.
    """

    name: str
    min_height: float = 0.0
    max_height: float = math.inf
    occlusion: frozenset[int] = OCCLUSIONS
    bounds: Bounds | None = None


@dataclass(frozen=True)
class Split:
    """Some of the images.

    Attributes:
        name: Lower case, part of a metric's name.
        prefixes: Folders such as ``set06`` or ``set06/V000``; see ``in_split``. None: every image.
    """

    name: str
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """Every setting on every split is a subset; settings go first."""

    settings: tuple[Setting, ...]
    splits: tuple[Split, ...]


KAIST_BOUNDS = (5.0, 5.0, 635.0, 507.0)
KAIST = Protocol(
    settings=(
        Setting("reasonable", 55.0, math.inf, frozenset({0, 1}), KAIST_BOUNDS),
        Setting("near", 115.0, math.inf, frozenset({0}), KAIST_BOUNDS),
        Setting("medium", 45.0, 115.0, frozenset({0}), KAIST_BOUNDS),
        Setting("far", 1.0, 45.0, frozenset({0}), KAIST_BOUNDS),
        Setting("none", 1.0, math.inf, frozenset({0}), KAIST_BOUNDS),
        Setting("partial", 1.0, math.inf, frozenset({1}), KAIST_BOUNDS),
        Setting("heavy", 1.0, math.inf, frozenset({2}), KAIST_BOUNDS),
    ),
    splits=(
        Split(ALL),
        Split("day", ("set00", "set01", "set02", "set06", "set07", "set08")),
        Split("night", ("set03", "set04", "set05", "set09", "set10", "set11")),
    ),
)
"""Source: Hwang et al., CVPR 2015; the subsets of the published evaluation code."""


def ignored(labels: LabelArrays, setting: Setting) -> np.ndarray:
    """Tell which labels a setting takes for regions to ignore.

    A label whose occlusion is unknown is judged on height and bounds alone.

    Returns:
        (G,) bool.
    """
    x, y, width, height = labels.boxes_xywh.T
    is_ignored = ~labels_to_find(labels)
    is_ignored |= (height < setting.min_height) | (height > setting.max_height)
    is_ignored |= ~np.isin(labels.occlusion, [UNKNOWN, *setting.occlusion])
    if setting.bounds is not None:
        x1, y1, x2, y2 = setting.bounds
        is_ignored |= (x < x1) | (y < y1) | (x + width > x2) | (y + height > y2)
    return is_ignored


def in_split(labels: LabelArrays, split: Split) -> np.ndarray:
    """Tell which images a split holds.

    A prefix matches one or more whole parts of an image's path, so ``set0`` is not in
    ``set06/V000/I00019``. Where a path is absolute, its start is of the machine: the parts may
    stand anywhere.

    Returns:
        (N,) bool.
    """
    if not split.prefixes:
        return np.ones(len(labels.image_names), dtype=bool)
    matches = [
        any(_is_under(name, prefix) for prefix in split.prefixes) for name in labels.image_names
    ]
    return np.array(matches, dtype=bool)


def unused_prefixes(labels: LabelArrays, split: Split) -> tuple[str, ...]:
    """Return the prefixes of a split that match no image: a caller should warn about them."""
    return tuple(
        prefix
        for prefix in split.prefixes
        if not any(_is_under(name, prefix) for name in labels.image_names)
    )


def has_unknown_occlusion(labels: LabelArrays) -> bool:
    """Tell whether a label that could count does not state its occlusion, as in KAIST train."""
    return bool((labels_to_find(labels) & (labels.occlusion == UNKNOWN)).any())


def build_protocol(
    settings: Mapping[str, Mapping[str, Any]], splits: Mapping[str, Sequence[str]]
) -> Protocol:
    """Build the subsets that a configuration describes.

    Args:
        settings: name -> ``HEIGHT`` [least, most] in pixels, most may be infinite; ``OCCLUSION``,
            a list of 0 none, 1 partial, 2 heavy; ``BOUNDS`` [x1, y1, x2, y2] in pixels. A key
            that is left out does not restrict.
        splits: name -> path prefixes.

    Returns:
        The settings, which may be none, and the split ``all``, always there, before the others.

    Raises:
        ConfigError: If something is not as described; the message names the key.
    """
    return Protocol(
        settings=tuple(_build_setting(name, spec) for name, spec in settings.items()),
        splits=(
            Split(ALL),
            *(_build_split(name, splits[name]) for name in splits if not _is_all(name, splits)),
        ),
    )


def _is_under(name: str, prefix: str) -> bool:
    wanted, path = f"/{prefix.strip('/')}/", f"/{name.strip('/')}/"
    return wanted in path if name.startswith("/") else path.startswith(wanted)


def _build_setting(name: str, spec: Any) -> Setting:
    where = f"MISS_RATE.SETTINGS.{name}"
    _check_name(name, where)
    allowed = ("HEIGHT", "OCCLUSION", "BOUNDS")
    if not isinstance(spec, Mapping):
        raise ConfigError(f"{where} must be keys of {', '.join(allowed)}, got {spec!r}")
    unknown = [key for key in spec if key not in allowed]
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]} is not a key; allowed are {', '.join(allowed)}")
    least, most = _height(spec.get("HEIGHT", (0.0, math.inf)), f"{where}.HEIGHT")
    occlusion = _occlusion(spec.get("OCCLUSION", OCCLUSIONS), f"{where}.OCCLUSION")
    bounds = _bounds(spec["BOUNDS"], f"{where}.BOUNDS") if "BOUNDS" in spec else None
    return Setting(name, least, most, occlusion, bounds)


def _build_split(name: str, prefixes: Any) -> Split:
    where = f"MISS_RATE.SPLITS.{name}"
    _check_name(name, where)
    is_list = isinstance(prefixes, Sequence) and not isinstance(prefixes, str)
    is_usable = is_list and all(isinstance(p, str) and p.strip("/") for p in prefixes)
    if not is_usable or not prefixes:
        raise ConfigError(
            f"{where} must be a list of path prefixes such as [set06, set07/V000], got {prefixes!r}"
        )
    return Split(name, tuple(prefixes))


def _is_all(name: str, splits: Mapping[str, Sequence[str]]) -> bool:
    if name == ALL and splits[name]:
        raise ConfigError(
            f"MISS_RATE.SPLITS.{ALL} holds every image and takes no prefixes, got "
            f"{splits[name]!r}; give the split another name"
        )
    return name == ALL


def _check_name(name: Any, where: str) -> None:
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ConfigError(
            f"{where}: a name becomes part of a metric's name and may hold lower-case letters, "
            f"digits and . _ -, got {name!r}"
        )


def _height(value: Any, where: str) -> tuple[float, float]:
    numbers = _numbers(value, 2)
    if numbers is None or not (0 <= numbers[0] < math.inf and numbers[0] <= numbers[1]):
        raise ConfigError(
            f"{where} must be [least, most] in pixels, 0 <= least <= most, most may be .inf; "
            f"got {value!r}"
        )
    return numbers[0], numbers[1]


def _bounds(value: Any, where: str) -> Bounds:
    numbers = _numbers(value, 4)
    if numbers is None or not (
        all(map(math.isfinite, numbers)) and numbers[0] < numbers[2] and numbers[1] < numbers[3]
    ):
        raise ConfigError(
            f"{where} must be [x1, y1, x2, y2] in pixels with x1 < x2 and y1 < y2, got {value!r}"
        )
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _occlusion(value: Any, where: str) -> frozenset[int]:
    is_list = isinstance(value, Sequence | frozenset) and not isinstance(value, str)
    if not is_list or not value or not all(type(v) is int and v in OCCLUSIONS for v in value):
        raise ConfigError(
            f"{where} must be a list of 0 (none), 1 (partial), 2 (heavy), at least one; "
            f"got {value!r}"
        )
    return frozenset(value)


def _numbers(value: Any, count: int) -> list[float] | None:
    """Return that many numbers, or None if the value is anything else."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or len(value) != count:
        return None
    is_number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    return [float(v) for v in value] if is_number else None
