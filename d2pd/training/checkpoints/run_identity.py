"""What a run is, kept in its checkpoints, and what differs when it is resumed."""

import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import torchvision

from d2pd import __version__
from d2pd.config_words import flatten
from d2pd.d2 import ENGINE, CfgNode, MetadataCatalog, comm
from d2pd.data.registration import folds_in_use
from d2pd.errors import WeightsError

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]

REFUSED, DECISION, NONE, CHANGED = "refused", "decision", "none", "changed"
VERDICTS: tuple[tuple[str, str], ...] = (
    ("MODEL.DEVICE", NONE),  # the device itself is compared
    ("MODEL.WEIGHTS", NONE),  # read by a run that starts
    ("MODEL.*_TEST", DECISION),
    ("MODEL.*", REFUSED),
    ("SOLVER.OPTIMIZER", REFUSED),
    ("SOLVER.CHECKPOINT_PERIOD", DECISION),
    ("SOLVER.UNIT", NONE),  # all lengths are iterations by now
    ("BEST_CHECKPOINT.*", DECISION),
    ("EARLY_STOPPING.*", DECISION),
    ("VALIDATION.*", DECISION),
    ("TEST.*", DECISION),
    ("INPUT.*_TEST", DECISION),
    ("DATASETS.TEST", DECISION),
    ("DATASETS.FINAL_TEST", DECISION),
    ("DATASETS.FOLD", REFUSED),  # it would be tested on images it has learnt from
    ("DATASETS.ROOT", NONE),  # the labels themselves are compared
    ("DATASETS.REGISTER.*", NONE),
    ("DATALOADER.NUM_WORKERS", NONE),
    ("CHECKPOINT.*", NONE),
    ("OUTPUT_DIR", NONE),
    ("VERSION", NONE),
    ("WANDB.*", NONE),
    ("*", CHANGED),
)
"""What another value of a key means; the first pattern that fits decides."""

FOLDS_OF = "folds of "
"""Before the name of a dataset; another digest means that images moved to other folds."""

_ABSENT = "(not there)"
_LONGEST = 120  # letters of a value in a message


@dataclass(frozen=True)
class Differences:
    """What differs between a saved run and the one that goes on, ``NAME: old -> new`` each.

    Attributes:
        refused: Another model, or one that has learnt from what it would be tested on: the
            weights cannot be gone on from.
        changed: Allowed, and the weights will not be those of a run never stopped.
        decisions: When and by what the model is judged; the weights stay the same.
    """

    refused: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()


def describe_run(cfg: CfgNode, records: Sequence[Record]) -> dict[str, Any]:
    """Describe all that the weights of a run depend on, as plain data.

    Args:
        cfg: The whole configuration, its lengths resolved and its device chosen.
        records: What training sees, as ``load_train_records`` returns it.
    """
    return {
        "config": {key: json.dumps(value, default=str) for key, value in flatten(cfg)},
        "classes": list(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes),
        "labels": digest_labels(records),
        "num_images": len(records),
        "folds": {name: part.digest() for name, part in folds_in_use(cfg).items()},
        "engine": ENGINE,
        "versions": {
            "d2pd": __version__,
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
        "device": device_model(cfg.MODEL.DEVICE),
        "threads": torch.get_num_threads(),
        "world_size": comm.get_world_size(),
    }


def digest_labels(records: Sequence[Record]) -> str:
    """Return a SHA-256 over the labels in their order, wherever the dataset lies.

    Args:
        records: Of each, its name, and of each box its corners, class and whether it is ignored,
            go into the digest.
    """
    paths = [os.path.abspath(record["file_name"]) for record in records]
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    digest = hashlib.sha256()
    for record, path in zip(records, paths, strict=True):
        # KAIST's own name: which of its two pictures is the file depends on what is there.
        name = record.get("im_name") or Path(os.path.relpath(path, root)).as_posix()
        boxes = [
            [
                *(float(corner) for corner in annotation["bbox"]),
                int(annotation["category_id"]),
                bool(annotation.get("ignore", 0) or annotation.get("iscrowd", 0)),
            ]
            for annotation in record.get("annotations", [])
        ]
        digest.update(json.dumps([name, boxes]).encode() + b"\n")
    return digest.hexdigest()


def device_model(device: str) -> str:
    """Return what computes, such as ``cuda: NVIDIA H200``; two of one name give the same bits."""
    wanted = torch.device(device)
    if wanted.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(wanted)}"
    return f"cpu: {_cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def compare_runs(saved: Mapping[str, Any], current: Mapping[str, Any]) -> Differences:
    """Compare what a checkpoint says of its run with the run that is to go on from it.

    Args:
        saved: What ``describe_run`` gave then; of any form, as a file may hold anything.
        current: What it gives now.
    """
    found: dict[str, list[str]] = {REFUSED: [], CHANGED: [], DECISION: [], NONE: []}
    before, now = _values(saved), _values(current)
    for name in [*now, *(name for name in before if name not in now)]:
        old, new = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if old == new:
            continue
        verdict = _verdict(name)
        if verdict == REFUSED and _ABSENT in (old, new):
            verdict = CHANGED  # another version's key: the weights' shapes will tell
        found[verdict].append(f"{name}: {_short(old)} -> {_short(new)}")
    return Differences(tuple(found[REFUSED]), tuple(found[CHANGED]), tuple(found[DECISION]))


def check_same_run(
    saved: Mapping[str, Any] | None, current: Mapping[str, Any], source: str | Path
) -> Differences | None:
    """Refuse to go on from a run of another model, of other classes or of another fold.

    Args:
        saved: ``run`` of the checkpoint; None where it does not say.
        current: What ``describe_run`` gives now.
        source: The checkpoint, for the message.

    Returns:
        What else differs; None where nothing could be compared.

    Raises:
        WeightsError: Listing what makes it another one.
    """
    if saved is None or not isinstance(saved.get("config"), Mapping):
        return None
    differences = compare_runs(saved, current)
    if differences.refused:
        told = "; ".join(differences.refused)
        if any(line.startswith(("DATASETS.FOLD:", FOLDS_OF)) for line in differences.refused):
            raise WeightsError(
                f"cannot resume: {source} has learnt from images that it would be tested on "
                f"({told}): resume with the fold of the run, or start a new run in another "
                "OUTPUT_DIR, not from these weights"
            )
        raise WeightsError(
            f"cannot resume: {source} is of another model ({told}): "
            "resume with the configuration of the run, or start a new one in another OUTPUT_DIR "
            f"(MODEL.WEIGHTS {source} begins with its weights)"
        )
    return differences


def log_comparison(differences: Differences | None, current: Mapping[str, Any]) -> None:
    """Log what differs, and how exact the run that goes on is.

    Args:
        differences: What ``check_same_run`` returned.
        current: What ``describe_run`` gives now.
    """
    if differences is None:
        logger.warning(
            "The checkpoint does not say what run it is of (Detectron2's and older ones do not): "
            "configuration and labels could not be compared"
        )
        return
    for line in differences.decisions:
        logger.info("Changes what is measured and decided from here on, no weights: %s", line)
    for line in differences.changed:
        logger.warning("No longer exact: %s", line)
    if not differences.changed:
        logger.info("%s", _exactness(current))


def _exactness(current: Mapping[str, Any]) -> str:
    is_on_gpu = str(current["device"]).startswith("cuda")
    if is_on_gpu and current["config"].get("DETERMINISTIC") != "true":
        return (
            "Order, samples, states and random numbers go on exactly; only the arithmetic of the "
            "GPU does not (DETERMINISTIC True makes it so, at a cost)"
        )
    return "The run goes on exactly: its weights will be those of a run never stopped"


def _verdict(name: str) -> str:
    if name == "classes" or name.startswith(FOLDS_OF):
        return REFUSED
    return next(verdict for pattern, verdict in VERDICTS if fnmatchcase(name, pattern))


def _values(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return one value by each name: the configuration's keys, then what else describes a run."""
    return {name: _comparable(value) for name, value in _entries(run)}


def _entries(run: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    config, versions, folds = (run.get(key) for key in ("config", "versions", "folds"))
    for key, text in config.items() if isinstance(config, Mapping) else ():
        yield " ".join(str(key).split()), _parsed(text)
    for key, version in versions.items() if isinstance(versions, Mapping) else ():
        yield f"{' '.join(str(key).split())} version", version
    for key, digest in folds.items() if isinstance(folds, Mapping) else ():
        yield f"{FOLDS_OF}{' '.join(str(key).split())}", digest
    yield "classes", run.get("classes", _ABSENT)
    yield "training labels", run.get("labels", _ABSENT)
    yield "training images", run.get("num_images", _ABSENT)
    for key in ("engine", "device", "threads"):
        yield key, run.get(key, _ABSENT)
    yield "processes", run.get("world_size", _ABSENT)


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text


def _comparable(value: Any) -> Any:
    """Return a value as JSON has it: a file may hold tensors, which do not compare."""
    try:
        return json.loads(json.dumps(value, default=str))
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__} that is no value"


def _short(value: Any) -> str:
    text = _ABSENT if value == _ABSENT else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
