"""Which evaluators a dataset gets, from the configuration."""

from pathlib import Path

from d2pd.d2 import CfgNode, DatasetEvaluators, MetadataCatalog
from d2pd.evaluation.evaluators import PREDICTIONS, CocoEvaluator, MissRateEvaluator
from d2pd.evaluation.subsets import KAIST, Protocol, build_protocol


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
    """Build COCO AP for every dataset, and the miss rate where it has a meaning.

    That is KAIST data, or any where ``MISS_RATE.SETTINGS`` says which boxes are to be found.

    Args:
        cfg: Read here: OUTPUT_DIR, MISS_RATE.
        dataset_name: Registered; predictions go to ``OUTPUT_DIR/inference/<dataset>``.

    Raises:
        ConfigError: If MISS_RATE holds a key or a value that is not allowed.
    """
    folder = predictions_path(cfg.OUTPUT_DIR, dataset_name).parent
    evaluators: list[CocoEvaluator | MissRateEvaluator] = [CocoEvaluator(dataset_name, folder)]
    if has_miss_rate(cfg, dataset_name):
        keys = cfg.MISS_RATE
        evaluators.append(
            MissRateEvaluator(
                dataset_name,
                miss_rate_protocol(cfg),
                mode=keys.MODE,
                iou_threshold=keys.IOU_THRESHOLD,
            )
        )
    return DatasetEvaluators(evaluators)


def predictions_path(output_dir: str | Path, dataset_name: str) -> Path:
    """Return where a run keeps what it detected on a dataset in its last evaluation."""
    return Path(output_dir) / "inference" / dataset_name / PREDICTIONS


def has_miss_rate(cfg: CfgNode, dataset_name: str) -> bool:
    """Tell whether a dataset is of KAIST's kind, or the configuration has settings for any."""
    is_kaist = MetadataCatalog.get(dataset_name).get("evaluator_type") == "kaist"
    return is_kaist or bool(cfg.MISS_RATE.SETTINGS)


def miss_rate_protocol(cfg: CfgNode) -> Protocol:
    """Return the subsets that a configuration describes: KAIST's where it names none.

    Raises:
        ConfigError: If MISS_RATE holds a key or a value that is not allowed.
    """
    own = build_protocol(cfg.MISS_RATE.SETTINGS, cfg.MISS_RATE.SPLITS)
    return Protocol(
        own.settings or KAIST.settings, own.splits if cfg.MISS_RATE.SPLITS else KAIST.splits
    )
