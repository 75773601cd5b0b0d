"""What is to be run: each configuration on each fold with each seed, in a folder of its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from d2pd.config import load_config
from d2pd.config_keys import default_config
from d2pd.config_words import check_words, flatten, one_line
from d2pd.d2 import CfgNode
from d2pd.data.registration import folds_in_use
from d2pd.errors import ConfigError, MissingFileError
from d2pd.json_file import strict

OWN_KEYS = {"OUTPUT_DIR": "--output", "SEED": "--seeds", "DATASETS.FOLD": "--folds"}


@dataclass(frozen=True)
class PlannedRun:
    """One training and its evaluation.

    Attributes:
        name: Of the configuration: its file's, without the suffix.
        seed: Its ``SEED``.
        fold: Its ``DATASETS.FOLD``; None where the runs are not over folds.
        folder: Its ``OUTPUT_DIR``.
        config_file: As given.
        opts: ``KEY VALUE KEY VALUE ...`` on top of the file.
        config: key -> value of the whole configuration, as JSON holds it, and a digest of each
            file of folds.
    """

    name: str
    seed: int
    fold: int | None
    folder: Path
    config_file: Path
    opts: tuple[str, ...]
    config: Mapping[str, Any]

    def __str__(self) -> str:
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.name}{fold}, seed {self.seed}"


def plan_runs(
    config_files: Sequence[Path],
    seeds: Sequence[int],
    opts: Sequence[str],
    output: Path,
    folds: Sequence[int] = (),
) -> list[PlannedRun]:
    """Load every configuration, so that a mistake in the last one is heard of before the first run.

    Args:
        config_files: Named differently, since the folders are named by them.
        seeds: Of each configuration; none for the ``SEED`` that it has.
        opts: ``KEY VALUE KEY VALUE ...`` on top of every configuration.
        output: The folders ``NAME/seed_N``, or ``NAME/fold_I/seed_N``, are made here.
        folds: To hold out, of each configuration; none for the ``DATASETS.FOLD`` that it has.

    Returns:
        The runs, all folds and seeds of a configuration one after the other.

    Raises:
        MissingFileError: If a file is not there.
        ConfigError: If a file or an override cannot be used, or no dataset has the folds; the
            message names it.
        AnnotationError: If a file of folds cannot be used.
    """
    _check_names(config_files)
    check_words(opts)
    for key, flag in OWN_KEYS.items():
        if key in opts[::2]:
            raise ConfigError(f"{key} differs from run to run: give {flag} instead")
    return [run for file in config_files for run in _runs_of(file, folds, seeds, opts, output)]


@cache
def plain_defaults() -> Mapping[str, Any]:
    """Return key -> default of every key, as JSON holds it."""
    return _plain(default_config())


def overrides_of_file(path: Path) -> list[str]:
    """Return what a YAML file says as ``KEY VALUE KEY VALUE ...``.

    Args:
        path: Of keys and values as a configuration has them; without ``_BASE_``.

    Raises:
        MissingFileError: If it is not there.
        ConfigError: If it holds something else.
    """
    if not path.is_file():
        raise MissingFileError(f"no file {path} (--overrides, looked from {Path.cwd()})")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {one_line(error)}") from None
    if not isinstance(content, dict) or "_BASE_" in content:
        raise ConfigError(
            f"{path}: --overrides takes keys and values, such as 'SOLVER: {{MAX_ITER: 100}}', and "
            "no _BASE_: they are laid over every configuration"
        )
    return [word for key, value in _leaves(content) for word in (key, repr(value))]


def _leaves(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_names(config_files: Iterable[Path]) -> None:
    of_name: dict[str, Path] = {}
    for file in config_files:
        if file.stem in (".", "..") or "|" in file.stem or not file.stem.isprintable():
            raise ConfigError(
                f"{str(file)!r}: a run's folder and its row of the table are named {file.stem!r} "
                "by it, which cannot be: give the file another name"
            )
        if file.stem in of_name:
            raise ConfigError(
                f"{of_name[file.stem]} and {file} would both be run in the folder {file.stem}: "
                "name each file once, and give files of one name different ones"
            )
        of_name[file.stem] = file


def _runs_of(
    file: Path, folds: Sequence[int], seeds: Sequence[int], opts: Sequence[str], output: Path
) -> Iterator[PlannedRun]:
    try:
        cfg = load_config(file, opts)
    except ConfigError as error:
        told = str(error)
        raise ConfigError(told if told.startswith(str(file)) else f"{file}: {told}") from None
    held_out: Sequence[int | None] = folds or [None]
    for fold, seed in product(dict.fromkeys(held_out), dict.fromkeys(seeds or [cfg.SEED])):
        place = Path(file.stem, *([] if fold is None else [f"fold_{fold}"]), f"seed_{seed}")
        own = [] if fold is None else ["DATASETS.FOLD", str(fold)]
        own += ["SEED", str(seed), "OUTPUT_DIR", str(output / place)]
        if cfg.CHECKPOINT.MIRROR_DIR:
            own += ["CHECKPOINT.MIRROR_DIR", str(Path(cfg.CHECKPOINT.MIRROR_DIR) / place)]
        words = (*opts, *own)
        own_cfg = load_config(file, words)
        config = _plain(own_cfg) | _digests_of_folds(own_cfg, file, is_needed=fold is not None)
        yield PlannedRun(file.stem, seed, fold, output / place, file, words, config)


def _digests_of_folds(cfg: CfgNode, file: Path, *, is_needed: bool) -> dict[str, str]:
    """Return what tells whether a file of folds is another one: its path does not."""
    parts = folds_in_use(cfg)
    if is_needed and not parts:
        raise ConfigError(
            f"{file}: --folds would run the same each time: no dataset of DATASETS.TRAIN or TEST "
            "has FOLDS; add the file of d2pd split to DATASETS.REGISTER.<name>"
        )
    return {
        f"DATASETS.REGISTER.{name}.FOLDS, its content": part.digest()
        for name, part in parts.items()
    }


def _plain(cfg: CfgNode) -> dict[str, Any]:
    return {key: strict(value) for key, value in flatten(cfg)}
