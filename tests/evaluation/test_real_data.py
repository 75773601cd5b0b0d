"""The metric and the loader on real labels and photos."""

import csv
from pathlib import Path

import pytest
import torch

from d2pd.config_keys import default_config
from d2pd.d2 import Boxes, DatasetCatalog, Instances, MetadataCatalog
from d2pd.data.annotations import read_kaist_json
from d2pd.data.loader import build_test_loader, build_train_dataset, first_samples
from d2pd.data.registration import register_csv
from d2pd.evaluation.coco import evaluate_boxes
from d2pd.evaluation.evaluators import CocoEvaluator

FACES = "real_data_faces"


@pytest.fixture
def faces(shared_data: Path):
    folder = shared_data / "face_mask" / "test"
    register_csv(FACES, folder / "_annotations.csv", folder)
    cfg = default_config()
    cfg.DATASETS.TRAIN = (FACES,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TEST = 208
    yield cfg
    DatasetCatalog.remove(FACES)
    MetadataCatalog.remove(FACES)


def test_labels_as_detections_on_real_photos_are_perfect(faces):
    evaluator = CocoEvaluator(FACES)
    records = {record["image_id"]: record for record in DatasetCatalog.get(FACES)}
    for batch in build_test_loader(faces, FACES):
        assert batch[0]["image"].shape == (3, 208, 208)
        found = Instances((416, 416))
        labels = records[batch[0]["image_id"]]["annotations"]
        found.pred_boxes = Boxes([label["bbox"] for label in labels])
        found.pred_classes = torch.tensor([label["category_id"] for label in labels])
        found.scores = torch.ones(len(labels))
        evaluator.process(batch, [{"instances": found}])
    results = evaluator.evaluate()["bbox"]
    assert len(records) == 85
    assert results["AP"] == pytest.approx(100)
    assert set(results) >= {"AP-with_mask", "AP-without_mask", "AP-mask_weared_incorrect"}


def test_training_samples_of_real_photos_keep_their_boxes(faces):
    samples = first_samples(build_train_dataset(faces), 85)
    assert len({sample["image_id"] for sample in samples}) == 85
    objects = sum(len(sample["instances"]) for sample in samples)
    assert objects == sum(len(r["annotations"]) for r in DatasetCatalog.get(FACES))


def test_published_kaist_detections_have_the_ap_of_pycocotools(shared_data: Path):
    pytest.importorskip("pycocotools")
    from test_coco import assert_equal, pycocotools_results

    records = read_kaist_json(shared_data / "kaist" / "test20.json", None).records
    with (shared_data / "kaist" / "results" / "MLPD_result.txt").open() as file:
        rows = [[float(value) for value in row] for row in csv.reader(file)]
    predictions = [
        # The file counts images from 1, the labels from 0.
        {"image_id": int(row[0]) - 1, "category_id": 0, "bbox": row[1:5], "score": row[5]}
        for row in rows
    ]
    results = evaluate_boxes(records, predictions, ["person"])
    assert_equal(results, pycocotools_results(records, predictions, ["person"]))
    assert results["AP50"] == pytest.approx(79.7031, abs=1e-4)
