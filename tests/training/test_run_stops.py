"""Runs that are asked to stop: saved at the next boundary, told by the exit code, gone on with."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from d2pd.d2 import ENGINE

ROOT = Path(__file__).resolve().parents[2]
QUICK = "configs/quick/faster_rcnn_synthetic.yaml"

pytestmark = pytest.mark.slow  # a dozen processes


def start(output, opts, *flags):
    words = ["train_net.py", "--config-file", QUICK, *flags, *opts, "OUTPUT_DIR", str(output)]
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "D2PD_ENGINE": ENGINE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(output, opts, *flags):
    process = start(output, opts, *flags)
    log, _ = process.communicate(timeout=300)
    return process.returncode, log


def wait_for(process, text):
    """Read the log until a line has the text; return what was read."""
    read = []
    for line in process.stdout:
        read.append(line)
        if text in line:
            return "".join(read)
    raise AssertionError(f"{text!r} never came:\n{''.join(read)}")


def weights_of(output):
    return torch.load(output / "model_final.pth", weights_only=True)["model"]


def assert_same_weights(ours, theirs):
    ours, theirs = weights_of(ours), weights_of(theirs)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.fixture(scope="module")
def opts(quick_opts):
    return [*quick_opts, "SOLVER.MAX_ITER", "12", "TEST.EVAL_PERIOD", "6"]


@pytest.fixture(scope="module")
def whole(opts, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    code, log = run(output, opts)
    assert code == 0, log
    return output


def test_sigterm_saves_at_the_step_and_resume_ends_as_the_whole_run(opts, whole, tmp_path):
    output = tmp_path / "run"
    process = start(output, opts)
    wait_for(process, "=== started")
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    log, _ = process.communicate(timeout=120)
    assert process.returncode == 143, log
    assert re.search(r"d2pd: stopped by SIGTERM after iteration \d+: --resume goes on", log)
    assert "Traceback" not in log

    code, log = run(output, opts, "--resume")
    assert code == 0, log
    assert "The run goes on exactly" in log
    assert "=== resumed after iteration" in log
    assert_same_weights(output, whole)
    assert len((output / "metrics.json").read_text().splitlines()) == 2


@pytest.mark.slow
def test_ctrl_c_of_a_terminal_reaches_the_workers_too_and_harms_nothing(opts, whole, tmp_path):
    output, opts = tmp_path / "run", [*opts, "DATALOADER.NUM_WORKERS", "2"]
    process = start(output, opts)
    wait_for(process, "=== started")
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # its session: what a terminal does
    log, _ = process.communicate(timeout=120)
    assert process.returncode == 130, log
    assert "once more stops at once" in log
    assert "Traceback" not in log

    code, log = run(output, opts, "--resume")
    assert code == 0, log
    assert_same_weights(output, whole)


@pytest.mark.slow
def test_sigterm_during_an_evaluation_leaves_it_pending_and_a_resume_does_it_first(
    opts, whole, tmp_path
):
    output = tmp_path / "run"
    process = start(output, opts)
    wait_for(process, "model_0000005.pth")  # saved before the evaluation
    process.send_signal(signal.SIGTERM)
    log, _ = process.communicate(timeout=120)
    assert process.returncode == 143, log
    assert "after iteration 5" in log
    is_pending = torch.load(output / "model_0000005.pth", weights_only=True)["pending"]
    assert is_pending is True
    assert not (output / "metrics.json").exists()

    code, log = run(output, opts, "--resume")
    assert code == 0, log
    assert "the evaluation after iteration 5 is pending: it comes first" in log
    assert log.index("is pending") < log.index("iteration 5: loss on synthetic_val")
    assert_same_weights(output, whole)
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    expected = [json.loads(line) for line in (whole / "metrics.json").read_text().splitlines()]
    assert [row["val/total_loss"] for row in rows] == [row["val/total_loss"] for row in expected]
    assert [row["total_loss"] for row in rows] == [row["total_loss"] for row in expected]


def test_finished_run_says_so_and_gives_its_results_again(opts, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.glob("model_*.pth")}
    code, log = run(whole, opts, "--resume")
    assert code == 0, log
    assert "all 12 iterations are done: raise SOLVER.MAX_ITER to train on" in log
    assert {path: path.stat().st_mtime_ns for path in whole.glob("model_*.pth")} == before


def test_fewer_iterations_than_are_done_end_the_run_with_what_there_is(opts, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    for name in ("model_final.pth", "results.json"):
        (tmp_path / "run" / name).unlink()
    code, log = run(tmp_path / "run", [*opts, "SOLVER.MAX_ITER", "7"], "--resume")
    assert code == 0, log
    assert "all 7 iterations are done" in log
    assert_same_weights(tmp_path / "run", whole)
    assert json.loads((tmp_path / "run/results.json").read_text())["iteration"] == 11
