"""What counts as a run in a folder, and what goes when another one takes its place."""

import signal
import subprocess
import sys

import pytest

from d2pd.training.checkpoints.mirror import SMALL_FILES
from d2pd.training.run_folder import held_run, held_traces, is_of_run, remove_run


@pytest.mark.parametrize(
    "name", ["last_checkpoint", "metrics.json", "model_0000009.pth", "model_best.pth"]
)
def test_folder_with_a_trace_of_a_run_holds_one(tmp_path, name):
    (tmp_path / name).write_text("x")
    assert held_run(tmp_path) == name


def test_all_traces_of_a_run_are_named(tmp_path):
    for name in ("model_0000009.pth", "metrics.json", "config.yaml"):
        (tmp_path / name).write_text("x")
    assert held_traces(tmp_path) == ["metrics.json", "model_0000009.pth"]


def test_empty_trace_other_files_and_a_folder_that_is_not_there_hold_none(tmp_path):
    (tmp_path / "metrics.json").touch()
    (tmp_path / "notes.txt").write_text("mine")
    assert held_run(tmp_path) is None
    assert held_run(tmp_path / "absent") is None


def test_what_a_run_wrote_goes_and_what_the_user_put_there_stays(tmp_path):
    for name in ("model_0000009.pth", "model_final.pth", "metrics.json", "notes.txt", "my.pth"):
        (tmp_path / name).write_text("x")
    (tmp_path / "inference/val").mkdir(parents=True)
    (tmp_path / "inference/val/predictions.json").write_text("[]")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keep").touch()
    (tmp_path / "non_finite").symlink_to(elsewhere)

    remove_run(tmp_path)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "my.pth", "notes.txt"]
    assert (elsewhere / "keep").exists()
    assert held_run(tmp_path) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from d2pd.atomic_file import atomic_file
with atomic_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", [*SMALL_FILES, "last_checkpoint", "model_0000009.pth"])
def test_half_file_of_a_killed_run_is_no_run_and_goes_with_it(tmp_path, name):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False)
    assert killed.returncode == -signal.SIGKILL
    (half,) = tmp_path.iterdir()
    (tmp_path / ".notes.part").touch()  # somebody else's
    assert held_run(tmp_path) is None
    assert is_of_run(half, tmp_path)
    remove_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".notes.part"]


def test_link_to_itself_is_deleted_and_no_weights_are_in_it(tmp_path):
    loop = tmp_path / "model_0000009.pth"
    loop.symlink_to(loop.name)
    assert not is_of_run(tmp_path / "weights.pth", tmp_path)
    assert is_of_run(loop, tmp_path)
    remove_run(tmp_path)
    assert list(tmp_path.iterdir()) == []
