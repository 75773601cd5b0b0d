"""What a weights file says of its model: configuration, classes and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.config import config_of_run, config_of_text, load_config
from d2pd.d2 import CfgNode
from d2pd.data.registration import KAIST_CLASSES
from d2pd.errors import MissingFileError
from d2pd.modeling.build import num_classes_of
from d2pd.printable import printable
from d2pd.training.weights.matching import WeightsFile, read_checkpoint, resolve_weights

MOST_CLASSES = 10_000


@dataclass(frozen=True)
class TrainedModel:
    """A model as it was trained.

    Attributes:
        cfg: Its configuration; ``MODEL.WEIGHTS`` is the file.
        weights: Its weights.
        class_names: Of class 0, 1, ...
        facts: What else the file holds: ``iteration``, ``metric``, ``run``.
    """

    cfg: CfgNode
    weights: WeightsFile
    class_names: tuple[str, ...]
    facts: Mapping[str, Any]


def read_trained_model(
    weights: str | Path, config_file: str | Path = "", opts: Sequence[str] = ()
) -> TrainedModel:
    """Read a checkpoint with its configuration; nothing that the file holds is run.

    Args:
        weights: A checkpoint of d2pd, which carries its configuration; any other that a
            configuration is given for; or the ``OUTPUT_DIR`` of a training, whose newest weights
            are taken.
        config_file: In place of what the checkpoint carries. Without either, the ``config.yaml``
            beside the checkpoint is taken.
        opts: ``KEY VALUE ...`` over all that.

    Raises:
        MissingFileError: If the file or the configuration is not there.
        UserError: For all else that is wrong with them.
    """
    path = Path(weights).expanduser() if "://" not in str(weights) else None
    if path is not None and path.is_dir():
        path = newest_weights(path)
    path = resolve_weights(str(weights if path is None else path))
    file, facts = read_checkpoint(path)
    cfg = _config(path, facts, config_file, opts)
    cfg.MODEL.WEIGHTS = str(path)
    return TrainedModel(cfg, file, class_names_of(cfg, facts), facts)


def newest_weights(output_dir: Path) -> Path:
    """Return the weights that a run saved last.

    Raises:
        MissingFileError: If it has not saved any.
    """
    tag = output_dir / "last_checkpoint"
    name = tag.read_text(encoding="utf-8").strip() if tag.is_file() else "model_final.pth"
    path = output_dir / name
    if not path.is_file():
        raise MissingFileError(
            f"no weights in {output_dir}: {path.name} is not there; the training has not saved any "
            "yet, or it was moved: give the OUTPUT_DIR of a run that has some (`make demo` trains "
            "one in minutes), or a file"
        )
    return path


def _config(
    path: Path, facts: Mapping[str, Any], config_file: str | Path, opts: Sequence[str]
) -> CfgNode:
    run, text = facts.get("run"), facts.get("config")
    if config_file:
        return load_config(config_file, opts)
    if isinstance(run, Mapping) and isinstance(run.get("config"), Mapping):
        return config_of_run(run["config"], str(path), opts)
    if isinstance(text, str):
        return config_of_text(text, str(path), opts)
    beside = path.with_name("config.yaml")
    if beside.is_file():
        return load_config(beside, opts)
    raise MissingFileError(
        f"{path} does not carry its configuration, as checkpoints of d2pd do, and there is no "
        f"{beside}: name the file it was trained with, --config-file FILE"
    )


def class_names_of(cfg: CfgNode, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the classes are called; numbers where nothing says it."""
    count = num_classes_of(cfg)
    run = facts.get("run")
    found: Sequence[Any] = run.get("classes", ()) if isinstance(run, Mapping) else ()
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        entry = cfg.DATASETS.REGISTER.get(name)
        if not found and entry is not None:
            is_kaist = entry.FORMAT in ("kaist", "synthetic")
            found = entry.CLASSES or (KAIST_CLASSES if is_kaist else ())
    if isinstance(found, list | tuple) and len(found) == count:
        return tuple(printable(str(name)) for name in found)
    return tuple(f"class {number}" for number in range(min(count, MOST_CLASSES)))
