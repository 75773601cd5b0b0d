"""Everything a run needs, checked before anything is built: what is missing, each with its cure.

A person with a deadline wants to hear of the labels, the weights and the GPU at once, not one a
try.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from d2pd.config_keys import REGISTER_DEFAULTS
from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.augmentation import build_augmentation
from d2pd.data.dataset_checks import PHOTO_FORMATS, missing_files, unreadable_labels
from d2pd.errors import ConfigError, DeviceError, MissingFileError, UserError
from d2pd.evaluation.build import miss_rate_protocol
from d2pd.modeling.network import map_sizes
from d2pd.modeling.ssd_parts import read_extra_layers
from d2pd.training.checkpoints.checkpoint_choice import Choice, choose_checkpoint
from d2pd.training.checkpoints.mirror import check_mirror
from d2pd.training.deciding.decisions import (
    build_best_model,
    build_early_stopping,
    validation_dataset,
)
from d2pd.training.run_folder import held_run, is_of_run
from d2pd.training.starting_model import check_model, starting_weights
from d2pd.training.step import check_step
from d2pd.training.writers.wandb import check_wandb

LOG_FILES = (".txt", ".log")
"""What Detectron2 takes a place to log to for a file by."""


class PreflightError(UserError):
    """A run cannot start; the message lists everything that is missing, a line each."""


def check_run(
    cfg: CfgNode, *, resume: bool = False, eval_only: bool = False, overwrite: bool = False
) -> Choice | None:
    """Check device, datasets, model, weights and output folder; fetch weights that are a URL.

    Args:
        cfg: The whole configuration, its datasets registered. ``MODEL.DEVICE`` "auto" and the
            location of the weights are resolved in place.
        resume: The run goes on from the newest checkpoint in ``OUTPUT_DIR`` or its mirror.
        eval_only: Nothing is trained.
        overwrite: A run that ``OUTPUT_DIR`` holds is to be deleted.

    Returns:
        The checkpoint to go on from, or to evaluate; None where it is not to be resumed.

    Raises:
        PreflightError: Listing all problems, each with the way out. Nothing was written.
    """
    found: list[Choice] = []
    checks: list[Callable[[], object]] = [
        lambda: _check_device(cfg),
        lambda: _check_named_datasets(cfg, eval_only),
        lambda: miss_rate_protocol(cfg),
        lambda: _check_augmentation(cfg),
        lambda: check_model(cfg, None if resume else starting_weights(cfg, eval_only), eval_only),
        lambda: _check_output(cfg, resume or eval_only or overwrite),
    ]
    if overwrite:
        checks.append(lambda: _check_overwrite(cfg, resume, eval_only))
    if resume:
        checks.append(lambda: found.append(_choose(cfg, eval_only)))
    if not eval_only:
        checks += [
            lambda: check_step(cfg),
            lambda: _check_decisions(cfg),
            lambda: check_wandb(cfg),
        ]
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.extend(str(error).split("\n"))
    problems = list(dict.fromkeys(problems))  # two checks may trip over the same value
    if problems:
        count = f"{len(problems)} things are" if len(problems) > 1 else "one thing is"
        lines = "\n".join(f"  {number}. {text}" for number, text in enumerate(problems, 1))
        raise PreflightError(f"{count} in the way of this run:\n{lines}")
    return found[0] if found else None


def _check_named_datasets(cfg: CfgNode, eval_only: bool) -> None:
    if eval_only:
        check_datasets(cfg, [*cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST], "DATASETS.TEST")
        return
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST]
    names += [name for name in [validation_dataset(cfg)] if name and name not in names]
    check_datasets(cfg, names if cfg.DATASETS.TRAIN else [])


def _choose(cfg: CfgNode, eval_only: bool) -> Choice:
    needs = () if eval_only else ("trainer",)
    return choose_checkpoint(cfg.OUTPUT_DIR, cfg.CHECKPOINT.MIRROR_DIR, needs=needs)


def _check_decisions(cfg: CfgNode) -> None:
    """See that the metrics to decide by can be measured."""
    build_early_stopping(cfg)
    build_best_model(cfg)


def resolve_device(device: str) -> str:
    """Return the device to run on.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        DeviceError: If a GPU is asked for and this machine, or this torch, has none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise DeviceError(f"MODEL.DEVICE is {device!r}; allowed: auto, cpu, cuda, cuda:N") from None
    count = torch.cuda.device_count()
    if wanted.type not in ("cpu", "cuda"):
        raise DeviceError(f"MODEL.DEVICE is {device!r}; allowed: auto, cpu, cuda, cuda:N")
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        raise DeviceError(
            f"MODEL.DEVICE is {device!r}, but torch {torch.__version__} sees {count} GPUs here; "
            "use MODEL.DEVICE auto or cpu, or choose a GPU runtime (Colab: Runtime > Change "
            "runtime type); `python -m d2pd doctor` tells more"
        )
    return device


def check_gpu_count(wanted: int, device: str = "auto") -> None:
    """Check that this machine has a GPU for each process of ``--num-gpus``.

    Args:
        wanted: Processes on this machine.
        device: ``MODEL.DEVICE``; with ``cpu`` any number of processes share it.

    Raises:
        DeviceError: If there are fewer (one process runs without any), if the number is negative,
            or if the device is one GPU for several processes.
    """
    if wanted < 0:
        raise DeviceError(f"--num-gpus is {wanted}: a number of processes, 1 or more")
    count = torch.cuda.device_count()
    if device != "cpu" and wanted > max(1, count):
        raise DeviceError(
            f"--num-gpus is {wanted}, but torch {torch.__version__} sees {count} GPUs here; use "
            f"--num-gpus 1, or MODEL.DEVICE cpu for {wanted} processes on the CPU"
        )
    if wanted > 1 and device.startswith("cuda:"):
        raise DeviceError(
            f"MODEL.DEVICE is {device}, one GPU for {wanted} processes: use MODEL.DEVICE cuda, and "
            "CUDA_VISIBLE_DEVICES to choose which"
        )


def _check_device(cfg: CfgNode) -> None:
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)


def _check_augmentation(cfg: CfgNode) -> None:
    for is_train in (True, False):
        build_augmentation(cfg, is_train=is_train)
    if cfg.MODEL.META_ARCHITECTURE == "SSDSeg" and len(cfg.INPUT.FIXED_SIZE):
        lowest = min([1.0, *cfg.INPUT.AUG.SCALE_JITTER])
        height, width = (max(1, round(side * lowest)) for side in cfg.INPUT.FIXED_SIZE)
        map_sizes((height, width), read_extra_layers(cfg))


def check_datasets(cfg: CfgNode, names: Sequence[str], key: str = "DATASETS.TRAIN") -> None:
    """Check that datasets are described, that their files are there and can be read.

    Args:
        cfg: Its datasets registered.
        names: Names to check.
        key: Where the first name comes from, for the message when there is none.

    Raises:
        ConfigError: If there is no name, the classes are not those of the model, or a dataset does
            not have the images that ``INPUT.MODALITY`` asks for.
        MissingFileError: Naming every dataset and file that is missing, a line each, and the
            frames that lack a camera.
    """
    if not names:
        raise ConfigError(
            f"{key} is empty: name a dataset there and describe it under "
            f"DATASETS.REGISTER.<name> ({', '.join(REGISTER_DEFAULTS)})"
        )
    problems = [
        f"dataset {name!r} is not registered; describe it under DATASETS.REGISTER.{name}"
        for name in dict.fromkeys(names)
        if name not in DatasetCatalog
    ]
    problems += missing_files(cfg, list(dict.fromkeys(names)))
    problems = problems or unreadable_labels(names, cfg.INPUT.MODALITY)
    if problems:
        raise MissingFileError("\n".join(problems))
    check_classes(cfg, names)
    photos = [n for n in names if MetadataCatalog.get(n).get("annotations_format") in PHOTO_FORMATS]
    if photos and cfg.INPUT.MODALITY != "visible":
        raise ConfigError(
            f"INPUT.MODALITY is {cfg.INPUT.MODALITY}, but {', '.join(dict.fromkeys(photos))} has "
            "no lwir folders beside its visible ones, as FORMAT kaist has; set INPUT.MODALITY "
            "visible"
        )


def check_classes(cfg: CfgNode, names: Sequence[str]) -> None:
    """Compare ``MODEL.ROI_HEADS.NUM_CLASSES`` with the classes of datasets.

    Raises:
        ConfigError: If they differ, or if two datasets differ from one another.
    """
    first = list(MetadataCatalog.get(names[0]).thing_classes)
    for name in names:
        classes = list(MetadataCatalog.get(name).thing_classes)
        if classes != first:
            raise ConfigError(
                f"datasets disagree on classes: {names[0]} has {first}, {name} has {classes}; set "
                f"DATASETS.REGISTER.{name}.CLASSES"
            )
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if count != len(first):
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {count}, but {names[0]} has {len(first)} classes "
            f"({', '.join(first)}); set MODEL.ROI_HEADS.NUM_CLASSES {len(first)}"
        )


def _check_overwrite(cfg: CfgNode, resume: bool, eval_only: bool) -> None:
    """See that nothing is deleted that the run itself needs."""
    for is_given, flag in ((resume, "--resume"), (eval_only, "--eval-only")):
        if is_given:
            raise ConfigError(
                f"{flag} and --overwrite contradict each other: it needs what --overwrite deletes; "
                "leave one of them out"
            )
    path = cfg.MODEL.WEIGHTS
    if path and is_of_run(path, cfg.OUTPUT_DIR, cfg.CHECKPOINT.MIRROR_DIR):
        raise ConfigError(
            f"--overwrite would delete MODEL.WEIGHTS {path}: move the file elsewhere first, or "
            "choose another OUTPUT_DIR"
        )


def _check_output(cfg: CfgNode, goes_on: bool) -> None:
    folder = Path(cfg.OUTPUT_DIR)
    if "\0" in cfg.OUTPUT_DIR:
        raise ConfigError(f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be made: no name holds a NUL")
    if cfg.OUTPUT_DIR.endswith(LOG_FILES):
        raise ConfigError(
            f"OUTPUT_DIR {folder} is to be a folder, and a name with {folder.suffix} is taken for "
            "the file of the log: choose another one"
        )
    # The nearest folder that is there: what is not there yet would be made in it.
    try:
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:  # a name that is too long
        raise ConfigError(f"OUTPUT_DIR {folder} cannot be made: {error.strerror}") from error
    if not place.is_dir():
        raise ConfigError(f"OUTPUT_DIR {folder} cannot be made: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"OUTPUT_DIR {folder} cannot be written: no permission in {place}")
    mirror = cfg.CHECKPOINT.MIRROR_DIR
    if mirror:
        check_mirror(mirror, folder)
    for name, place in (("OUTPUT_DIR", folder), ("CHECKPOINT.MIRROR_DIR", mirror)):
        held = held_run(place) if place else None
        if held and not goes_on:
            raise ConfigError(
                f"{name} {place} already holds a run ({held}); --resume goes on with it, another "
                "folder starts a new one, --overwrite deletes it; nothing was written"
            )
