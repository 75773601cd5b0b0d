"""Two processes resume from one file, and neither waits for the other when there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_toys import Run, cut

SCRIPT = Path(__file__).with_name("checkpoint_rank.py")
ROOT = SCRIPT.parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    Run(folder / "out").train(2).save()
    Run(folder / "mirror").train(5).save()
    cut(Run(folder / "damaged").train(2).save())
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    """What each of two gloo processes met."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(folder)],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=150)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(errors)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_both_load_the_file_that_the_first_copied_back(ranks, folder):
    expected = Run(folder / "x").train(5).model.a.weight.sum().item()
    assert [rank["mirror"] for rank in ranks] == [[4, expected]] * 2
    assert (folder / "out/model_0000004.pth").exists()


def test_both_say_why_there_is_nothing_to_go_on_from(ranks):
    for name, kind, text in (
        ("nothing", "MissingFileError", "cannot resume: no model_"),
        ("damaged", "WeightsError", "model_0000001.pth is cut off or damaged"),
    ):
        assert ranks[0][name] == ranks[1][name]
        assert ranks[0][name][0] == kind
        assert text in ranks[0][name][1]


def test_one_of_them_saves(ranks):
    assert [rank["saved"] for rank in ranks] == [["last_checkpoint", "model_0000000.pth"]] * 2
