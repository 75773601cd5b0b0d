"""The records of registered datasets, as training and evaluation take them."""

import logging
from collections.abc import Sequence
from typing import Any

from d2pd.d2 import BoxMode, CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.cleaning import drop_images_without_objects
from d2pd.data.registration import RegisteredDataset
from d2pd.errors import AnnotationError, ConfigError

logger = logging.getLogger(__name__)

Record = dict[str, Any]


def load_records(dataset_name: str, *, cleaned: bool = True, quiet: bool = False) -> list[Record]:
    """Load a registered dataset, with every box as XYXY_ABS whatever its registration left.

    Args:
        dataset_name: As in the catalog.
        cleaned: False gives the boxes as the label file has them, faults included; a dataset that
            d2pd did not register comes as its own function gives it.
        quiet: Leave what cleaning did out of the log, where it stands once.

    Raises:
        KeyError: If no dataset of that name is registered.
    """
    if dataset_name in DatasetCatalog and (quiet or not cleaned):
        load: Any = DatasetCatalog[dataset_name]
        if isinstance(load, RegisteredDataset):
            return load.read()[0] if cleaned else load.read_uncleaned()
    return [_as_xyxy(record) for record in DatasetCatalog.get(dataset_name)]


def load_train_records(cfg: CfgNode, *, cleaned: bool = True, quiet: bool = False) -> list[Record]:
    """Load the records of ``DATASETS.TRAIN``, one dataset after the other.

    Images without an object are dropped where ``DATALOADER.FILTER_EMPTY_ANNOTATIONS`` says so,
    and their count is logged.

    Args:
        cfg: Read here: DATASETS.TRAIN and DATALOADER.
        cleaned: See ``load_records``.
        quiet: Log nothing.

    Raises:
        ConfigError: If no dataset is named, or two have different classes.
        AnnotationError: If no image is left.
    """
    names = list(cfg.DATASETS.TRAIN)
    if not names:
        raise ConfigError('DATASETS.TRAIN is empty; name a dataset, such as ("kaist_train",)')
    _check_same_classes(names)
    records = [
        record for name in names for record in load_records(name, cleaned=cleaned, quiet=quiet)
    ]
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        total = len(records)
        records, report = drop_images_without_objects(records)
        if len(records) < total and not quiet:
            logger.info("%s", report.summary())
    if not records:
        raise AnnotationError(
            f"{', '.join(names)}: no training image with an object is left; look at the label "
            "file, or set DATALOADER.FILTER_EMPTY_ANNOTATIONS False to train on empty images"
        )
    return records


def _as_xyxy(record: Record) -> Record:
    annotations = record.get("annotations", [])
    if all(annotation["bbox_mode"] == BoxMode.XYXY_ABS for annotation in annotations):
        return record
    converted = [
        {
            **annotation,
            "bbox": BoxMode.convert(
                list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS
            ),
            "bbox_mode": BoxMode.XYXY_ABS,
        }
        for annotation in annotations
    ]
    return {**record, "annotations": converted}


def _check_same_classes(names: Sequence[str]) -> None:
    classes = [list(MetadataCatalog.get(name).get("thing_classes") or []) for name in names]
    for name, own in zip(names[1:], classes[1:], strict=True):
        if own != classes[0]:
            raise ConfigError(
                f"DATASETS.TRAIN: {names[0]} has the classes {', '.join(classes[0])}, {name} has "
                f"{', '.join(own)}; datasets trained on together need the same classes in the "
                "same order (DATASETS.REGISTER.<name>.CLASSES)"
            )
