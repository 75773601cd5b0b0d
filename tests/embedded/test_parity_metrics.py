"""One short run of ``train_net.py`` under each engine: the same rows in ``metrics.json``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("detectron2", reason="compares with an installed Detectron2")
from parity_toys import NARROW, SCALARS

ROOT = Path(__file__).resolve().parents[2]
CLOCKS = {"time", "data_time", "eta_seconds"}
LOSSES = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc", "total_loss"}


def rows_under(engine, output, opts):
    command = [sys.executable, "train_net.py"]
    command += ["--config-file", "configs/quick/faster_rcnn_synthetic.yaml", *opts]
    environment = os.environ | {"D2PD_ENGINE": engine, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "OUTPUT_DIR", str(output)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (output / "metrics.json").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


@pytest.mark.slow
def test_a_run_logs_detectron2s_scalars_under_both_engines(quick_opts, tmp_path):
    words = [str(word) for item in NARROW.items() for word in item]
    opts = [*quick_opts, *words, "SOLVER.MAX_ITER", "3", "DATASETS.TEST", "()", "SEED", "3"]
    expected = rows_under("detectron2", tmp_path / "detectron2", opts)
    rows = rows_under("embedded", tmp_path / "embedded", opts)
    assert set(expected[-1]) >= SCALARS | LOSSES
    assert [set(row) for row in rows] == [set(row) for row in expected]
    for row, reference in zip(rows, expected, strict=True):
        for name in (SCALARS | LOSSES) & set(reference):
            assert row[name] == pytest.approx(reference[name], rel=1e-3, abs=1e-6), name
