"""What the configuration makes of validation loss, early stopping and best model."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hook_toys import FakeTrainer
from validation_toys import Noisy

from d2pd.config_keys import default_config
from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.loader import build_validation_loader
from d2pd.errors import ConfigError
from d2pd.training.deciding.decisions import (
    best_metrics,
    build_best_model,
    build_early_stopping,
    build_validation_loss,
    is_named_as_test,
    validation_dataset,
    validation_period,
    warn_of_choosing_by_test,
)
from d2pd.training.validation import validation_losses


@pytest.fixture
def cfg() -> CfgNode:
    cfg = default_config()
    cfg.DATASETS.TEST = ("people_val",)
    cfg.TEST.EVAL_PERIOD = 4
    cfg.SOLVER.MAX_ITER = 12
    return cfg


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[str]:
    name = "decisions_toys"
    records = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), np.full((32, 48, 3), 40 * number, np.uint8))
        box = {"bbox": [4.0, 5.0, 20.0, 30.0], "bbox_mode": 0, "category_id": 0, "iscrowd": 0}
        size = {"height": 32, "width": 48, "image_id": number}
        records.append({"file_name": str(path), **size, "annotations": [box] * (number > 0)})
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).thing_classes = ["person"]
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_validation_dataset_is_the_one_named_else_the_first_of_the_test_sets(cfg):
    assert validation_dataset(cfg) == "people_val"
    cfg.VALIDATION.DATASET = "other_val"
    assert validation_dataset(cfg) == "other_val"
    cfg.VALIDATION.DATASET, cfg.DATASETS.TEST = "", ()
    assert validation_dataset(cfg) == ""


@pytest.mark.parametrize(("period", "expected"), [(-1, 4), (0, 0), (3, 3)])
def test_validation_period_is_its_own_or_that_of_the_evaluation(cfg, period, expected):
    cfg.VALIDATION.PERIOD = period
    assert validation_period(cfg) == expected


def test_validation_loss_is_that_of_its_loader_at_its_period(cfg, registered, tmp_path):
    cfg.VALIDATION.DATASET, cfg.VALIDATION.MAX_IMAGES, cfg.SEED = registered, 2, 7
    cfg.INPUT.MIN_SIZE_TEST, cfg.DATALOADER.NUM_WORKERS = 0, 0
    model, stops = Noisy(), []
    hook = build_validation_loss(cfg, model, check_stop=lambda: stops.append(1))
    trainer = FakeTrainer(tmp_path, max_iter=12)
    trainer.run([hook], [None] * 12)
    loader = build_validation_loader(cfg, registered, 2)
    expected = validation_losses(model, loader, seed=7)["total_loss"]
    assert trainer.logged("val/total_loss") == [(expected, i) for i in (3, 7, 11)]
    assert len(stops) == 2 * 3


def test_without_a_dataset_there_is_no_validation_loss_and_no_best_model(cfg):
    cfg.DATASETS.TEST = ()
    assert build_validation_loss(cfg, Noisy(), check_stop=lambda: None) is None
    assert build_best_model(cfg) is None


@pytest.mark.parametrize("is_trained_on", [True, False])
def test_a_validation_on_what_is_trained_on_is_warned_of(cfg, registered, caplog, is_trained_on):
    cfg.VALIDATION.DATASET = registered
    cfg.DATASETS.TRAIN = (registered,) if is_trained_on else ("others",)
    build_validation_loss(cfg, Noisy(), check_stop=lambda: None)
    assert (f"of {registered}, which is trained on" in caplog.text) is is_trained_on


def test_without_a_metric_nothing_stops_early(cfg):
    assert build_early_stopping(cfg) is None


def early(cfg, **kwargs):
    for key, value in kwargs.items():
        cfg.EARLY_STOPPING[key] = value
    return build_early_stopping(cfg)


def test_early_stopping_takes_every_setting(cfg, tmp_path):
    settings = {"METRIC": "bbox/AP", "PATIENCE": 2, "MIN_DELTA": 0.5, "WARMUP_ITERS": 5}
    hook = early(cfg, **settings, DIVERGENCE_THRESHOLD=None)
    values = [1.0, None, None, None, 1.5, 1.2, 1.3, 1.7, 1.6, 1.5]
    rows = [value and {"bbox/AP": value} for value in values]
    trainer = FakeTrainer(tmp_path, max_iter=12)
    trainer.run([hook], rows)
    assert [left for left, _ in trainer.logged("early_stopping/patience_left")] == [
        2, 2, 1, 0,
    ]  # fmt: skip
    assert trainer.reasons == [
        "bbox/AP has not improved on 1 (iteration 0) by more than 0.5 for 2 evaluations"
    ]
    bound = early(cfg, PATIENCE=9, DIVERGENCE_THRESHOLD=0.4)
    trainer = FakeTrainer(tmp_path, max_iter=12)
    trainer.run([bound], [{"bbox/AP": 0.5}, {"bbox/AP": 0.39}])
    assert "worse than EARLY_STOPPING.DIVERGENCE_THRESHOLD 0.4" in trainer.reasons[0]


def test_mode_can_be_set(cfg, tmp_path):
    trainer = FakeTrainer(tmp_path, max_iter=12)
    trainer.run(
        [early(cfg, METRIC="bbox/AP", MODE="min", PATIENCE=1)], [{"bbox/AP": v} for v in (3, 2, 4)]
    )
    assert "has not improved on 2 (iteration 1)" in trainer.reasons[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"METRIC": "bbox/quality"}, r"EARLY_STOPPING\.METRIC bbox/quality: its name does not say"),
        (
            {"METRIC": "bbox/AP", "DIVERGENCE_THRESHOLD": "high"},
            r"DIVERGENCE_THRESHOLD is 'high'; allowed: a number or None",
        ),
        (
            {"METRIC": "bbox/AP", "DIVERGENCE_THRESHOLD": True},
            r"DIVERGENCE_THRESHOLD is True; allowed: a number or None",
        ),
        (
            {"METRIC": "bbox/AP", "DIVERGENCE_THRESHOLD": float("nan")},
            r"DIVERGENCE_THRESHOLD is nan; allowed: a number or None",
        ),
    ],
)
def test_settings_that_cannot_be_used_name_the_key(cfg, settings, message):
    with pytest.raises(ConfigError, match=message):
        early(cfg, **settings)


@pytest.mark.parametrize(
    ("metric", "key", "section", "name"),
    [
        ("bbox/AP", "TEST.EVAL_PERIOD", "TEST", "EVAL_PERIOD"),
        ("val/total_loss", "VALIDATION.PERIOD", "VALIDATION", "PERIOD"),
    ],
)
@pytest.mark.parametrize("period", [0, 12, 100])
def test_a_metric_that_comes_too_late_to_stop_is_refused(cfg, metric, key, section, name, period):
    cfg[section][name] = period
    with pytest.raises(ConfigError) as caught:
        early(cfg, METRIC=metric)
    assert str(caught.value) == (
        f"EARLY_STOPPING.METRIC {metric} would be measured after the last iteration only, too late "
        f"to stop: set {key} below SOLVER.MAX_ITER 12, or EARLY_STOPPING.METRIC '' for no early "
        "stopping"
    )
    cfg[section][name] = 11
    assert early(cfg, METRIC=metric) is not None


def test_a_scalar_of_the_loop_needs_no_evaluation(cfg):
    cfg.TEST.EVAL_PERIOD = 0
    assert early(cfg, METRIC="total_loss") is not None


@pytest.mark.parametrize(
    ("section", "metric", "build"),
    [
        ("EARLY_STOPPING", "val/total_loss", build_early_stopping),
        ("BEST_CHECKPOINT", ("val/total_loss",), build_best_model),
    ],
)
def test_a_validation_loss_without_a_dataset_is_refused(cfg, section, metric, build):
    cfg.DATASETS.TEST = ()
    cfg[section].METRIC = metric
    with pytest.raises(ConfigError) as caught:
        build(cfg)
    assert str(caught.value) == (
        f"{section}.METRIC val/total_loss needs labelled images that are not trained on: name "
        "their dataset in VALIDATION.DATASET or DATASETS.TEST"
    )


@pytest.mark.parametrize(
    ("section", "build"),
    [("EARLY_STOPPING", build_early_stopping), ("BEST_CHECKPOINT", build_best_model)],
)
@pytest.mark.parametrize("place", ["", "decisions_toys/"])
def test_a_miss_rate_of_data_that_has_none_is_refused(cfg, registered, section, build, place):
    cfg.DATASETS.TEST = (registered, "people_val") if place else (registered,)
    metric = f"{place}MR/reasonable/all"
    cfg[section].METRIC = metric if section == "EARLY_STOPPING" else (metric,)
    with pytest.raises(ConfigError) as caught:
        build(cfg)
    assert str(caught.value) == (
        f"{section}.METRIC {metric}: decisions_toys has no miss rate, which needs KAIST data, or "
        "MISS_RATE.SETTINGS that say which boxes are to be found: name bbox/AP, or give such "
        "settings"
    )
    cfg.MISS_RATE.SETTINGS.reasonable = CfgNode({"HEIGHT": [55, 1000]})
    assert build(cfg)
    cfg.MISS_RATE.SETTINGS.clear()
    MetadataCatalog.get(registered).evaluator_type = "kaist"
    assert build(cfg)


@pytest.mark.parametrize(
    ("tests", "validation", "named", "expected"),
    [
        (("a",), "", (), ["bbox/AP"]),
        (("a", "b"), "", (), ["a/bbox/AP"]),
        ((), "v", (), ["val/total_loss"]),
        ((), "", (), []),
        (("a",), "v", ("val/loss_cls", "bbox/AP", "val/loss_cls"), ["val/loss_cls", "bbox/AP"]),
    ],
)
def test_metrics_of_the_best_model(cfg, tests, validation, named, expected):
    cfg.DATASETS.TEST, cfg.VALIDATION.DATASET, cfg.BEST_CHECKPOINT.METRIC = tests, validation, named
    assert best_metrics(cfg) == expected


def test_best_models_are_named_by_their_metrics_and_hold_the_configuration(cfg, tmp_path):
    cfg.BEST_CHECKPOINT.METRIC = ("val/total_loss", "people_val/bbox/AP", "bbox/AP50")
    trainer = FakeTrainer(tmp_path, max_iter=12)
    row = {"val/total_loss": 1.0, "people_val/bbox/AP": 2.0, "bbox/AP50": 3.0}
    trainer.run([build_best_model(cfg)], [row])
    assert trainer.checkpointer.saved == [
        ("model_best", 0, 1.0),
        ("model_best_people_val_bbox_AP", 0, 2.0),
        ("model_best_bbox_AP50", 0, 3.0),
    ]
    assert trainer.checkpointer.last["config_text"] == cfg.dump()
    assert trainer.checkpointer.last["mode"] == "max"


def test_only_a_metric_that_was_asked_for_has_to_be_there(cfg, tmp_path):
    rows = [None, None, None, {"val/total_loss": 1.0}]
    FakeTrainer(tmp_path).run([build_best_model(cfg)], rows)
    cfg.BEST_CHECKPOINT.METRIC = ("bbox/AP",)
    with pytest.raises(ConfigError, match=r"BEST_CHECKPOINT\.METRIC bbox/AP was not logged"):
        FakeTrainer(tmp_path).run([build_best_model(cfg)], rows)


@pytest.mark.parametrize("name", ["kaist_test", "test", "test20", "my-test-set", "TEST_all"])
def test_names_of_test_sets(name):
    assert is_named_as_test(name)


@pytest.mark.parametrize("name", ["kaist_val", "latest", "contest", "testimony", "attestation"])
def test_names_that_are_not(name):
    assert not is_named_as_test(name)


@pytest.mark.parametrize(
    ("tests", "validation", "stop", "told"),
    [
        (("kaist_test",), "", "", "kaist_test is named as test, but chooses the best model (by "
            "bbox/AP): "),
        (("kaist_test",), "", "val/total_loss", "kaist_test is named as test, but chooses the best "
            "model (by bbox/AP) and when to stop (by val/total_loss): "),
        (("kaist_test",), "kaist_val", "val/total_loss", "kaist_test is named as test, but chooses "
            "the best model (by bbox/AP): "),
        (("a_val",), "b_test", "val/total_loss", "b_test is named as test, but chooses when to "
            "stop (by val/total_loss): "),
        (("a_test", "b_test"), "", "bbox/AP", "a_test, b_test are named as test, but choose the "
            "best model (by a_test/bbox/AP) and when to stop (by bbox/AP): "),
        (("a_val", "b_test"), "", "a_val/bbox/AP", None),
        (("kaist_val",), "", "bbox/AP", None),
        (("kaist_val",), "kaist_test", "bbox/AP", None),
    ],
)  # fmt: skip
def test_choosing_by_a_test_set_warns_once_and_says_what_to_do(
    cfg, caplog, tests, validation, stop, told
):
    cfg.DATASETS.TEST, cfg.VALIDATION.DATASET, cfg.EARLY_STOPPING.METRIC = tests, validation, stop
    warn_of_choosing_by_test(cfg)
    assert len(caplog.messages) == (told is not None)
    if told:
        assert caplog.messages[0] == (
            f"{told}the result on it will look better than the detector is. Choose by other images "
            "(DATASETS.TEST, VALIDATION.DATASET), and name these in DATASETS.FINAL_TEST, which is "
            "evaluated once, at the end"
        )
