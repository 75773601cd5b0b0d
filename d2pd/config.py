"""How a configuration is loaded and checked; its keys are in ``config_keys``.

Config stops at the builders: the code below them takes plain arguments.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from d2pd.config_keys import (
    ALLOWED_VALUES,
    EASYDICT_KEYS,
    HIGHEST_VALUES,
    HONOURED,
    LOWEST_VALUES,
    OPEN_GROUPS,
    REGISTER_DEFAULTS,
    SEED,
    SSD_HONOURS,
    SWITCHED_KEYS,
    default_config,
)
from d2pd.config_words import check_words, explain, flatten, lookup, one_line, unknown_key
from d2pd.d2 import CfgNode, default_argument_parser
from d2pd.data.modality import channels_of
from d2pd.errors import ConfigError, MissingFileError

logger = logging.getLogger(__name__)

FLOAT32_MAX = 3.4e38
LEVELS = 255


def load_config(config_file: str | Path = "", opts: Sequence[str] = ()) -> CfgNode:
    """Load a YAML file and command-line overrides on top of the defaults, and check the result.

    Args:
        config_file: Path of a YAML file, with ``_BASE_`` or not; empty for the defaults alone.
        opts: ``KEY VALUE KEY VALUE ...`` as on the command line. Keys of a dataset
            (``DATASETS.REGISTER.<name>.<KEY>``) need not be in the file.

    Returns:
        The configuration, not frozen.

    Raises:
        MissingFileError: If the file, or the one its ``_BASE_`` names, is not there.
        ConfigError: If it is not YAML, is YAML that would run code, or has an unknown key, a
            value of the wrong type or one that is not allowed.
    """
    check_words(opts)
    cfg = default_config()
    if config_file:
        _merge_file(cfg, Path(config_file))
    _complete_register(cfg, opts)
    _merge_opts(cfg, list(opts))
    if cfg.SEED < 0:
        # What Detectron2's own configs hold: draw one. Such a run could not be resumed exactly.
        logger.warning("SEED %d is replaced by %d: a run needs one to resume", cfg.SEED, SEED)
        cfg.SEED = SEED
    check_config(cfg)
    return cfg


def _merge_file(cfg: CfgNode, path: Path) -> None:
    if not path.is_file():
        raise MissingFileError(
            f"no config file {path} (looked from {Path.cwd()}); those that come with d2pd are in "
            "configs/"
        )
    try:
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        tag = str(error.problem).replace("\n", " ")
        raise ConfigError(f"{path}: YAML that would run code is refused: {tag}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {one_line(error)}") from None
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: its _BASE_ names {error.filename}: no such file") from None
    except RecursionError:
        raise ConfigError(f"{path}: its _BASE_ leads back to itself") from None
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: {explain(error, cfg)}") from None
    except (AssertionError, AttributeError, TypeError) as error:
        # yacs says what type it met; of a file without keys it says nothing to its writer.
        detail = f" ({one_line(error)})" if str(error).startswith("Key ") else ""
        raise ConfigError(
            f"{path}: not a configuration: the file must hold keys and values, such as "
            f"'SOLVER: {{BASE_LR: 0.01}}'{detail}"
        ) from None


def _merge_opts(cfg: CfgNode, opts: list[str]) -> None:
    try:
        cfg.merge_from_list(opts)
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(f"command line: {explain(error, cfg)}") from None
    except (AttributeError, TypeError):  # below a key that holds a value
        known = {key for key, _ in flatten(cfg)}
        wrong = next(key for key in opts[::2] if key not in known)
        raise ConfigError(f"command line: {unknown_key(wrong, cfg)}") from None


def _complete_register(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Give every registered dataset all of its keys, so that any of them can be overridden."""
    register = cfg.DATASETS.REGISTER
    prefix = "DATASETS.REGISTER."
    for key in opts[::2]:
        name, dot, _ = key.removeprefix(prefix).rpartition(".")
        if key.startswith(prefix) and dot and name not in register:
            register[name] = CfgNode(REGISTER_DEFAULTS)
    for name, entry in register.items():
        if not isinstance(entry, CfgNode):
            raise ConfigError(f"DATASETS.REGISTER.{name} must hold keys, got {entry!r}")
        for key in set(entry) - set(REGISTER_DEFAULTS):
            raise ConfigError(
                f"unknown key DATASETS.REGISTER.{name}.{key}; known: {', '.join(REGISTER_DEFAULTS)}"
            )
        given = dict(entry)
        register[name] = CfgNode(REGISTER_DEFAULTS)
        for key, value in given.items():
            default = REGISTER_DEFAULTS[key]
            if isinstance(default, list) and isinstance(value, list | tuple):
                value = list(value)
            elif not isinstance(value, type(default)):
                raise ConfigError(
                    f"DATASETS.REGISTER.{name}.{key}: expected a {type(default).__name__}, "
                    f"got {value!r}"
                )
            register[name][key] = value


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
        switch = SWITCHED_KEYS.get(key)
        if switch and changed and not lookup(cfg, switch):
            raise ConfigError(
                f"{key} is {value!r}, but {switch} is {lookup(cfg, switch)!r}, so that it would "
                f"have no effect: set {switch}, or remove {key}"
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


def config_from_easydict(
    options: Mapping[str, Any], config_file: str | Path = ""
) -> tuple[CfgNode, argparse.Namespace]:
    """Build configuration and arguments from a notebook's ``EasyDict``.

    Args:
        options: Values by the names of ``EASYDICT_KEYS``. ``gpu`` is True, False or the number of
            a GPU; None leaves a setting as the config file has it.
        config_file: YAML file to start from; empty for the defaults.

    Returns:
        The configuration and the arguments that ``train_net.py`` would have parsed.

    Raises:
        ConfigError: If a name is unknown or a value does not fit its key.
    """
    unknown = sorted(set(options) - set(EASYDICT_KEYS))
    if unknown:
        raise ConfigError(
            f"unknown option {', '.join(unknown)}; known: {', '.join(sorted(EASYDICT_KEYS))}"
        )
    opts: list[str] = []
    arguments: list[str] = ["--config-file", str(config_file)]
    for name, value in options.items():
        target = EASYDICT_KEYS[name]
        if value is None or (target.startswith("--") and value is False):
            continue
        if target.startswith("--"):
            arguments += [target] if value is True else [target, str(value)]
        else:
            opts += [target, _device(value) if name == "gpu" else value]
    args = train_parser().parse_args([*arguments, *(str(word) for word in opts)])
    return load_config(config_file, opts), args


def train_parser() -> argparse.ArgumentParser:
    """Return the parser of ``train_net.py``: Detectron2's, and what to do with an older run."""
    parser = default_argument_parser()
    parser.add_argument(
        "--overwrite", action="store_true", help="delete the run that OUTPUT_DIR holds, start anew"
    )
    return parser


def _device(gpu: Any) -> str:
    if isinstance(gpu, bool):
        return "cuda" if gpu else "cpu"
    return f"cuda:{gpu}" if isinstance(gpu, int) else str(gpu)
