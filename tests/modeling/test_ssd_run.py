"""A whole run of the quick config's SSDSeg: training, validation loss, evaluation, prediction."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from d2pd.config import train_parser
from d2pd.inference.predictor import load
from d2pd.training.run import main

QUICK = Path(__file__).resolve().parents[2] / "configs/quick/ssd_seg_synthetic.yaml"


@pytest.fixture(scope="module")
def output(drawn_root, without_pictures, tmp_path_factory):
    """The folder of a run of twenty steps on a pair of cameras, resumed after twelve."""
    folder = tmp_path_factory.mktemp("run") / "output"
    settings = {
        "DATASETS.ROOT": drawn_root,
        "DATASETS.SYNTHETIC.NUM_TRAIN": 12,
        "DATASETS.SYNTHETIC.NUM_TEST": 4,
        "INPUT.MODALITY": "both",
        "INPUT.FIXED_SIZE": (96, 128),
        "MODEL.PIXEL_MEAN": [90.0, 90.0, 90.0, 50.0],
        "MODEL.PIXEL_STD": [50.0, 50.0, 50.0, 30.0],
        "MODEL.DEVICE": "cpu",
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.WARMUP_ITERS": 2,
        "SOLVER.CHECKPOINT_PERIOD": 6,
        "TEST.EVAL_PERIOD": 10,
        "DATALOADER.NUM_WORKERS": 0,
        "OUTPUT_DIR": folder,
    }
    opts = [str(word) for pair in settings.items() for word in pair]
    for max_iter, flags in (("12", []), ("20", ["--resume"])):
        words = ["--config-file", str(QUICK), *flags, *opts, "SOLVER.MAX_ITER", max_iter]
        main(train_parser().parse_args(words))
    return folder


def test_losses_of_training_validation_and_maps_are_logged(output):
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    names = {name for row in rows for name in row}
    for name in ("loss_cls", "loss_box_reg", "loss_seg"):
        assert {name, f"val/{name}"} <= names
    assert {"loss_seg/conv4_3", "loss_seg/conv7", "bbox/AP50", "val/total_loss"} <= names
    assert rows[-1]["iteration"] == 19
    assert all(np.isfinite(row["total_loss"]) for row in rows if "total_loss" in row)


def test_the_checkpoint_predicts_and_no_segmentation_layer_runs(output, caplog):
    caplog.set_level(logging.WARNING)
    predictor = load(output, device="cpu")
    assert "not in" not in caplog.text
    saved = torch.load(output / "model_final.pth", weights_only=True)["model"]
    for name, tensor in predictor.model.state_dict().items():
        assert torch.equal(tensor, saved[name]), name
    for head in predictor.model.seg_heads.values():
        head.register_forward_hook(lambda *_: pytest.fail("a segmentation layer ran"))
    found = predictor.predict(np.zeros((512, 640, 6), np.uint8), threshold=0)
    assert found.image.shape == (512, 640, 6)
    assert found.class_names == ("person",)
