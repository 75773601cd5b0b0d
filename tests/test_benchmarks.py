"""The benchmarks run and their arithmetic is right; no figure of theirs is tested."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


def load_measuring():
    spec = importlib.util.spec_from_file_location("measuring", BENCHMARKS / "measuring.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


measuring = load_measuring()


def test_every_variant_has_one_turn_a_repetition_and_another_one_is_first():
    turns = []
    variants = {name: lambda number, name=name: turns.append((number, name)) for name in "abc"}
    found = measuring.time_in_turn(variants, 2, warmup=1)
    assert [name for _, name in turns] == [*"abc", *"bca", *"cab"]
    assert [number for number, _ in turns] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {name: len(seconds) for name, seconds in found.items()} == dict.fromkeys("abc", 2)


def test_settling_is_off_the_clock_and_finishing_on_it(monkeypatch):
    clock = [0.0]
    monkeypatch.setitem(measuring.CLOCKS, "wall", lambda: clock[0])

    def takes(seconds):
        def pass_time(*_):
            clock[0] += seconds

        return pass_time

    found = measuring.time_in_turn(
        {"a": takes(1.0)}, 2, warmup=0, settle=takes(10.0), finish=takes(0.5)
    )
    assert found == {"a": [1.5, 1.5]}


def test_ratio_is_the_median_of_the_ratios_within_a_repetition():
    # The medians, 4 and 3, would give 1.33.
    samples = {"ours": [2.0, 9.0, 4.0], "theirs": [1.0, 3.0, 4.0]}
    (row,) = measuring.compare(samples, [("ours", "theirs")], "s")
    assert (row["ratio"], row["low"], row["high"]) == (2.0, 1.5, 2.5)
    assert (row["median"], row["median_against"]) == (4.0, 3.0)


def test_nothing_is_compared_with_what_was_not_measured():
    (row,) = measuring.compare({"a": [1.0], "none": []}, [("a", "none")], "MiB")
    assert row == {"variant": "a", "against": "none", "unit": "MiB"}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_peak_is_what_work_needs_for_a_moment():
    size = 64  # MiB
    peak = measuring.measure_peak("cpu", lambda: len(b"\1" * (size * 2**20)))
    assert size * 0.9 < peak < size * 1.5


ROWS = {
    "engine_speed": 6,
    "step_cost": 14,
    "ssd_step_cost": 6,
    "validation_cost": 5,
    "checkpoint_cost": 13,
    "loader_speed": 6,
    "input_speed": 2,
    "augmentation_speed": 10,
    "picture_checks": 4,
    "coco_speed": 2,
    "miss_rate_cost": 4,
    "audit_speed": 5,
    "predict_speed": 16,
    "start_speed": 4,
    "rank_growth": 2,
}
OF_DETECTRON2 = {"engine_speed": 2}


def run_quickly(folder, *names, **environment):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(folder)]
    command += ["--only", *names] if names else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def check(folder, run, names):
    assert run.returncode == 0, run.stderr
    has_detectron2 = importlib.util.find_spec("detectron2") is not None
    rows = {name: ROWS[name] + has_detectron2 * OF_DETECTRON2.get(name, 0) for name in names}
    found = json.loads((folder / "benchmarks.json").read_text())
    assert {name: len(content["rows"]) for name, content in found.items()} == rows
    table = [line for line in run.stdout.splitlines() if line.startswith("|")]
    assert len(table) == sum(2 + number for number in rows.values())
    for content in found.values():
        facts = {"engine", "device", "torch", "data", "seed", "command", "date"}
        assert facts <= set(content["facts"])
        ratios = [row["ratio"] for row in content["rows"] if row["unit"] == "s"]
        assert ratios
        assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
    assert (folder / "benchmarks.png").stat().st_size > 5000


def test_one_command_runs_every_script_that_measures_speed():
    one_command = importlib.import_module("benchmarks.__main__")
    scripts = [path for path in BENCHMARKS.glob("[!_]*.py") if "__main__" in path.read_text()]
    assert {path.stem for path in scripts} - {"stock_predictor"} == set(one_command.QUICK)
    assert {*one_command.SHORTER, *one_command.WITH_CONFIG} <= set(one_command.QUICK)
    assert set(ROWS) == set(one_command.QUICK)


def test_one_command_writes_tables_json_and_a_plot(tmp_path):
    names = ["coco_speed", "start_speed"]
    check(tmp_path, run_quickly(tmp_path, *names), names)


def test_a_benchmark_that_fails_is_named_and_the_others_are_kept(tmp_path):
    (tmp_path / "pycocotools.py").write_text("raise ImportError('broken')")
    run = run_quickly(tmp_path, "coco_speed", "start_speed", PYTHONPATH=str(tmp_path))
    assert run.returncode == 1
    assert run.stdout.endswith("benchmarks.json; failed: coco_speed\n")
    assert list(json.loads((tmp_path / "benchmarks.json").read_text())) == ["start_speed"]


@pytest.mark.slow
def test_every_benchmark_runs(tmp_path):
    check(tmp_path, run_quickly(tmp_path), list(ROWS))
