"""Names for datasets: what ``DatasetCatalog`` and ``MetadataCatalog`` know of a label file."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from d2pd.config_keys import REGISTER_DEFAULTS
from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.annotations.labels import PathLike, Record
from d2pd.data.cleaning import CleaningReport, clean_records
from d2pd.data.dataset_source import FORMATS, KAIST_CLASSES, DatasetSource
from d2pd.data.drawn_on_first_use import DrawingSize
from d2pd.data.folds import PARTS, FoldPart
from d2pd.errors import ConfigError

logger = logging.getLogger(__name__)


class RegisteredDataset:
    """What ``DatasetCatalog`` calls: reads and cleans the labels anew on every call."""

    def __init__(self, name: str, source: DatasetSource) -> None:
        self.name = name
        self.source = source
        self._is_logged = False

    def __call__(self) -> list[Record]:
        """Give the records, images without objects included.

        Raises:
            UserError: If the labels cannot be read; the message names file and row.
        """
        records, report = self.read()
        if not self._is_logged:
            if self.source.fold_part is not None:
                logger.info("%s: %s", self.name, self.source.fold_part.describe())
            for line in report.summary().splitlines():
                logger.info("%s: %s", self.name, line)
            self._is_logged = True
        return records

    def read(self) -> tuple[list[Record], CleaningReport]:
        """Give the records and what cleaning did to them, without a word in the log.

        Raises:
            UserError: If the labels cannot be read; the message names file and row.
        """
        return clean_records(self.read_uncleaned(), min_size=self.source.min_box_size)

    def read_uncleaned(self) -> list[Record]:
        """Give the records with every box as the file has it, faults included.

        Raises:
            UserError: If the labels cannot be read; the message names file and row.
        """
        labels = self.source.read(self.source.images)
        if MetadataCatalog.get(self.name).get("thing_classes") != list(labels.class_names):
            _describe(self.name, self.source, labels.class_names)
        return labels.records


def register_kaist(
    name: str,
    annotations: PathLike,
    images: PathLike,
    *,
    class_names: Sequence[str] = KAIST_CLASSES,
    image_list: PathLike | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    min_box_size: float = 1.0,
) -> None:
    """Register KAIST JSON labels; arguments as for ``read_kaist_json``. Safe to call again.

    Raises:
        ConfigError: If someone else registered the name.
    """
    options = {
        "image_list": Path(image_list) if image_list else None,
        "include": tuple(include),
        "exclude": tuple(exclude),
    }
    source = DatasetSource(
        "kaist", Path(annotations), Path(images), tuple(class_names), min_box_size, options
    )
    _register(name, source)


def register_csv(
    name: str,
    annotations: PathLike,
    images: PathLike,
    *,
    class_names: Sequence[str] = (),
    box_format: str = "xyxy",
    columns: Sequence[str] = (),
    min_box_size: float = 1.0,
) -> None:
    """Register CSV labels; arguments as for ``read_csv``. Safe to call again.

    Raises:
        ConfigError: If someone else registered the name.
        AnnotationError: If no class names are given and the file cannot be read for them.
    """
    options = {"box_format": box_format, "columns": tuple(columns) or None}
    source = DatasetSource(
        "csv", Path(annotations), Path(images), tuple(class_names), min_box_size, options
    )
    _register(name, source)


def register_coco(
    name: str,
    annotations: PathLike,
    images: PathLike,
    *,
    class_names: Sequence[str] = (),
    min_box_size: float = 1.0,
) -> None:
    """Register COCO JSON labels; arguments as for ``read_coco_json``. Safe to call again.

    Raises:
        ConfigError: If someone else registered the name.
        AnnotationError: If no class names are given and the file cannot be read for them.
    """
    source = DatasetSource(
        "coco", Path(annotations), Path(images), tuple(class_names), min_box_size
    )
    _register(name, source)


def register_from_config(cfg: CfgNode) -> None:
    """Register every dataset of ``DATASETS.REGISTER``; nothing is read yet but class names.

    Args:
        cfg: With d2pd's keys. A label file is opened only where its ``CLASSES`` are empty.

    Raises:
        ConfigError: If a key is unknown, is another word or has no effect, or a needed one is
            empty.
        AnnotationError: If a file opened for its class names cannot be used.
    """
    sources = sources_of_config(cfg)
    if cfg.DATASETS.FOLD and not any(source.fold_part for source in sources.values()):
        raise ConfigError(
            f"DATASETS.FOLD {cfg.DATASETS.FOLD} has no effect: no dataset of DATASETS.REGISTER has "
            "FOLDS; add the file of d2pd split there, or leave it out"
        )
    for name, source in sources.items():
        _register(name, source)


def sources_of_config(cfg: CfgNode) -> dict[str, DatasetSource]:
    """Return what each dataset of ``DATASETS.REGISTER`` is read from; nothing is registered.

    Raises:
        ConfigError: If a key is unknown, ``FORMAT`` is another word or a needed key is empty.
    """
    return {
        name: _source_of_entry(name, entry, cfg) for name, entry in cfg.DATASETS.REGISTER.items()
    }


def folds_in_use(cfg: CfgNode) -> dict[str, FoldPart]:
    """Return what the datasets of a run, by name, take of files of folds; others have no entry."""
    used = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST}
    return {
        name: source.fold_part
        for name, source in sources_of_config(cfg).items()
        if name in used and source.fold_part is not None
    }


def dataset_root(cfg: CfgNode) -> Path:
    """Give the folder that relative paths of datasets start from."""
    return Path(cfg.DATASETS.ROOT or os.environ.get("D2PD_DATASETS") or "datasets").expanduser()


def _source_of_entry(name: str, entry: Mapping[str, Any], cfg: CfgNode) -> DatasetSource:
    where = f"DATASETS.REGISTER.{name}"
    for key in entry:
        if key not in REGISTER_DEFAULTS:
            raise ConfigError(f"unknown key {where}.{key}; known: {', '.join(REGISTER_DEFAULTS)}")
    values = {**REGISTER_DEFAULTS, **entry}
    if values["FORMAT"] not in FORMATS:
        raise ConfigError(
            f"{where}.FORMAT must be one of {', '.join(FORMATS)}, got {values['FORMAT']!r}"
        )
    if not values["ANNOTATIONS"]:
        raise ConfigError(f"{where}.ANNOTATIONS is empty; name the label file")
    root = dataset_root(cfg)
    annotations = root / Path(values["ANNOTATIONS"]).expanduser()
    images = root / Path(values["IMAGES"]).expanduser() if values["IMAGES"] else annotations.parent
    is_synthetic = values["FORMAT"] == "synthetic"
    return DatasetSource(
        values["FORMAT"],
        annotations,
        images,
        tuple(values["CLASSES"]),
        cfg.DATASETS.MIN_BOX_SIZE,
        _reader_options(where, values, root),
        _drawing(cfg) if is_synthetic else None,
        _fold_part(where, values, cfg),
    )


def _fold_part(where: str, values: Mapping[str, Any], cfg: CfgNode) -> FoldPart | None:
    folds, part = values["FOLDS"], values["FOLD_PART"]
    if folds and part not in PARTS:
        raise ConfigError(
            f"{where}.FOLD_PART must be one of {', '.join(PARTS)} beside FOLDS, got {part!r}"
        )
    if part and not folds:
        raise ConfigError(
            f"{where}.FOLD_PART has no meaning without FOLDS; name the file of d2pd split there"
        )
    if not folds:
        return None
    return FoldPart(dataset_root(cfg) / Path(folds).expanduser(), part, cfg.DATASETS.FOLD)


def _reader_options(where: str, values: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Give the reader the keys of its format; a key of another format is refused when set."""
    kaist_keys, csv_keys = ("IMAGE_LIST", "INCLUDE", "EXCLUDE"), ("BOX_FORMAT", "COLUMNS")
    used = {"csv": csv_keys, "coco": ()}.get(values["FORMAT"], kaist_keys)
    for key in (*kaist_keys, *csv_keys):
        if key not in used and values[key] != REGISTER_DEFAULTS[key]:
            raise ConfigError(
                f"{where}.{key} has no meaning for FORMAT {values['FORMAT']}; remove it"
            )
    if used == csv_keys:
        return {"box_format": values["BOX_FORMAT"], "columns": tuple(values["COLUMNS"]) or None}
    if used == kaist_keys:
        image_list = values["IMAGE_LIST"]
        return {
            "image_list": root / Path(image_list).expanduser() if image_list else None,
            "include": tuple(values["INCLUDE"]),
            "exclude": tuple(values["EXCLUDE"]),
        }
    return {}


def _drawing(cfg: CfgNode) -> DrawingSize:
    keys = cfg.DATASETS.SYNTHETIC
    return DrawingSize(keys.NUM_TRAIN, keys.NUM_TEST, keys.SEED)


def _register(name: str, source: DatasetSource) -> None:
    metadata = MetadataCatalog.get(name)
    if name in DatasetCatalog:
        known = metadata.get("source")
        if known is None:
            raise ConfigError(
                f"the name {name!r} is taken by a dataset that d2pd did not register; choose "
                "another"
            )
        if known == source and metadata.get("thing_classes"):
            return
    class_names = source.class_names
    if not class_names and source.format in ("kaist", "synthetic"):
        class_names = KAIST_CLASSES
    if not class_names and source.annotations.is_file():
        # Of the whole file: each part has all the classes, and in the same order.
        class_names = replace(source, fold_part=None).read(None).class_names
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, RegisteredDataset(name, source))
    _describe(name, source, class_names)


def _describe(name: str, source: DatasetSource, class_names: Sequence[str]) -> None:
    """Write the metadata anew; Detectron2 refuses to change what is set once."""
    MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(
        source=source,
        annotations_file=str(source.annotations),
        annotations_format=source.format,
        image_root=str(source.images),
        evaluator_type="kaist" if source.format in ("kaist", "synthetic") else "coco",
    )
    if class_names:
        MetadataCatalog.get(name).thing_classes = list(class_names)
