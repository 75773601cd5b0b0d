import json
import logging
import math
from collections.abc import Iterator

import pytest
import torch

from d2pd.d2 import Boxes, DatasetCatalog, Instances, MetadataCatalog
from d2pd.evaluation.evaluators import CocoEvaluator, coco_rows, write_json

NAME = "evaluators_toys"


def label(bbox, category_id=0, ignore=0):
    return {
        "bbox": bbox,
        "bbox_mode": 0,
        "category_id": category_id,
        "ignore": ignore,
        "iscrowd": ignore,
    }


@pytest.fixture
def records() -> Iterator[list[dict]]:
    rows = [
        {
            "file_name": f"{number}.png",
            "image_id": number,
            "height": 100,
            "width": 200,
            "annotations": [label([10.0, 10.0, 50.0, 90.0])],
        }
        for number in (3, 4)
    ]
    DatasetCatalog.register(NAME, lambda: rows)
    MetadataCatalog.get(NAME).thing_classes = ["person"]
    yield rows
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def instances(*boxes, score=0.5) -> Instances:
    found = Instances((100, 200))
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.full((len(boxes),), score)
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return found


def show(evaluator: CocoEvaluator, image_id: int, *boxes) -> None:
    evaluator.process([{"image_id": image_id}], [{"instances": instances(*boxes)}])


def test_perfect_detections(records, tmp_path):
    evaluator = CocoEvaluator(NAME, tmp_path / "new" / "folder")
    evaluator.process(
        [{"image_id": 3}, {"image_id": 4}], [{"instances": instances([10, 10, 50, 90])}] * 2
    )
    results = evaluator.evaluate()
    assert list(results) == ["bbox"]
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert math.isnan(results["bbox"]["APs"])


def test_predictions_are_written_with_the_names_of_their_classes(records, tmp_path):
    evaluator = CocoEvaluator(NAME, str(tmp_path))
    show(evaluator, 3)
    show(evaluator, 4, [10, 10, 50, 90], [0, 0, 5, 6])
    evaluator.evaluate()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]
    assert json.loads((tmp_path / "predictions.json").read_text()) == {
        "dataset": NAME,
        "class_names": ["person"],
        "predictions": [
            {"image_id": 4, "category_id": 0, "bbox": [10, 10, 40, 80], "score": 0.5},
            {"image_id": 4, "category_id": 0, "bbox": [0, 0, 5, 6], "score": 0.5},
        ],
    }


def test_labels_are_read_anew_each_time(records):
    evaluator = CocoEvaluator(NAME)
    show(evaluator, 3, [10, 10, 50, 90])
    show(evaluator, 4)
    assert evaluator.evaluate()["bbox"]["AP50"] == pytest.approx(100 * 51 / 101)
    records[1]["annotations"] = []
    assert evaluator.evaluate()["bbox"]["AP50"] == pytest.approx(100)


def test_reset_forgets(records):
    evaluator = CocoEvaluator(NAME)
    show(evaluator, 3, [10, 10, 50, 90])
    evaluator.reset()
    show(evaluator, 4)
    show(evaluator, 3)
    assert evaluator.evaluate()["bbox"]["AP"] == 0


def test_log_says_why_ap_is_0_or_nan_and_what_was_not_seen(records, caplog):
    evaluator = CocoEvaluator(NAME)
    show(evaluator, 3)
    with caplog.at_level(logging.INFO, logger="d2pd"):
        evaluator.evaluate()
    assert f"{NAME}: the model saw 1 of 2 images" in caplog.text
    assert f"{NAME}: not a single detection, so AP is 0" in caplog.text
    assert f"{NAME}: APl is NaN: the labels hold no object over 96x96 px" in caplog.text
    assert "AP50 0.00" in caplog.text


def test_rows_leave_the_instances_as_they_are():
    found = instances([1, 2, 3, 5])
    assert coco_rows(found, "a")[0]["bbox"] == [1, 2, 2, 3]
    assert found.pred_boxes.tensor.tolist() == [[1, 2, 3, 5]]
    assert coco_rows(instances(), "a") == []


def test_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "some.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    assert json.loads(path.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [path]
