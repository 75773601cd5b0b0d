"""``d2pd show --heat-maps``: what the segmentation layers of a trained model see."""

from collections.abc import Sequence
from pathlib import Path

from d2pd.d2 import CfgNode, MetadataCatalog
from d2pd.data.records import load_records
from d2pd.inference.predictor import Predictor
from d2pd.inference.trained_model import newest_weights
from d2pd.reporting.gallery import choose_images
from d2pd.reporting.heat_maps import draw_heat_maps
from d2pd.training.preflight import check_datasets
from d2pd.training.weights.matching import read_weights, resolve_weights

PICTURE = "heat_maps.png"
NUM_IMAGES = 6


def write_heat_maps(cfg: CfgNode, opts: Sequence[str]) -> Path:
    """Draw heat maps of some images of the first of ``DATASETS.TEST``.

    Args:
        cfg: Its datasets registered.
        opts: ``KEY VALUE`` overrides: weights that are named there are taken, else the newest
            ones of ``OUTPUT_DIR``; what a config file names is what a training starts from.

    Returns:
        The picture, in ``OUTPUT_DIR``.

    Raises:
        ConfigError: If there is no test dataset, or the model has no segmentation layers.
        UserError: If the weights or the images cannot be used.
    """
    check_datasets(cfg, cfg.DATASETS.TEST[:1], "DATASETS.TEST")
    is_named = "MODEL.WEIGHTS" in opts[::2] and cfg.MODEL.WEIGHTS
    path = resolve_weights(cfg.MODEL.WEIGHTS) if is_named else newest_weights(Path(cfg.OUTPUT_DIR))
    predictor = Predictor(cfg, read_weights(path))
    name = cfg.DATASETS.TEST[0]
    records = choose_images(load_records(name), set(), NUM_IMAGES)
    heat_maps = [predictor.heat_maps(predictor.read(record)) for record in records]
    path = Path(cfg.OUTPUT_DIR) / PICTURE
    draw_heat_maps(
        records,
        predictor.predict_records(records),
        heat_maps,
        MetadataCatalog.get(name).thing_classes,
        path,
        modality=cfg.INPUT.MODALITY,
    )
    return path
