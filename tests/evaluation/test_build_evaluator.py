"""Which evaluators a dataset gets, and the miss rate of what a model detects on it."""

import logging
import math

import pytest
import torch

from d2pd.config_keys import default_config
from d2pd.d2 import Boxes, DatasetCatalog, Instances, MetadataCatalog
from d2pd.errors import ConfigError
from d2pd.evaluation.build import build_evaluator, has_miss_rate, miss_rate_protocol
from d2pd.evaluation.evaluators import MissRateEvaluator
from d2pd.evaluation.subsets import KAIST

NAME = "miss_rate_toys"


def label(x, y, width, height, category_id=0, **more):
    return {
        "bbox": [x, y, x + width, y + height],
        "bbox_mode": 0,
        "category_id": category_id,
        "ignore": 0,
        "iscrowd": 0,
        **more,
    }


def record(name, *annotations):
    return {
        "file_name": f"{name}.png",
        "im_name": name,
        "image_id": name,
        "height": 512,
        "width": 640,
        "annotations": list(annotations),
    }


@pytest.fixture
def register():
    """Register records under ``NAME``."""

    def add(records, classes=("person",), kind="kaist"):
        DatasetCatalog.register(NAME, lambda: records)
        MetadataCatalog.get(NAME).set(thing_classes=list(classes), evaluator_type=kind)

    yield add
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def show(evaluator, image_id, *rows):
    """Let a model find x, y, width, height, score and perhaps class."""
    found = Instances((512, 640))
    xywh = torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4)
    found.pred_boxes = Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1))
    found.scores = torch.tensor([row[4] for row in rows])
    found.pred_classes = torch.tensor([row[5] if len(row) > 5 else 0 for row in rows]).long()
    evaluator.process([{"image_id": image_id}], [{"instances": found}])


TALL = (100, 100, 40, 80)
SHORT = (300, 100, 20, 40)


def test_metrics_are_named_by_setting_and_split_and_only_of_splits_with_images(register):
    day = record("set06/V000/I00019", label(*TALL, occlusion=0))
    register([day, record("set07/V000/I00019", label(*SHORT, occlusion=0))])
    evaluator = MissRateEvaluator(NAME)
    show(evaluator, day["image_id"], (*TALL, 0.9))
    found = evaluator.evaluate()["MR"]
    assert list(found) == [
        f"{setting.name}/{split}" for setting in KAIST.settings for split in ("all", "day")
    ]
    assert found["reasonable/all"] == pytest.approx(0, abs=1e-6)
    assert found["none/all"] == pytest.approx(50)
    assert found["far/all"] == 100
    assert math.isnan(found["heavy/all"])


def test_boxes_that_training_clips_or_drops_are_judged_as_the_file_has_them(register):
    """A label over the border is no label to find, and half of it inside is none either."""
    register([record("set06/V000/I00019", label(600, 100, 80, 160), label(*TALL))])
    evaluator = MissRateEvaluator(NAME)
    show(evaluator, "set06/V000/I00019", (*TALL, 0.9), (600, 100, 40, 160, 0.8))
    assert evaluator.evaluate()["MR"]["reasonable/all"] == pytest.approx(0, abs=1e-6)


def test_several_classes_have_a_miss_rate_each(register):
    register(
        [record("a", label(*TALL), label(*SHORT, category_id=1))],
        classes=("person", "cyclist"),
        kind="coco",
    )
    evaluator = MissRateEvaluator(NAME, miss_rate_protocol(config({"any": {}}, {"a": ["a"]})))
    show(evaluator, "a", (*TALL, 0.9, 0), (*SHORT, 0.8, 0))
    found = evaluator.evaluate()["MR"]
    assert found["person/any/all"] == pytest.approx(0, abs=1e-6)
    assert found["cyclist/any/all"] == 100
    assert list(found) == ["person/any/all", "person/any/a", "cyclist/any/all", "cyclist/any/a"]


def test_log_says_how_labels_without_occlusion_are_judged_and_why_compat_differs(register, caplog):
    register([record(f"set06/V000/I0000{n}", label(*TALL)) for n in range(2)])
    evaluator = MissRateEvaluator(NAME)
    show(evaluator, "set06/V000/I00000", (*TALL, 0.9))
    with caplog.at_level(logging.INFO, logger="d2pd"):
        evaluator.evaluate()
    assert f"{NAME}: miss rate (strict): reasonable/all 50.00" in caplog.text
    assert (
        f"{NAME}: Labels without an occlusion flag are judged on height and bounds" in caplog.text
    )
    assert "reasonable/all: compat 0.00, strict 50.00: compat does not count 1 of 2" in caplog.text


def test_compat_is_returned_where_it_is_asked_for(register):
    register([record(f"set06/V000/I0000{n}", label(*TALL)) for n in range(2)])
    evaluator = MissRateEvaluator(NAME, mode="compat")
    show(evaluator, "set06/V000/I00000", (*TALL, 0.9))
    assert evaluator.evaluate()["MR"]["reasonable/all"] == 0


def config(settings=(), splits=()):
    cfg = default_config()
    cfg.MISS_RATE.SETTINGS.update(settings)
    cfg.MISS_RATE.SPLITS.update(splits)
    return cfg


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [("kaist", {}, True), ("coco", {}, False), ("coco", {"tall": {"HEIGHT": [80, 999]}}, True)],
)
def test_miss_rate_is_for_kaist_data_and_where_settings_are_given(
    register, kind, settings, expected, tmp_path
):
    register([record("a", label(*TALL))], kind=kind)
    cfg = config(settings)
    cfg.OUTPUT_DIR = str(tmp_path)
    assert has_miss_rate(cfg, NAME) is expected
    evaluator = build_evaluator(cfg, NAME)
    show(evaluator, "a", (*TALL, 0.9))
    results = evaluator.evaluate()
    assert list(results) == (["bbox", "MR"] if expected else ["bbox"])
    assert (tmp_path / "inference" / NAME / "predictions.json").is_file()


def test_protocol_is_kaists_where_the_configuration_says_nothing():
    assert miss_rate_protocol(config()) == KAIST
    own = miss_rate_protocol(config({"tall": {"HEIGHT": [80, 999]}}))
    assert [setting.name for setting in own.settings] == ["tall"]
    assert own.splits == KAIST.splits
    own = miss_rate_protocol(config(splits={"rain": ["set12"]}))
    assert own.settings == KAIST.settings
    assert [split.name for split in own.splits] == ["all", "rain"]


def test_setting_with_an_unknown_key_is_refused_by_name():
    with pytest.raises(ConfigError, match="MISS_RATE.SETTINGS.tall"):
        miss_rate_protocol(config({"tall": {"HIGHT": [80, 999]}}))
