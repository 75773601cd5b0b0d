"""What a configuration may hold: values that are allowed, and keys that something reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from d2pd.config_keys import default_config
from d2pd.config_rules import (
    ALLOWED_VALUES,
    HIGHEST_VALUES,
    HONOURED,
    LOWEST_VALUES,
    OF_BACKBONES,
    OPEN_GROUPS,
    SET_IN_BASES,
    SSD_HONOURS,
    SWITCHED_KEYS,
)
from d2pd.config_words import flatten, lookup
from d2pd.d2 import CfgNode
from d2pd.data.modality import channels_of
from d2pd.errors import ConfigError

FLOAT32_MAX = 3.4e38
LEVELS = 255


def check_config(cfg: CfgNode) -> None:
    """Refuse values that are not allowed and changed keys that would have no effect.

    The same under both engines: loading, solving and evaluating are d2pd's own. Keys below MODEL
    are the engine's business.

    Raises:
        ConfigError: Naming the key, the value and the way out.
    """
    defaults = dict(flatten(default_config()))
    for key, value in flatten(cfg):
        if value is None and defaults.get(key) is not None:
            raise ConfigError(f"{key} is empty (null); it is {defaults[key]!r} by default")
    for key, allowed in ALLOWED_VALUES.items():
        value = lookup(cfg, key)
        if value not in allowed:
            raise ConfigError(f"{key} is {value!r}; allowed: {', '.join(allowed)}")
    _check_ranges(cfg)
    _check_names(cfg.DATASETS)
    _check_expected_results(cfg.TEST.EXPECTED_RESULTS)
    _check_metrics(cfg)
    _check_schedule(cfg.SOLVER)
    _check_channels(cfg)
    if cfg.DETERMINISTIC and cfg.CUDNN_BENCHMARK:
        raise ConfigError(
            "CUDNN_BENCHMARK True chooses algorithms by the clock, DETERMINISTIC True wants the "
            "same ones each time: leave one of them out"
        )
    _check_keys(cfg, defaults)


def _check_ranges(cfg: CfgNode) -> None:
    for key, least in LOWEST_VALUES.items():
        value = lookup(cfg, key)
        if not value >= least:
            raise ConfigError(f"{key} is {value}; it must be at least {least}")
        if value > FLOAT32_MAX:
            raise ConfigError(f"{key} is {value}; it must be finite, in float32 too")
    for key, most in HIGHEST_VALUES.items():
        if lookup(cfg, key) > most:
            raise ConfigError(f"{key} is {lookup(cfg, key)}; it must be at most {most}")


def _check_names(datasets: CfgNode) -> None:
    for key in ("TRAIN", "TEST"):
        for name in datasets[key]:
            if not isinstance(name, str):
                raise ConfigError(f"DATASETS.{key} holds {name!r}, which is no name of a dataset")


def _check_keys(cfg: CfgNode, defaults: Mapping[str, Any]) -> None:
    """Refuse a changed key that nothing reads, or that another key switches off."""
    honoured = {group + name for group, names in HONOURED.items() for name in names.split()}
    for key, value in flatten(cfg):
        ours = not key.startswith(("MODEL.", *OPEN_GROUPS))
        changed = _as_lists(value) != _as_lists(defaults.get(key, value))
        if ours and changed and key not in honoured:
            raise ConfigError(
                f"{key} is {value!r}, but d2pd does not honour it; remove it, or set it back to "
                f"{defaults[key]!r}"
            )
        if changed:
            _check_model_key(key, value, cfg.MODEL.META_ARCHITECTURE, defaults)
            _check_backbone_key(key, value, cfg.MODEL.BACKBONE.NAME, defaults)
            _check_switch(key, value, cfg)


def _check_switch(key: str, value: Any, cfg: CfgNode) -> None:
    """Refuse a changed key that another one makes idle."""
    if key not in SWITCHED_KEYS:
        return
    switch, needed = SWITCHED_KEYS[key]
    found = lookup(cfg, switch)
    if not found or needed not in (None, found):
        wanted = switch if needed is None else f"{switch} {needed}"
        raise ConfigError(
            f"{key} is {value!r}, but {switch} is {found!r}, so that it would have no effect: set "
            f"{wanted}, or remove {key}"
        )


def _check_channels(cfg: CfgNode) -> None:
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std):
        raise ConfigError(
            f"MODEL.PIXEL_MEAN has {len(mean)} values, MODEL.PIXEL_STD {len(std)}: both need one "
            "for each channel"
        )
    for number in (*mean, *std):
        if type(number) not in (int, float) or not abs(number) <= FLOAT32_MAX:
            raise ConfigError(
                f"MODEL.PIXEL_MEAN {list(mean)} and MODEL.PIXEL_STD {list(std)} must be finite "
                f"numbers; {number!r} is not one"
            )
    if not all(0 <= number <= LEVELS for number in mean):
        raise ConfigError(
            f"MODEL.PIXEL_MEAN is {list(mean)}; levels of a pixel go from 0 to {LEVELS}"
        )
    if not all(number > 0 for number in std):
        raise ConfigError(
            f"MODEL.PIXEL_STD is {list(std)}; it divides the images: give numbers above 0"
        )
    channels_of(cfg.INPUT.MODALITY, len(mean))


def _check_model_key(key: str, value: Any, architecture: str, defaults: Mapping[str, Any]) -> None:
    """Refuse a changed key of the other model, which would have no effect."""
    is_read = not key.startswith("MODEL.SSD.")
    if architecture == "SSDSeg":
        is_read = key.startswith(SSD_HONOURS)
    if key.startswith("MODEL.") and not is_read:
        raise ConfigError(
            f"{key} is {value!r}, but MODEL.META_ARCHITECTURE {architecture} does not read it; "
            f"remove it, or set it back to {defaults[key]!r}"
        )


def _check_backbone_key(key: str, value: Any, backbone: str, defaults: Mapping[str, Any]) -> None:
    """Refuse a changed key of another backbone, which would have no effect."""
    for group, (is_read, name) in OF_BACKBONES.items():
        if key.startswith(group) and key not in SET_IN_BASES and is_read != (backbone == name):
            raise ConfigError(
                f"{key} is {value!r}, but MODEL.BACKBONE.NAME {backbone} does not read it; remove "
                f"it, or set it back to {defaults[key]!r}"
            )


def _check_metrics(cfg: CfgNode) -> None:
    if not 0 < cfg.MISS_RATE.IOU_THRESHOLD <= 1:
        raise ConfigError(
            f"MISS_RATE.IOU_THRESHOLD is {cfg.MISS_RATE.IOU_THRESHOLD}; it must be above 0 and at "
            "most 1"
        )
    for name in cfg.BEST_CHECKPOINT.METRIC:
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"BEST_CHECKPOINT.METRIC names {name!r}, which is no metric, such as 'bbox/AP50'"
            )


def _check_schedule(solver: CfgNode) -> None:
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and solver.WARMUP_ITERS >= solver.MAX_ITER:
        raise ConfigError(
            f"SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS} leaves nothing of SOLVER.MAX_ITER "
            f"{solver.MAX_ITER}: the rate would stay near 0; lower SOLVER.WARMUP_ITERS"
        )
    if solver.MAX_ITER in solver.STEPS:
        raise ConfigError(
            f"SOLVER.STEPS {list(solver.STEPS)} has MAX_ITER {solver.MAX_ITER} itself; it "
            "would change nothing: leave it out"
        )


def _check_expected_results(rows: Sequence[Any]) -> None:
    for row in rows:
        is_row = isinstance(row, list | tuple) and len(row) == 4
        if not is_row or not all(isinstance(number, int | float) for number in row[2:]):
            raise ConfigError(
                f"TEST.EXPECTED_RESULTS: {row!r} is not [task, metric, value, tolerance], such as "
                "['bbox', 'AP50', 60.0, 5.0]"
            )


def _as_lists(value: Any) -> Any:
    """Make a tuple and the list that YAML turns it into compare as equal."""
    return [_as_lists(part) for part in value] if isinstance(value, list | tuple) else value
