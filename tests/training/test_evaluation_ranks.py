"""Two processes evaluate as one does: every image once, the same figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/quick/ssd_seg_synthetic.yaml"
IMAGES = 5
"""An odd number: one of two processes has more of them."""


def train_net(folder, *words):
    opts = [*("MODEL.DEVICE", "cpu", "DATASETS.ROOT", str(folder / "data"))]
    opts += ["DATASETS.SYNTHETIC.NUM_TRAIN", "8", "DATASETS.SYNTHETIC.NUM_TEST", str(IMAGES)]
    opts += ["DATALOADER.NUM_WORKERS", "0", "SOLVER.WARMUP_ITERS", "1"]
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(CONFIG)]
    done = subprocess.run(
        [*command, *words, *opts],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def predictions(folder):
    return json.loads((folder / "inference/synthetic_val/predictions.json").read_text())


@pytest.mark.slow
def test_two_processes_find_what_one_finds_in_every_image_once(tmp_path):
    trained, one, two = tmp_path / "trained", tmp_path / "one", tmp_path / "two"
    train_net(tmp_path, "OUTPUT_DIR", str(trained), "SOLVER.MAX_ITER", "4")
    weights = ["MODEL.WEIGHTS", str(trained / "model_final.pth")]
    train_net(tmp_path, "--eval-only", *weights, "OUTPUT_DIR", str(one))
    train_net(tmp_path, "--eval-only", "--num-gpus", "2", *weights, "OUTPUT_DIR", str(two))
    expected, found = predictions(one), predictions(two)
    assert len(expected["predictions"]) > IMAGES
    assert len({row["image_id"] for row in expected["predictions"]}) == IMAGES
    assert found == expected
    assert (two / "log.txt.rank1").is_file()
    figures = [
        sorted(line for line in (folder / "log.txt").read_text().splitlines() if "AP50" in line)
        for folder in (one, two)
    ]
    assert figures[0]
    assert len(figures[0]) == len(figures[1])


@pytest.mark.slow
def test_two_processes_train_and_write_as_one(tmp_path):
    """Fewer images to validate on than both could take; one set of files."""
    output = tmp_path / "output"
    words = ["--num-gpus", "2", "OUTPUT_DIR", str(output), "SOLVER.MAX_ITER", "20"]
    words += ["VALIDATION.MAX_IMAGES", "1", "SOLVER.IMS_PER_BATCH", "4", "TEST.EVAL_PERIOD", "10"]
    train_net(tmp_path, *words)
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    iterations = [row["iteration"] for row in rows]
    assert iterations == sorted(set(iterations))
    assert "val/total_loss" in rows[-1]
    assert "bbox/AP50" in rows[-1]
    assert len(list(output.glob("events.out.tfevents.*"))) == 1
    assert {"model_final.pth", "model_best.pth", "log.txt", "log.txt.rank1"} <= {
        path.name for path in output.iterdir()
    }
