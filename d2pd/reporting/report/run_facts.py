"""What a run is, from its configuration and its numbers: facts, changed keys, what is absent."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2pd.config_keys import default_config
from d2pd.config_words import flatten
from d2pd.d2 import CfgNode
from d2pd.data.cleaning import CleaningReport, drop_images_without_objects
from d2pd.data.modality import CAMERAS
from d2pd.data.records import Record
from d2pd.errors import UserError
from d2pd.reporting.report.content import DatasetPart, Figure
from d2pd.reporting.report.stored import Records, read_records
from d2pd.reporting.report.training import History
from d2pd.reporting.run_metrics import VALIDATION


def facts(cfg: CfgNode, history: History, output_dir: Path) -> list[tuple[str, str]]:
    """Return what one asks of a run first, and its words."""
    solver, pictures = cfg.SOLVER, cfg.INPUT
    train = ", ".join(f"{name} ({_image_count(cfg, name)})" for name in cfg.DATASETS.TRAIN)
    found = [
        ("Model", model_words(cfg)),
        ("Began from", cfg.MODEL.WEIGHTS or "random weights"),
        ("Training data", train or "none"),
        ("Test data", ", ".join((*cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST)) or "none"),
        (
            "Pictures",
            f"{' and '.join(CAMERAS[pictures.MODALITY])}, {size_words(pictures)} in tests",
        ),
        ("Optimizer", f"{solver.OPTIMIZER}, rate {solver.BASE_LR:g}, {solver.LR_SCHEDULER_NAME}"),
        ("Length", f"{solver.MAX_ITER:,} iterations of {solver.IMS_PER_BATCH} images"),
        ("Seed", str(cfg.SEED)),
        ("Device", cfg.MODEL.DEVICE),
    ]
    times = [value for _, value in history.series.get("time", [])]
    if times:
        found.append(("Speed", f"{statistics.median(times):.3g} s an iteration (median)"))
    return [*found, ("Folder", str(output_dir.resolve()))]


def absent_words(cfg: CfgNode, history: History) -> list[str]:
    """Say what the run lacks, why, and how to get it."""
    absent = [history.trouble] if history.trouble else []
    has_validation = any(name.startswith(VALIDATION) for name in history.series)
    if history.series and not has_validation:
        absent.append(
            "No validation loss: metrics.json holds none; VALIDATION.PERIOD says when it is "
            "measured, on VALIDATION.DATASET or the first of DATASETS.TEST."
        )
    if not cfg.DATASETS.TEST:
        absent.append(
            "No evaluation: DATASETS.TEST is empty; name a dataset there, and train or evaluate "
            "(--eval-only --resume) again."
        )
    return absent


def figures(cfg: CfgNode, history: History, datasets: Sequence[DatasetPart]) -> list[Figure]:
    """Choose the numbers for the head: how far, the best watched values, then the datasets'."""
    last = history.last_iteration()
    chosen = []
    if last is not None:
        done = min(last + 1, cfg.SOLVER.MAX_ITER)
        chosen.append(Figure("Iterations", f"{done:,}", f"of {cfg.SOLVER.MAX_ITER:,}"))
    for name, (iteration, value) in sorted(history.best.items()):
        chosen.append(Figure(f"Best {name}", f"{value:.4g}", f"at iteration {iteration:,}"))
    for part in datasets:
        for figure in part.figures[:3]:
            chosen.append(Figure(figure.label, figure.value, f"{part.name} · {figure.detail}"))
    return chosen[:10]


def changes(cfg: CfgNode) -> list[tuple[str, str, str]]:
    """Return each key that differs from its default, its value and the default."""
    defaults = dict(flatten(default_config()))
    return [
        (key, str(_plain(value)), str(_plain(defaults[key])) if key in defaults else "not there")
        for key, value in flatten(cfg)
        if key not in defaults or _plain(value) != _plain(defaults[key])
        if not (key.startswith("DATASETS.REGISTER.") and value in ("", [], ()))
    ]


def model_words(cfg: CfgNode) -> str:
    """Say what detector it is, and on which backbone."""
    model, backbone = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME
    if (model, cfg.MODEL.ROI_HEADS.NAME) == ("GeneralizedRCNN", "StandardROIHeads"):
        model = "Mask R-CNN" if cfg.MODEL.MASK_ON else "Faster R-CNN"
    if (model, cfg.MODEL.ROI_HEADS.NAME) == ("GeneralizedRCNN", "CascadeROIHeads"):
        model = "Cascade Mask R-CNN" if cfg.MODEL.MASK_ON else "Cascade R-CNN"
    if backbone == "build_resnet_fpn_backbone":
        kind = "ResNet" if cfg.MODEL.RESNETS.NUM_GROUPS == 1 else "ResNeXt"
        backbone = f"{kind}-{cfg.MODEL.RESNETS.DEPTH} with FPN"
    return f"{model}, {backbone}"


def trained_on(cfg: CfgNode, records: Records) -> tuple[list[Record], CleaningReport]:
    """Return the records of a training dataset that are trained on, and which images are not."""
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        return drop_images_without_objects(records.cleaned)
    return records.cleaned, CleaningReport()


def size_words(pictures: CfgNode) -> str:
    """Say what size pictures have in tests."""
    if pictures.FIXED_SIZE:
        height, width = pictures.FIXED_SIZE
        return f"{height} px high and {width} wide"
    if pictures.MIN_SIZE_TEST == 0:
        return "of their own size"
    return f"short side {pictures.MIN_SIZE_TEST} px"


def _image_count(cfg: CfgNode, name: str) -> str:
    """Count the images of a training dataset that are trained on."""
    try:
        records = read_records(name)
    except UserError:
        return "labels not here"
    used, _ = trained_on(cfg, records)
    total = len(records.uncleaned)
    return f"{len(used):,} images" if len(used) == total else f"{len(used):,} of {total:,} images"


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
