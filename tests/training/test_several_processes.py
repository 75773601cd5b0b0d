"""Runs of two processes on the CPU: what starts them, how they end, and what is left of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_toys import assert_equal, assert_same_files, checkpoints, rows

from d2pd.d2 import ENGINE

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(Path(__file__).with_name("faulty_train_net.py"))
CONFIG = "configs/quick/ssd_seg_synthetic.yaml"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TWO = ("--num-gpus", "2")

SECONDS = 240
"""In which any of these runs ends, on a machine that is busy; most take ten."""

SECONDS_TO_END = 60
"""In which a run ends that a fault has stopped: far below the half hour that torch would wait."""


def train(output, opts, *flags, fault="", by=()):
    """Train in processes of their own session; return exit code, stdout and stderr.

    A hang is a failure, and leaves no process behind.
    """
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    words = ["--config-file", CONFIG, *opts, "OUTPUT_DIR", str(output)]
    process = subprocess.Popen(
        [sys.executable, *by, SCRIPT, *flags, *words],
        cwd=ROOT,
        env={
            **os.environ,
            **{"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "D2PD_ENGINE": ENGINE},
            "D2PD_TEST_FAULT": fault,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=SECONDS)
    finally:
        left = wait_for_none(process.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.kill()
    assert left == [], f"{len(left)} processes are left"
    return process.returncode, stdout, stderr


def wait_for_none(session, seconds=10.0):
    """Return the processes of a session that are still there after a while."""
    deadline = time.monotonic() + seconds
    while (left := processes_of(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def processes_of(session):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def told(stderr, by=()):
    """Return the lines that the user is told; torch has warnings of its own."""
    assert stderr.count("Traceback") == (by == TORCHRUN)  # torchrun's own, with its summary
    return [line for line in stderr.splitlines() if line.startswith("d2pd:")]


def losses(output):
    return [{k: v for k, v in row.items() if "loss" in k} for row in rows(output)]


@pytest.fixture(scope="module")
def opts(quick_opts):
    return [
        *quick_opts,
        *("INPUT.FIXED_SIZE", "(96,128)", "DATASETS.TEST", "()"),
        *("SOLVER.MAX_ITER", "40", "SOLVER.CHECKPOINT_PERIOD", "10"),
    ]


@pytest.fixture(scope="module")
def whole(opts, tmp_path_factory):
    """The folder of a run of two processes that nothing has happened to."""
    output = tmp_path_factory.mktemp("whole") / "run"
    code, _, stderr = train(output, opts, *TWO)
    assert code == 0, stderr
    return output


def test_torchrun_with_num_gpus_is_refused_in_one_line(opts):
    env = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"), "1")
    found = subprocess.run(
        [sys.executable, SCRIPT, "--config-file", CONFIG, *TWO, *opts],
        cwd=ROOT,
        env={
            **os.environ,
            **env,
            **{"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"},
            **{"PYTHONPATH": str(ROOT), "D2PD_ENGINE": ENGINE},
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert found.returncode == 2
    (line,) = told(found.stderr)
    assert "leave --num-gpus and --num-machines out" in line
    assert "--nproc-per-node" in line


@pytest.mark.slow
def test_torchrun_tells_once_what_is_wrong_with_the_configuration(opts, tmp_path):
    code, _, stderr = train(tmp_path / "run", [*opts, "SOLVER.MAX_ITERS", "1"], by=TORCHRUN)
    assert code == 1
    (line,) = told(stderr, TORCHRUN)
    assert "did you mean SOLVER.MAX_ITER?" in line


@pytest.mark.slow
def test_torchrun_starts_the_same_training(opts, whole, tmp_path):
    code, _, stderr = train(tmp_path / "run", opts, by=TORCHRUN)
    assert code == 0, stderr
    assert len(losses(whole)) == 2
    assert losses(tmp_path / "run") == losses(whole)
    assert_same_files(tmp_path / "run", whole, "model_final.pth")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_killed_process_is_named_and_a_resume_ends_as_if_never_killed(opts, whole, tmp_path, rank):
    output = tmp_path / "run"
    code, _, stderr = train(output, opts, *TWO, fault=f"kill {rank} 27")
    assert time.time() - (output / "model_0000019.pth").stat().st_mtime < SECONDS_TO_END
    assert code == 2
    (line,) = told(stderr)
    assert f"the process of rank {rank} (pid " in line
    assert "was killed by SIGKILL" in line
    assert "--resume goes on from the newest checkpoint" in line
    assert checkpoints(output) == ["model_0000009.pth", "model_0000019.pth"]
    assert_same_files(output, whole, "model_0000019.pth")

    code, _, stderr = train(output, opts, *TWO, "--resume")
    assert code == 0, stderr
    assert_equal(rows(output), rows(whole), "metrics.json")
    assert_same_files(output, whole, "model_final.pth")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_ends_where_a_process_is_killed_and_goes_on(opts, whole, tmp_path, rank):
    output = tmp_path / "run"
    code, _, stderr = train(output, opts, by=TORCHRUN, fault=f"kill {rank} 27")
    assert code == 1
    (line,) = told(stderr, TORCHRUN)
    if rank:
        last = (output / "run.log").read_text().splitlines()[-1]
        assert "ended in iteration 27: another process was lost; --resume goes on" in last
    assert f"rank {1 - rank} has lost another process" in line
    assert "--resume goes on from the newest checkpoint" in line
    assert "Signal 9 (SIGKILL)" in stderr

    code, _, stderr = train(output, opts, "--resume", by=TORCHRUN)
    assert code == 0, stderr
    assert_equal(rows(output), rows(whole), "metrics.json")
    assert_same_files(output, whole, "model_final.pth")


@pytest.mark.slow
@pytest.mark.parametrize("by", [(), TORCHRUN], ids=["launcher", "torchrun"])
def test_picture_that_only_one_process_lacks_is_one_line(opts, tmp_path, by):
    flags = () if by == TORCHRUN else TWO
    code, _, stderr = train(tmp_path / "run", opts, *flags, fault="lose_pictures 1 4", by=by)
    assert code == (1 if by == TORCHRUN else 2)
    (line,) = told(stderr, by)
    assert "gone/" in line


@pytest.mark.slow
def test_loss_that_is_not_finite_on_one_process_ends_all_in_one_line(opts, tmp_path):
    code, _, stderr = train(tmp_path / "run", opts, *TWO, fault="diverge 1 12")
    assert code == 2
    told_lines = told(stderr)
    assert len(told_lines) == 1
    assert "iteration 12" in told_lines[0]
    assert checkpoints(tmp_path / "run") == ["model_0000009.pth"]


@pytest.mark.slow
@pytest.mark.parametrize("by", [(), TORCHRUN], ids=["launcher", "torchrun"])
@pytest.mark.parametrize(
    ("fault", "expected", "name"),
    [("terminate 0 12", 143, "SIGTERM"), ("press_ctrl_c 1 12", 130, "SIGINT")],
)
def test_signal_stops_all_after_one_checkpoint(opts, tmp_path, fault, expected, name, by):
    output = tmp_path / "run"
    flags = () if by == TORCHRUN else TWO
    code, _, stderr = train(output, opts, *flags, fault=fault, by=by)
    assert code == (1 if by == TORCHRUN else expected), stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("d2pd:")]
    assert f"stopped by {name} after iteration 1" in line
    assert "--resume goes on" in line
    saved = checkpoints(output)
    assert len(saved) == 2
    assert saved[0] == "model_0000009.pth"
    assert saved[1] == (output / "last_checkpoint").read_text()


@pytest.mark.slow
def test_time_limit_stops_all_with_its_own_code(opts, tmp_path):
    more = [
        "SOLVER.CHECKPOINT_PERIOD",
        "100000",
        "SOLVER.MAX_ITER",
        "100000",
        "CHECKPOINT.STOP_AFTER_MINUTES",
        "1",
    ]
    code, _, stderr = train(tmp_path / "run", [*opts, *more], *TWO)
    assert code == 75, stderr
    (line,) = told(stderr)
    assert "stopped by the time limit" in line
