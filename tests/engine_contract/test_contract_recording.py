"""The suite itself: what it compares, and that it records under Detectron2 alone."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contract_recording import FOLDER, Contract, Recorder, as_json, compare

RECORD = Path(__file__).with_name("record.py")


def recorded(tmp_path: Path, observation: dict) -> Contract:
    contract = Contract("x", "embedded", None)
    contract.path = tmp_path / "x.json"
    Recorder("0.6", "abc").write(contract.path, observation)
    return contract


def test_equal_observations_pass(tmp_path: Path) -> None:
    observation = {"a": [1, 2.5, None], "b": {"c": "x", "d": torch.tensor([1.0, math.nan])}}
    contract = recorded(tmp_path, observation)
    contract(observation)
    assert contract.compared


@pytest.mark.parametrize(
    "other",
    [
        {"a": 1, "b": 2.0001},
        {"a": True, "b": 2.0},
        {"a": 1, "b": 2},
        {"a": 1, "b": math.nan},
        {"b": 2.0, "a": 1},
        {"a": 1},
        {"a": 1, "b": 2.0, "c": None},
        {"a": [1], "b": 2.0},
    ],
)
def test_other_observations_fail(tmp_path: Path, other: dict) -> None:
    contract = recorded(tmp_path, {"a": 1, "b": 2.0})
    with pytest.raises(AssertionError, match="not as Detectron2 does"):
        contract(other)


def test_tolerance_is_the_tests_own(tmp_path: Path) -> None:
    contract = recorded(tmp_path, {"a": 1000.0})
    contract({"a": 1000.5}, rtol=1e-3)
    contract({"a": 1000.5}, atol=0.6)
    with pytest.raises(AssertionError, match=r"\.a: recorded 1000\.0, here 1000\.5"):
        contract({"a": 1000.5}, rtol=1e-4)


def test_a_difference_must_differ(tmp_path: Path) -> None:
    contract = recorded(tmp_path, {"a": 1, "b": 2})
    contract({"a": 5, "b": 2}, differences={"a": "on purpose"})
    with pytest.raises(AssertionError, match="a is listed as a difference and does not differ"):
        contract({"a": 1, "b": 2}, differences={"a": "on purpose"})


def test_under_detectron2_nothing_may_differ(tmp_path: Path) -> None:
    contract = recorded(tmp_path, {"a": 1})
    contract.engine = "detectron2"
    with pytest.raises(AssertionError, match="not as Detectron2 does"):
        contract({"a": 5}, differences={"a": "on purpose"})


def test_two_tests_cannot_share_a_file(tmp_path: Path) -> None:
    recorder = Recorder("0.6", "abc")
    recorder.write(tmp_path / "x.json", {})
    with pytest.raises(AssertionError, match=r"two tests would write x\.json"):
        recorder.write(tmp_path / "x.json", {})


def test_floats_are_rounded() -> None:
    assert as_json(1 / 3) == 0.3333333
    assert compare(as_json(1 / 3), 1 / 3, 1e-6, 0) == []
    with pytest.raises(TypeError, match="cannot hold set"):
        as_json({1})


def test_files_name_their_detectron2() -> None:
    files = sorted(FOLDER.glob("*.json"))
    assert len(files) > 100
    heads = [json.loads(file.read_text()) for file in files]
    assert all(list(head) == ["detectron2", "torch", "observation"] for head in heads)
    commits = {head["detectron2"]["commit"] for head in heads}
    assert len(commits) == 1
    assert re.fullmatch(r"[0-9a-f]{40}", commits.pop())
    assert sum(file.stat().st_size for file in files) < 1_000_000


def test_recording_is_refused_under_the_embedded_engine() -> None:
    before = {file: file.stat().st_mtime_ns for file in FOLDER.iterdir()}
    environment = {**os.environ, "D2PD_ENGINE": "embedded"}
    done = subprocess.run(
        [sys.executable, str(RECORD)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("record: D2PD_ENGINE is 'embedded'")
    assert done.stderr.count("\n") == 1
    assert before == {file: file.stat().st_mtime_ns for file in FOLDER.iterdir()}
