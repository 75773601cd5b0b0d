import json
import sys

import numpy as np
import pytest

from d2pd.config_keys import default_config
from d2pd.d2 import EventStorage
from d2pd.training.writers.build import build_writers, run_facts


@pytest.fixture
def cfg(tmp_path):
    cfg = default_config()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH = 40, 2
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("toys_train",), ("toys_val",)
    return cfg


def train(storage, writers, iterations):
    for iteration in iterations:
        storage.iter = iteration
        storage.put_scalars(total_loss=1.0, time=0.5)
        if (iteration + 1) % 10 == 0:
            figures = {"bbox/AP": float(iteration), "best/bbox/AP": 9.0}
            storage.put_scalars(**figures, smoothing_hint=False)
            storage.put_image("pictures/curves", np.zeros((3, 4, 5), np.uint8))
            writers.write()


def test_run_that_is_killed_and_resumed_leaves_one_record(cfg, tmp_path):
    with EventStorage() as storage:
        writers = build_writers(cfg, start_iter=0, max_iter=40, num_images=20)
        train(storage, writers, range(30))
    with EventStorage(20) as storage:
        storage.put_scalars(**{"bbox/AP": 19.0}, smoothing_hint=False, cur_iter=19)
        writers = build_writers(cfg, start_iter=20, max_iter=40, num_images=20)
        train(storage, writers, range(20, 40))
        writers.finish("all 40 iterations are done")
        writers.close()

    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [9, 19, 29, 39]
    assert all("eta_seconds" in row for row in rows)
    log = (tmp_path / "run.log").read_text()
    assert log.count("resumed after iteration 19") == 1
    before, after = log.split("resumed")
    assert "best  bbox/AP 9 (at iteration 9)" in after
    assert ("random weights" in before, "random weights" in after) == (True, False)
    assert "from its checkpoint" in after
    assert log.splitlines()[-1].split("  ")[1].startswith("=== all 40 iterations are done, ")
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2


def test_row_of_a_pending_evaluation_is_written_anew(cfg, tmp_path):
    with EventStorage(9) as storage:
        storage.put_scalar("total_loss", 1.0)
        # An error in the evaluation left the row without its figures.
        build_writers(cfg, start_iter=0, max_iter=40, num_images=20).write()
        writers = build_writers(cfg, start_iter=10, max_iter=40, num_images=20, is_pending=True)
        storage.put_scalars(**{"bbox/AP": 9.0}, smoothing_hint=False)
        writers.write()
    (row,) = (json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines())
    assert row["bbox/AP"] == 9.0
    assert row["total_loss"] == 1.0
    after = (tmp_path / "run.log").read_text().split("resumed after iteration 9")[1]
    assert "9/40" in after
    assert "bbox  AP 9" in after


def test_early_end_is_a_row_of_its_own(cfg, tmp_path):
    with EventStorage() as storage:
        writers = build_writers(cfg, start_iter=0, max_iter=40, num_images=20)
        train(storage, writers, range(10))
        writers.note_stop(9, "bbox/AP has not improved")
    last = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    assert last == {"iteration": 9, "stopped": "bbox/AP has not improved"}


def test_weights_and_biases_gets_its_pictures_before_tensorboard_clears_them(cfg, monkeypatch):
    sent = []

    class Run:
        step = 0

        def log(self, row, step):
            sent.append((step, sorted(row)))

    class Wandb:
        init = staticmethod(lambda **settings: Run())
        Image = staticmethod(lambda pixels: pixels)

    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    cfg.WANDB.ENABLED = True
    with EventStorage() as storage:
        train(storage, build_writers(cfg, start_iter=0, max_iter=40, num_images=20), range(20))
        assert storage._vis_data == []
    assert [step for step, _ in sent] == [9, 19]
    assert all("pictures/curves" in names for _, names in sent)


def test_facts_tell_model_data_length_and_evaluation(cfg):
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE, cfg.TEST.EVAL_PERIOD = "r50.pkl", "cpu", 1000
    cfg.SOLVER.BASE_LR, cfg.SOLVER.ACCUMULATE = 0.02, 2
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    assert run_facts(cfg, 20) == [
        "GeneralizedRCNN with build_resnet_fpn_backbone from r50.pkl",
        "20 images (visible) of toys_train",
        "40 iterations of 2 images in 2 parts = 4.0 epochs; SGD, rate 0.02, fp32 on cpu",
        "evaluation every 1,000 iterations on toys_val; "
        "validation loss every 1,000 iterations on toys_val; never stops early",
    ]


@pytest.mark.parametrize(
    ("modality", "channels", "words"),
    [
        ("lwir", 1, "(lwir, 1 channel)"),
        ("lwir", 3, "(lwir, 3 channels)"),
        ("both", 4, "(visible and lwir, 4 channels)"),
    ],
)
def test_facts_tell_cameras_and_channels(cfg, modality, channels, words):
    cfg.INPUT.MODALITY, cfg.MODEL.PIXEL_MEAN = modality, [1.0] * channels
    assert run_facts(cfg, 20)[1] == f"20 images {words} of toys_train"


def test_facts_of_a_bare_run(cfg):
    cfg.MODEL.WEIGHTS, cfg.DATASETS.TEST = "", ()
    cfg.EARLY_STOPPING.METRIC = "val/total_loss"
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = True, "bf16"
    facts = run_facts(cfg, 20)
    assert "from random weights" in facts[0]
    assert "bf16 on" in facts[2]
    assert facts[3] == "no evaluation; stops early by val/total_loss"
