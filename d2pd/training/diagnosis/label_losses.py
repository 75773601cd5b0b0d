"""The loss of each image of a label file under a model: high ones hint at wrong labels."""

import logging
from pathlib import Path
from typing import Any

from tqdm import tqdm

from d2pd.config import load_config
from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.loader import build_diagnosis_loader
from d2pd.data.records import load_records
from d2pd.data.registration import register_from_config
from d2pd.errors import ConfigError, UserError
from d2pd.training.diagnosis.diagnose import build_measure
from d2pd.training.preflight import check_datasets

logger = logging.getLogger(__name__)


def measure_label_losses(
    annotations: Path, config_file: str, weights: Path
) -> dict[int | str, float]:
    """Measure the losses of the images of a label file, cleaned as for training.

    Args:
        annotations: The label file; the configuration must have a dataset of it.
        config_file: Of the training.
        weights: The checkpoint.

    Returns:
        ``total_loss`` by image id (a CSV's images are counted from 0), images whose picture cannot
        be used left out. NaN where the model gave none.

    Raises:
        UserError: If no dataset is of that file, or something is missing.
    """
    cfg = load_config(config_file, ["MODEL.WEIGHTS", str(weights)])
    register_from_config(cfg)
    names = _datasets_of(annotations, cfg, config_file)
    check_datasets(cfg, names)
    by_id = {record["image_id"]: record for name in names for record in load_records(name)}
    records = list(by_id.values())  # once, where two datasets share images
    measure = build_measure(cfg)
    losses: dict[int | str, float] = {}
    unusable: list[UserError] = []
    items = build_diagnosis_loader(cfg, records)
    for record, (item,) in zip(
        records, tqdm(items, "Losses", unit="image", disable=None), strict=True
    ):
        if isinstance(item, UserError):
            unusable.append(item)
            continue
        loss = measure(item).losses.get("total_loss", float("nan"))
        losses[record["image_id"]] = loss
    if unusable:
        logger.warning("%d pictures cannot be used; first: %s", len(unusable), unusable[0])
    return losses


def _datasets_of(annotations: Path, cfg: CfgNode, config_file: str) -> list[str]:
    """Name the registered datasets that are read from a label file."""
    names = []
    for name in cfg.DATASETS.REGISTER:
        metadata: Any = MetadataCatalog.get(name)
        file = Path(metadata.get("annotations_file") or "")
        if name in DatasetCatalog and file.is_file() and file.samefile(annotations):
            names.append(name)
    if not names:
        raise ConfigError(
            f"{config_file}: no dataset of DATASETS.REGISTER is read from {annotations}; name the "
            "configuration that was trained on it, or correct DATASETS.ROOT"
        )
    return names
