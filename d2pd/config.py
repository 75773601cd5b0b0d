"""How a configuration is loaded; its keys are in ``config_keys``, checks in ``config_checks``.

Config stops at the builders: the code below them takes plain arguments.
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from d2pd.config_checks import check_config
from d2pd.config_keys import (
    EASYDICT_KEYS,
    REGISTER_DEFAULTS,
    SEED,
    default_config,
)
from d2pd.config_words import check_words, explain, flatten, one_line, unknown_key
from d2pd.d2 import CfgNode, default_argument_parser
from d2pd.errors import ConfigError, MissingFileError

logger = logging.getLogger(__name__)


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


def config_of_text(text: str, source: str, opts: Sequence[str] = ()) -> CfgNode:
    """As ``load_config``, from the YAML text that a checkpoint holds, without ``_BASE_``.

    Args:
        text: What ``CfgNode.dump`` gave.
        source: Names the checkpoint in messages.
        opts: See ``load_config``.

    Raises:
        ConfigError: As ``load_config``.
    """
    try:
        found = yaml.safe_load(text)
        json.dumps(found, default=str)  # YAML can hold a list that holds itself
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: its configuration is not YAML: {one_line(error)}") from None
    return _config_of_tree(found, source, opts)


def config_of_run(values: Mapping[str, Any], source: str, opts: Sequence[str] = ()) -> CfgNode:
    """As ``load_config``, from what a checkpoint says of its run.

    Args:
        values: By dotted keys, as JSON text: what ``describe_run`` gives as ``config``.
        source: Names the checkpoint in messages.
        opts: See ``load_config``.

    Raises:
        ConfigError: As ``load_config``.
    """
    tree: dict[str, Any] = {}
    for key, text in values.items():
        *groups, name = str(key).split(".")
        node: Any = tree
        for group in groups:
            node = node.setdefault(group, {}) if isinstance(node, dict) else None
        try:
            node[name] = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            raise ConfigError(f"{source}: its configuration has no value at {key!r:.80}") from None
    return _config_of_tree(tree, source, opts)


def _config_of_tree(tree: Any, source: str, opts: Sequence[str]) -> CfgNode:
    check_words(opts)
    cfg = default_config()
    try:
        cfg.merge_from_other_cfg(CfgNode(tree))
    except (KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{source}: its configuration is not one of this version of d2pd "
            f"({explain(error, cfg)}): name the file it was trained with, --config-file FILE"
        ) from None
    _complete_register(cfg, opts)
    _merge_opts(cfg, list(opts))
    try:
        check_config(cfg)
    except ConfigError as error:
        raise ConfigError(f"{source}: its configuration: {error}") from None
    return cfg


def config_from_easydict(
    options: Mapping[str, Any], config_file: str | Path = ""
) -> tuple[CfgNode, argparse.Namespace]:
    """Build configuration and arguments from a notebook's ``EasyDict``.

    Args:
        options: Values by the names of ``EASYDICT_KEYS``. ``gpu`` is True, False or the number of
            a GPU; None leaves a setting as the config file has it. Folders may be paths.
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
            opts += [target, _value(name, value)]
    args = train_parser().parse_args([*arguments, *(str(word) for word in opts)])
    return load_config(config_file, opts), args


def train_parser() -> argparse.ArgumentParser:
    """Return the parser of ``train_net.py``: Detectron2's, and what to do with an older run."""
    parser = default_argument_parser()
    parser.set_defaults(dist_url="auto")  # Detectron2's port is one for all runs of a user
    parser.add_argument(
        "--overwrite", action="store_true", help="delete the run that OUTPUT_DIR holds, start anew"
    )
    return parser


def _value(name: str, value: Any) -> Any:
    if name == "gpu":
        return _device(value)
    return str(value) if isinstance(value, Path) else value


def _device(gpu: Any) -> str:
    if isinstance(gpu, bool):
        return "cuda" if gpu else "cpu"
    return f"cuda:{gpu}" if isinstance(gpu, int) else str(gpu)
