"""Pictures of a run, from its configuration and from what it has written."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.loader import MappedRecords, first_samples
from d2pd.errors import ConfigError, UserError
from d2pd.modeling.network import map_sizes
from d2pd.modeling.ssd_parts import (
    build_anchor_shapes,
    build_mask_painter,
    read_extra_layers,
)
from d2pd.reporting.curves import draw_curves
from d2pd.reporting.gallery import draw_batch, draw_detections
from d2pd.reporting.model_card.write import write_model_card
from d2pd.reporting.report.write import write_report

logger = logging.getLogger(__name__)

PREVIEW_SAMPLES = 8


def write_train_batch(cfg: CfgNode, dataset: MappedRecords, folder: Path) -> Path | None:
    """Draw the first samples of the training exactly as the model gets them.

    Where SSDSeg has segmentation layers, the mask of each is drawn too.

    Args:
        cfg: Its training datasets registered.
        dataset: Of ``build_train_dataset(cfg)``.
        folder: ``train_batch.png`` is written here; made if it is not there.

    Returns:
        The path of the picture; None if it could not be written, which is a warning.

    Raises:
        ConfigError: If the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"OUTPUT_DIR {folder} cannot be made: {error}") from error
    path = folder / "train_batch.png"
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes
    samples = first_samples(dataset, PREVIEW_SAMPLES)

    def draw() -> None:
        masks = painted_masks(cfg, samples)
        draw_batch(samples, classes, path, image_format=cfg.INPUT.FORMAT, masks=masks)

    return path if attempt(path.name, draw) else None


def painted_masks(
    cfg: CfgNode, samples: Sequence[Mapping[str, Any]]
) -> list[dict[str, np.ndarray]]:
    """Paint the masks that segmentation layers learn from samples, without a batch's padding.

    Args:
        cfg: Of the model.
        samples: With labels.

    Returns:
        For each sample, (rows, columns) of ``modeling.segmentation.paint_mask`` by the name of the
        map; nothing at all where the model has no such layers.

    Raises:
        ConfigError: If the keys of the maps do not fit together, or a sample is too small for them.
    """
    if cfg.MODEL.META_ARCHITECTURE != "SSDSeg" or not any(cfg.MODEL.SSD.SEG.MAPS):
        return []
    painter = build_mask_painter(cfg, build_anchor_shapes(cfg))
    layers = read_extra_layers(cfg)
    painted = []
    for sample in samples:
        height, width = sample["image"].shape[-2:]
        size = (height, width)
        boxes = sample["instances"].gt_boxes.tensor
        masks = painter.masks(size, size, map_sizes(size, layers), boxes, sample["ignore_boxes"])
        painted.append({name: mask.numpy() for name, mask in masks.items()})
    return painted


def write_pictures(cfg: CfgNode) -> dict[str, Path]:
    """Draw curves, detections beside labels, the report and the card, from what the run has left.

    Returns:
        What is drawn -> the path of the file.
    """
    output = Path(cfg.OUTPUT_DIR)
    pictures: dict[str, Path] = {}
    metrics, curves = output / "metrics.json", output / "curves.png"
    if metrics.is_file() and attempt("curves", lambda: draw_curves(metrics, curves)):
        pictures["curves"] = curves
    names = (*cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST)
    attempt("detections", lambda: pictures.update(draw_found(cfg, names)))
    attempt("the report", lambda: pictures.update(report=write_report(output)))
    attempt("the model card", lambda: pictures.update({"model card": write_model_card(output)}))
    return pictures


def attempt(what: str, draw: Callable[[], object]) -> bool:
    """Draw, and tell whether that went well; if not, say so: the training is worth more."""
    try:
        draw()
    except Exception as error:  # whatever it is: no picture is worth a run
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        logger.warning("%s cannot be drawn: %s", what, reason)
        return False
    return True


def draw_found(cfg: CfgNode, names: Sequence[str]) -> dict[str, Path]:
    """Draw detections beside labels, from the predictions that an evaluation has written.

    Args:
        cfg: Of the run.
        names: Datasets; those without predictions are passed over.

    Returns:
        What is drawn -> the path of the picture.
    """
    output = Path(cfg.OUTPUT_DIR)
    pictures: dict[str, Path] = {}
    for name in names:
        found = output / "inference" / name / "predictions.json"
        if not found.is_file():
            continue
        path = output / f"detections_{name}.png"
        draw_detections(
            DatasetCatalog.get(name),
            json.loads(found.read_text(encoding="utf-8"))["predictions"],
            MetadataCatalog.get(name).thing_classes,
            path,
            modality=cfg.INPUT.MODALITY,
        )
        pictures[f"detections on {name}"] = path
    return pictures
