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


SMALL = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
SMALL += ["MODEL.ROI_BOX_HEAD.FC_DIM", "32", "INPUT.MIN_SIZE_TRAIN", "(128,)"]
SMALL += ["INPUT.MIN_SIZE_TEST", "128", "MODEL.DEVICE", "cpu"]
SMALL_SSD = ["MODEL.BACKBONE.NAME", "vgg_light", "INPUT.FIXED_SIZE", "[128, 160]"]
SMALL_SSD += ["MODEL.DEVICE", "cpu"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words", "rows"),
    [
        ("step_cost.py", ["--images", "2", "--batch", "2", "--peak-runs", "1", *SMALL], 13),
        ("validation_cost.py", ["--images", "2", *SMALL], 3),
        ("checkpoint_cost.py", ["--images", "2", "--peak-runs", "0", *SMALL], 12),
        ("augmentation_speed.py", ["--images", "2", "--size", "64", "80"], 10),
        ("ssd_step_cost.py", ["--images", "2", *SMALL_SSD], 5),
        ("miss_rate_cost.py", ["--data", "", "--detections", "900", "--peak-runs", "1"], 4),
        ("audit_speed.py", ["--data", "", "--boxes", "900"], 5),
        ("predict_speed.py", ["--images", "6", "--batch", "2", "MODEL.DEVICE", "cpu"], 16),
        ("picture_checks.py", ["--data", "", "--images", "4", "--workers", "2"], 4),
    ],
)
def test_script_prints_a_table_of_ratios_and_writes_it(script, words, rows, tmp_path):
    written = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARKS / script), "--repetitions", "1"]
    command += ["--json", str(written), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    table = [line for line in run.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + rows
    found = json.loads(written.read_text())
    assert {"engine", "device", "torch", "data", "seed", "command", "date"} <= set(found["facts"])
    ratios = [row["ratio"] for row in found["rows"] if row["unit"] == "s"]
    assert ratios
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
