"""Whole runs on thermal images and on pairs, under whichever engine there is."""

import json

import cv2
import numpy as np
import pytest
import torch
from run_toys import QUICK, THIN, all_rows, log_of, run_main

from d2pd import cli
from d2pd.config import load_config
from d2pd.d2 import DatasetCatalog
from d2pd.data.registration import register_from_config
from d2pd.inference.predictor import Predictor, load

SSD_QUICK = QUICK.replace("faster_rcnn", "ssd_seg")
FEW = ["SOLVER.MAX_ITER", "3", "SOLVER.CHECKPOINT_PERIOD", "3", "SOLVER.IMS_PER_BATCH", "2"]


def channels(modality, count):
    values = str([50.0] * count)
    return ["INPUT.MODALITY", modality, "MODEL.PIXEL_MEAN", values, "MODEL.PIXEL_STD", values]


@pytest.mark.parametrize(("modality", "count"), [("lwir", 1), ("lwir", 3), ("both", 4)])
def test_faster_rcnn_trains_and_is_evaluated(quick_opts, tmp_path, monkeypatch, modality, count):
    monkeypatch.setattr("d2pd.training.run.write_pictures", lambda _: {})
    monkeypatch.setattr("d2pd.training.run.write_train_batch", lambda *_: None)
    words = [*quick_opts, *THIN, *FEW, *channels(modality, count)]
    results = run_main(tmp_path, words)
    assert set(results["bbox"]) >= {"AP", "AP50"}
    losses = all_rows(tmp_path)[-1]
    assert 0 < losses["total_loss"] < 100
    weights = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    assert weights["backbone.bottom_up.stem.conv1.weight"].shape[1] == count
    assert load(tmp_path).channels.total == count


@pytest.fixture(scope="module", autouse=True)
def _two_samples():
    """Draw two samples where a run draws eight: pictures take longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2pd.training.pictures.PREVIEW_SAMPLES", 2)
        yield


@pytest.fixture(scope="module")
def pair_run(quick_opts, tmp_path_factory):
    """The folder of a run of Faster R-CNN on pairs of six channels, with all its pictures."""
    folder = tmp_path_factory.mktemp("pairs") / "run"
    run_main(folder, [*quick_opts, *THIN, *FEW, *channels("both", 6)])
    return folder


def test_run_on_pairs_leaves_pictures_of_both_cameras_and_a_report(pair_run):
    for name, wide in (("train_batch.png", 4), ("detections_synthetic_val.png", 4)):
        picture = cv2.imread(str(pair_run / name)).astype(int)
        assert picture.shape[1] == wide * 560 + (wide + 1) * 12
    # Tiles of thermal pictures are grey but for the boxes.
    batch = cv2.imread(str(pair_run / "train_batch.png")).astype(int)[80:400]
    coloured = [
        (abs(np.ptp(batch[:, 20 + i * 572 : 560 + i * 572], axis=2)) > 30).mean() for i in range(2)
    ]
    assert coloured[0] > 3 * coloured[1]
    page = (pair_run / "report.html").read_text(encoding="utf-8")
    assert "visible and lwir, short side 128 px" in page
    assert "cannot be" not in log_of(pair_run)
    assert "12 images (visible and lwir, 6 channels)" in (pair_run / "run.log").read_text()


def test_cards_of_a_report_on_pairs_show_the_visible_frames(pair_run):
    cfg = load_config(pair_run / "config.yaml")
    register_from_config(cfg)
    record = DatasetCatalog.get("synthetic_val")[0]
    path = pair_run / "inference" / "synthetic_val" / "predictions.json"
    content = json.loads(path.read_text())
    wrong = {"image_id": record["image_id"], "category_id": 0, "bbox": [5, 5, 40, 90], "score": 0.9}
    path.write_text(json.dumps({**content, "predictions": [wrong]}))
    assert cli.main(["report", str(pair_run)]) == 0
    page = (pair_run / "report.html").read_text(encoding="utf-8")
    assert "These are the visible ones of the pairs of frames that the model saw" in page
    assert "data:image/jpeg;base64" in page


def test_predictor_of_a_run_on_pairs_reads_both_files_of_a_record(pair_run):
    predictor = load(pair_run)
    register_from_config(predictor.cfg)
    record = DatasetCatalog.get("synthetic_val")[0]
    image = predictor.read(record)
    assert image.shape == (512, 640, 6)
    assert (image[:, :, 3] == image[:, :, 5]).all()
    assert predictor.predict_records([record]) is not None


def test_diagnosis_looks_at_pairs(quick_opts, tmp_path, capsys):
    words = ["diagnose", "--config-file", QUICK, "--output", str(tmp_path)]
    assert cli.main([*words, *quick_opts, *THIN, *channels("both", 4)]) == 0
    told = json.loads((tmp_path / "diagnose.json").read_text())
    assert told["complete"]
    assert len(told["highest_losses"]) == 10


def test_ssd_with_infusion_trains_on_pairs(quick_opts, tmp_path):
    words = ["--config-file", SSD_QUICK, *quick_opts, *FEW, *channels("both", 4)]
    words += ["MODEL.SSD.FUSION", "halfway", "OUTPUT_DIR", str(tmp_path)]
    sizes = words.index("INPUT.MIN_SIZE_TRAIN")
    del words[sizes : sizes + 4]
    assert cli.train(words) == 0
    row = all_rows(tmp_path)[-1]
    assert {"loss_seg", "loss_seg/conv4_3", "loss_seg/conv7", "loss_cls", "bbox/AP"} <= set(row)
    picture = cv2.imread(str(tmp_path / "train_batch.png"))
    assert picture.shape[1] == 8 * 560 + 9 * 12  # visible, thermal, two masks; two samples a row
    assert "256 px high and 320 wide" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert Predictor(load(tmp_path).cfg).has_heat_maps
