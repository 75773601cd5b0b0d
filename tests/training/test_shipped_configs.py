"""The configs that come with d2pd, run as their headers say, on what this machine can carry."""

import json
from pathlib import Path

import pytest

from d2pd.d2 import default_argument_parser
from d2pd.data.synthetic import draw_dataset
from d2pd.training.run import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def run_config(name, opts):
    words = ["--config-file", str(CONFIGS / name), "MODEL.DEVICE", "cpu", *opts]
    return main(default_argument_parser().parse_args(words))


def first_and_last_loss(output):
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    losses = [row["total_loss"] for row in rows if "total_loss" in row]
    return losses[0], losses[-1]


SMALL = [
    *("INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MIN_SIZE_TEST", "128"),
    *("SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "TEST.EVAL_PERIOD", "0"),
]
SCRATCH = [
    *("MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", "0"),
    *("MODEL.RESNETS.NORM", "GN", "MODEL.RESNETS.STRIDE_IN_1X1", "False"),
]


@pytest.mark.slow
def test_demo_reaches_ap50_of_60_on_held_out_pictures(tmp_path):
    opts = ["DATASETS.ROOT", str(tmp_path), "OUTPUT_DIR", str(tmp_path / "out")]
    results = run_config("quick/faster_rcnn_synthetic.yaml", opts)
    assert results["bbox"]["AP50"] >= 60


@pytest.fixture
def drawn_kaist_root(tmp_path):
    """A dataset root where drawn pictures stand in for KAIST, all of its training videos there."""
    draw_dataset(tmp_path / "kaist", num_train=60, num_test=4, seed=1)
    return tmp_path


@pytest.mark.slow
def test_kaist_config_runs_on_drawn_data_in_its_place(drawn_kaist_root, tmp_path):
    opts = ["DATASETS.ROOT", str(drawn_kaist_root), "OUTPUT_DIR", str(tmp_path / "out")]
    results = run_config(
        "faster_rcnn_kaist.yaml", [*opts, *SMALL, *SCRATCH, "SOLVER.MAX_ITER", "4"]
    )
    assert set(results) == {"bbox", "MR", "final"}
    for name in ("kaist_val", "kaist_test"):
        assert (tmp_path / f"out/detections_{name}.png").is_file()
    log = (tmp_path / "out/log.txt").read_text()
    assert "Training on" in log


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["faster_rcnn_face_mask.yaml", "faster_rcnn_face_mask_scratch.yaml"]
)
def test_face_mask_configs_learn_on_real_photos(shared_data, tmp_path, name):
    opts = ["DATASETS.ROOT", str(shared_data), "OUTPUT_DIR", str(tmp_path / "out")]
    overrides = [*SCRATCH[:4], "MODEL.RESNETS.NORM", "BN", *SMALL]
    schedule = ["SOLVER.MAX_ITER", "40", "SOLVER.WARMUP_ITERS", "5", "SOLVER.STEPS", "()"]
    results = run_config(name, [*opts, *overrides, *schedule, "DATASETS.FINAL_TEST", "()"])
    first, last = first_and_last_loss(tmp_path / "out")
    assert last < first
    assert {"AP-with_mask", "AP-without_mask", "AP-mask_weared_incorrect"} <= set(results["bbox"])
