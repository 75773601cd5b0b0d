"""Builds, from the configuration, what measures the validation loss and what decides by metrics."""

import logging
import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from torch import nn

from d2pd.d2 import CfgNode, DatasetCatalog
from d2pd.data.loader import build_validation_loader
from d2pd.errors import ConfigError
from d2pd.evaluation.build import has_miss_rate
from d2pd.training.deciding.best_value import BestValue, metric_mode
from d2pd.training.deciding.patience import Patience
from d2pd.training.deciding.watched_metric import WatchedMetric
from d2pd.training.hooks.best_model import BestModel, Contest
from d2pd.training.hooks.early_stopping import EarlyStopping
from d2pd.training.hooks.validation_loss import ValidationLoss
from d2pd.training.validation import Autocast, validation_losses

logger = logging.getLogger(__name__)

OF_VALIDATION = "val/"
"""What the names of the validation losses start with; other metrics are of the evaluation."""


def validation_dataset(cfg: CfgNode) -> str:
    """Return the dataset of the validation loss; empty where there is none."""
    names = (cfg.VALIDATION.DATASET, *cfg.DATASETS.TEST)
    return next((name for name in names if name), "")


def validation_period(cfg: CfgNode) -> int:
    """Return the iterations between two validation losses; 0: only after the last iteration."""
    period = cfg.VALIDATION.PERIOD
    return cfg.TEST.EVAL_PERIOD if period < 0 else period


def build_validation_loss(
    cfg: CfgNode,
    model: nn.Module,
    *,
    autocast: Autocast = nullcontext,
    check_stop: Callable[[], None],
) -> ValidationLoss | None:
    """Build the hook that measures the validation loss; None where there is no dataset for it.

    Args:
        cfg: Read here: VALIDATION, DATASETS.TEST, TEST.EVAL_PERIOD, SEED, and what
            ``build_validation_loader`` reads.
        model: The one that is trained.
        autocast: Makes the context of a forward pass in the precision of the training.
        check_stop: Raises if a stop is asked for; called between two images.

    Raises:
        AnnotationError: If the dataset has no image.
    """
    dataset_name = validation_dataset(cfg)
    if not dataset_name:
        return None
    if dataset_name in cfg.DATASETS.TRAIN:
        logger.warning(
            "the validation loss is of %s, which is trained on: it cannot show overfitting; name "
            "images that are not in VALIDATION.DATASET",
            dataset_name,
        )
    measure = partial(
        validation_losses,
        model,
        build_validation_loader(cfg, dataset_name, cfg.VALIDATION.MAX_IMAGES),
        seed=cfg.SEED,
        autocast=autocast,
        check_stop=check_stop,
    )
    return ValidationLoss(validation_period(cfg), dataset_name, measure)


def build_early_stopping(cfg: CfgNode) -> EarlyStopping | None:
    """Build the hook that stops early; None where no metric is named.

    Args:
        cfg: Read here: EARLY_STOPPING, SOLVER.MAX_ITER, and what tells when there are metrics.

    Raises:
        ConfigError: If no evaluation would come before the last iteration, the metric needs a
            dataset that is not named, or is a miss rate of one that has none, or which way it is
            better cannot be told.
    """
    settings = cfg.EARLY_STOPPING
    name = settings.METRIC
    if not name:
        return None
    threshold = settings.DIVERGENCE_THRESHOLD
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and math.isfinite(threshold)):
        raise ConfigError(
            f"EARLY_STOPPING.DIVERGENCE_THRESHOLD is {threshold!r}; allowed: a number or None"
        )
    metric = _watch(cfg, name, "EARLY_STOPPING")
    # Metrics of the loop itself, such as total_loss, have no slash and come at every iteration.
    if "/" in name and not 0 < metric.period < cfg.SOLVER.MAX_ITER:
        key = "VALIDATION.PERIOD" if name.startswith(OF_VALIDATION) else "TEST.EVAL_PERIOD"
        raise ConfigError(
            f"EARLY_STOPPING.METRIC {name} would be measured after the last iteration only, too "
            f"late to stop: set {key} below SOLVER.MAX_ITER {cfg.SOLVER.MAX_ITER}, or "
            "EARLY_STOPPING.METRIC '' for no early stopping"
        )
    patience = Patience(
        mode=metric_mode(name, settings.MODE, "EARLY_STOPPING"),
        patience=settings.PATIENCE,
        min_delta=settings.MIN_DELTA,
        warmup_iters=settings.WARMUP_ITERS,
        divergence_threshold=threshold,
    )
    return EarlyStopping(metric, patience)


def build_best_model(cfg: CfgNode) -> BestModel | None:
    """Build the hook that keeps the best model; None where no dataset gives a metric.

    Args:
        cfg: Read here: BEST_CHECKPOINT, and what tells when there are metrics; kept with the model.

    Raises:
        ConfigError: If a metric needs a dataset that is not named, or is a miss rate of one that
            has none, or which way it is better cannot be told.
    """
    contests = [
        Contest(
            metric=_watch(cfg, name, "BEST_CHECKPOINT"),
            best=BestValue(metric_mode(name, cfg.BEST_CHECKPOINT.MODE, "BEST_CHECKPOINT")),
            file_stem="model_best" + (f"_{name.replace('/', '_')}" if number else ""),
            is_required=bool(cfg.BEST_CHECKPOINT.METRIC),
        )
        for number, name in enumerate(best_metrics(cfg))
    ]
    return BestModel(contests, cfg.dump()) if contests else None


def best_metrics(cfg: CfgNode) -> list[str]:
    """Return the metrics that the best models are chosen by; empty where there is none."""
    if cfg.BEST_CHECKPOINT.METRIC:
        return list(dict.fromkeys(cfg.BEST_CHECKPOINT.METRIC))
    tests = cfg.DATASETS.TEST
    if tests:  # the results of several datasets are a level deeper
        return ["bbox/AP" if len(tests) == 1 else f"{tests[0]}/bbox/AP"]
    return ["val/total_loss"] if validation_dataset(cfg) else []


def warn_of_choosing_by_test(cfg: CfgNode) -> None:
    """Warn where a model is chosen, or a training stopped, by a dataset that is named as test."""
    choices = [("the best model", name) for name in best_metrics(cfg)]
    if cfg.EARLY_STOPPING.METRIC:
        choices.append(("when to stop", cfg.EARLY_STOPPING.METRIC))
    tests: dict[str, None] = {}  # keeps the order
    told = []
    for what, metric in choices:
        behind = [name for name in datasets_behind(cfg, metric) if is_named_as_test(name)]
        tests.update(dict.fromkeys(behind))
        told += [f"{what} (by {metric})"] if behind else []
    if tests:
        is_one = len(tests) == 1
        logger.warning(
            "%s %s named as test, but %s %s: the result on it will look better than the "
            "detector is. Choose by other images (DATASETS.TEST, VALIDATION.DATASET), and name "
            "these in DATASETS.FINAL_TEST, which is evaluated once, at the end",
            *(", ".join(tests), "is" if is_one else "are", "chooses" if is_one else "choose"),
            " and ".join(told),
        )


def is_named_as_test(dataset_name: str) -> bool:
    """Tell whether a dataset's name has "test" as a word: ``kaist_test20``, but not ``latest``."""
    return re.search(r"(?<![a-z])test(?![a-z])", dataset_name.lower()) is not None


def _watch(cfg: CfgNode, name: str, section: str) -> WatchedMetric:
    tests = cfg.DATASETS.TEST
    if name.startswith(("bbox/", "MR/")) and len(tests) > 1:
        raise ConfigError(
            f"{section}.METRIC {name}: DATASETS.TEST has {len(tests)} datasets, and each has its "
            f"own: name {' or '.join(f'{dataset}/{name}' for dataset in tests)}"
        )
    _check_miss_rate(cfg, name, section)
    if not name.startswith(OF_VALIDATION):
        return WatchedMetric(name, cfg.TEST.EVAL_PERIOD, f"{section}.METRIC")
    if not validation_dataset(cfg):
        raise ConfigError(
            f"{section}.METRIC {name} needs labelled images that are not trained on: name their "
            "dataset in VALIDATION.DATASET or DATASETS.TEST"
        )
    return WatchedMetric(name, validation_period(cfg), f"{section}.METRIC")


def _check_miss_rate(cfg: CfgNode, metric: str, section: str) -> None:
    """Refuse a miss rate of a dataset that has none."""
    for name in cfg.DATASETS.TEST:
        is_of_it = metric.startswith(("MR/", f"{name}/MR/"))
        if is_of_it and name in DatasetCatalog and not has_miss_rate(cfg, name):
            raise ConfigError(
                f"{section}.METRIC {metric}: {name} has no miss rate, which needs KAIST data, or "
                "MISS_RATE.SETTINGS that say which boxes are to be found: name bbox/AP, or give "
                "such settings"
            )


def datasets_behind(cfg: CfgNode, metric: str) -> list[str]:
    """Return the datasets that a metric is measured on."""
    if metric.startswith(OF_VALIDATION):
        return [validation_dataset(cfg)]
    named = [name for name in cfg.DATASETS.TEST if metric.startswith(f"{name}/")]
    return named or list(cfg.DATASETS.TEST)
