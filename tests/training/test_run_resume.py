"""Whole runs in every precision and way of stepping, resumed in the middle: no bit differs."""

import importlib.util
import os
import subprocess
import sys

import pytest
from run_toys import (
    QUICK,
    ROOT,
    THIN,
    assert_equal,
    assert_same_files,
    assert_same_weights,
    copied_before_steps,
    log_of,
    read,
    rows,
    run_main,
)

from d2pd.d2 import ENGINE

pytestmark = pytest.mark.usefixtures("without_pictures")

AMP = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION"]
BY_VALUE = ["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.001"]
BY_NORM = ["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.1"]
AUGMENTED = ["INPUT.RANDOM_FLIP", "horizontal", "INPUT.CROP.ENABLED", "True"]
SGD = ["SOLVER.OPTIMIZER", "SGD", "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR"]

WAYS = {
    "bf16": [*AMP, "bf16"],
    "accumulate": ["SOLVER.ACCUMULATE", "2"],
    "unclipped": ["SOLVER.CLIP_GRADIENTS.ENABLED", "False"],
    "clipped by value": BY_VALUE,
    "clipped by norm": BY_NORM,
    "SGD with steps": [*SGD, "SOLVER.STEPS", "(2, 4)", "SOLVER.BASE_LR", "0.01"],
    "all of it in fp16": [*AMP, "fp16", "SOLVER.ACCUMULATE", "2", *BY_NORM, *AUGMENTED],
    "all of it in bf16": [*AMP, "bf16", "SOLVER.ACCUMULATE", "2", *BY_VALUE, *AUGMENTED],
}
SLOW = {"all of it in bf16", "clipped by norm", "unclipped"}


@pytest.fixture(scope="module")
def opts(quick_opts):
    few = ["SOLVER.MAX_ITER", "6", "SOLVER.CHECKPOINT_PERIOD", "3", "DATASETS.TEST", "()"]
    return [*quick_opts, *THIN, *few]


@pytest.fixture(scope="module")
def plain(opts, without_pictures, tmp_path_factory):
    """The folder of a run in none of these ways."""
    output = tmp_path_factory.mktemp("plain")
    run_main(output, opts)
    return output


def whole_and_resumed(opts, monkeypatch, folder):
    """Return the folders of a run, and of a copy of it before step 3, resumed."""
    with copied_before_steps(monkeypatch, folder / "whole", folder / "copies"):
        run_main(folder / "whole", opts)
    resumed = folder / "copies/3/whole"
    run_main(resumed, opts, "--resume")
    assert "going on from model_0000002.pth, iteration 2" in log_of(resumed)
    return folder / "whole", resumed


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.slow if way in SLOW else ()) for way in WAYS]
)
def test_six_steps_are_three_and_a_resume_and_three(opts, plain, monkeypatch, tmp_path, way):
    whole, resumed = whole_and_resumed([*opts, *WAYS[way]], monkeypatch, tmp_path)
    assert_same_files(resumed, whole, "model_final.pth")
    assert_equal(rows(resumed), rows(whole), "metrics.json")
    with pytest.raises(AssertionError):  # else it would not matter whether this was resumed
        assert_same_weights(whole, plain)


def test_the_loss_scale_of_fp16_goes_on_where_it_stood(opts, monkeypatch, tmp_path):
    whole, resumed = whole_and_resumed([*opts, *AMP, "fp16"], monkeypatch, tmp_path)
    assert_same_files(resumed, whole, "model_final.pth")
    before, after = (
        read(resumed / name)["trainer"]["_trainer"]["grad_scaler"]
        for name in ("model_0000002.pth", "model_final.pth")
    )
    has_overflowed = after["scale"] < before["scale"]
    assert has_overflowed or after["_growth_tracker"] == before["_growth_tracker"] + 3
    assert rows(resumed)[-1]["loss_scale"] == after["scale"]


HAS_BOTH = importlib.util.find_spec("detectron2") is not None
OTHER = "embedded" if ENGINE == "detectron2" else "detectron2"


def run_under_other_engine(output, opts, *flags):
    words = ["train_net.py", "--config-file", QUICK, *flags, *opts, "OUTPUT_DIR", str(output)]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "D2PD_ENGINE": OTHER},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.skipif(not HAS_BOTH, reason="Detectron2 is not installed: there is no other engine")
@pytest.mark.parametrize(
    "is_here_first",
    [
        pytest.param(True, id="here first"),
        pytest.param(False, id="there first", marks=pytest.mark.slow),
    ],
)
def test_four_steps_under_one_engine_and_four_under_the_other_are_eight_under_one(
    opts, tmp_path, is_here_first
):
    # A rate that does not depend on how long the training is.
    opts = [*opts, *SGD, "SOLVER.BASE_LR", "0.01", "SOLVER.CHECKPOINT_PERIOD", "4"]
    first, all_of_it = [*opts, "SOLVER.MAX_ITER", "4"], [*opts, "SOLVER.MAX_ITER", "8"]
    whole, mixed = tmp_path / "whole", tmp_path / "mixed"
    run_main(whole, all_of_it)
    if is_here_first:
        run_main(mixed, first)
        log = run_under_other_engine(mixed, all_of_it, "--resume")
        assert f'No longer exact: engine: "{ENGINE}" -> "{OTHER}"' in log
    else:
        log = run_under_other_engine(mixed, first)
        run_main(mixed, all_of_it, "--resume")
        assert f'No longer exact: engine: "{OTHER}" -> "{ENGINE}"' in log_of(mixed)
    assert_same_weights(mixed, whole)
    states = [read(folder / "model_final.pth")["trainer"] for folder in (mixed, whole)]
    assert_equal(*(state["_trainer"]["optimizer"] for state in states), "optimizer")
    assert rows(mixed)[-1] == rows(whole)[-1]
