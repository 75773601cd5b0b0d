"""``d2pd show --anchors``: how well a configuration's anchors fit its training labels."""

from collections import defaultdict
from pathlib import Path

import torch

from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.augmentation import build_sizes
from d2pd.data.cleaning import clean_records
from d2pd.data.records import Record, load_records
from d2pd.data.targets import is_region
from d2pd.errors import ConfigError
from d2pd.modeling.anchor_fit import AnchorFit, ImageSize, measure_anchor_fit
from d2pd.modeling.network import map_sizes
from d2pd.modeling.ssd_parts import build_anchor_shapes, read_extra_layers, read_iou_threshold
from d2pd.reporting.anchor_fit_plot import draw_anchor_fit

MISSED = (
    "A label under the threshold is learned by one anchor alone, its best one; the others that "
    "overlap it\nare background."
)


def show_anchor_fit(cfg: CfgNode) -> str:
    """Measure the anchors on the labels of ``DATASETS.TRAIN``, and draw ``anchor_fit.png``.

    The pictures are not read, where the labels state their sizes.

    Args:
        cfg: Its datasets registered. Read here: DATASETS.TRAIN, INPUT, MODEL.ANCHOR_GENERATOR,
            MODEL.SSD and OUTPUT_DIR.

    Returns:
        A table by height, and the path of the picture.

    Raises:
        UserError: If the model is not SSDSeg, its anchors do not go with its maps, or the labels
            cannot be read; the message says what and the way out.
    """
    if cfg.MODEL.META_ARCHITECTURE != "SSDSeg":
        raise ConfigError(
            "--anchors measures the anchors of MODEL.META_ARCHITECTURE SSDSeg, and this "
            f"configuration has {cfg.MODEL.META_ARCHITECTURE}; leave --anchors out"
        )
    fit = fit_of_config(cfg)
    title = _title(cfg, fit)
    path = Path(cfg.OUTPUT_DIR) / "anchor_fit.png"
    draw_anchor_fit(fit, title, path)
    return f"{title}\n\n{fit.table()}\n\n{MISSED}\n{path}"


def fit_of_config(cfg: CfgNode) -> AnchorFit:
    """Measure the anchors on the training labels, at the size of a test image.

    Args:
        cfg: See ``show_anchor_fit``.

    Raises:
        UserError: See ``show_anchor_fit``.
    """
    if not cfg.DATASETS.TRAIN:
        raise ConfigError('DATASETS.TRAIN is empty; name a dataset, such as ("kaist_train",)')
    labels: dict[ImageSize, list[list[float]]] = defaultdict(list)
    for name in cfg.DATASETS.TRAIN:
        for record in _label_records(name):
            labels[record["height"], record["width"]] += [
                annotation["bbox"]
                for annotation in record["annotations"]
                if not is_region(annotation) and annotation["category_id"] >= 0
            ]
    layers = read_extra_layers(cfg)
    sizes = build_sizes(cfg, is_train=False)
    return measure_anchor_fit(
        {
            size: torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
            for size, boxes in labels.items()
        },
        build_anchor_shapes(cfg),
        input_size=sizes.draw,
        map_sizes=lambda size: map_sizes(size, layers),
        iou_threshold=read_iou_threshold(cfg),
    )


def _label_records(name: str) -> list[Record]:
    """Load the cleaned labels of a dataset; pictures are opened only for sizes no label states."""
    if name not in DatasetCatalog:
        raise ConfigError(
            f"DATASETS.TRAIN names {name}, which is not registered; describe it in "
            f"DATASETS.REGISTER.{name}"
        )
    source = MetadataCatalog.get(name).get("source")
    if source is not None:
        records = source.read(None).records
        if all("height" in record for record in records):
            return clean_records(records, min_size=source.min_box_size)[0]
    return load_records(name, quiet=True)


def _title(cfg: CfgNode, fit: AnchorFit) -> str:
    """Say what was measured, in one line."""
    labels = f"{len(fit.heights):,} labels of {', '.join(cfg.DATASETS.TRAIN)}"
    if len(fit.num_anchors) != 1:
        return f"{labels}, {len(fit.num_anchors):,} sizes of network input"
    [((height, width), number)] = fit.num_anchors.items()
    return f"{labels}, {number:,} anchors on {height} x {width} px (height x width)"
