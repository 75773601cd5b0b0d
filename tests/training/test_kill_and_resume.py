"""A run killed at any moment, again and again, ends as one that was never killed."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time

import pytest
import torch
from run_toys import QUICK, assert_equal, assert_same_files, rows

from d2pd.config import train_parser

LAST = 19

BASE = [
    *("SOLVER.MAX_ITER", "20", "TEST.EVAL_PERIOD", "5", "SOLVER.CHECKPOINT_PERIOD", "3"),
    *("EARLY_STOPPING.METRIC", "val/total_loss", "EARLY_STOPPING.PATIENCE", "9"),
    *("BEST_CHECKPOINT.METRIC", "('val/total_loss', 'bbox/AP')"),
]
EVERYTHING = [
    *("DATALOADER.NUM_WORKERS", "2", "SOLVER.ACCUMULATE", "2"),
    *("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "bf16"),
    *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm"),
    *("INPUT.RANDOM_FLIP", "horizontal", "INPUT.CROP.ENABLED", "True"),
]

# Starting Python and importing torch takes longer than these runs: a server forks them.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["d2pd.training.run"])


def train(words):
    """Run in a process of its own; its log goes nowhere."""
    from d2pd.training.run import main

    torch.set_num_threads(1)
    # As from the command line: workers of the loader are children of this process, and end when it
    # is killed. Those of a server of its own would outlive it.
    multiprocessing.set_start_method("fork", force=True)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    main(train_parser().parse_args(words))


def start(output, opts, *flags):
    words = ["--config-file", QUICK, *flags, *opts, "OUTPUT_DIR", str(output)]
    process = processes.Process(target=train, args=(words,))
    process.start()
    return process


def finish(process):
    process.join(timeout=240)
    assert process.exitcode == 0


def can_resume(output):
    return any(output.glob("model_[0-9]*.pth"))


def train_with_kills(output, opts, seed, most_kills):
    """Kill at random moments until the run gets through, after at least one kill."""
    draw = random.Random(seed)
    longest, kills = 5.0, 0
    while kills < most_kills:
        process = start(output, opts, "--resume" if kills and can_resume(output) else "--overwrite")
        process.join(timeout=draw.uniform(0.1, 1) * longest)
        if not process.is_alive():
            assert process.exitcode == 0
            if kills:
                return
            longest /= 2  # a fast machine: once more from the start
            continue
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        time.sleep(0.05)
    finish(start(output, opts, "--resume" if can_resume(output) else "--overwrite"))


def assert_same_run(one, other):
    assert_same_files(one, other, "model_final.pth", "model_best.pth", "model_best_bbox_AP.pth")
    assert_equal(rows(one), rows(other), "metrics.json")
    results = [json.loads((d / "results.json").read_text()) for d in (one, other)]
    assert results[0] == results[1]


@pytest.fixture(scope="module", params=["everything"])
def whole(request, quick_opts, tmp_path_factory):
    """The folder of a run that was never killed, and its options."""
    output = tmp_path_factory.mktemp("whole") / "run"
    opts = [*quick_opts, *BASE, *EVERYTHING]
    finish(start(output, opts))
    return output, opts


def test_rows_hold_validation_evaluation_and_best_at_their_own_iteration(whole):
    output, _ = whole
    found = {row["iteration"]: row for row in rows(output)}
    assert list(found) == [4, 9, 14, 19]
    for row in found.values():
        assert {"val/total_loss", "bbox/AP", "best/val/total_loss", "total_loss"} <= set(row)


def test_killed_at_random_moments_it_ends_as_if_never_killed(whole, tmp_path):
    output, opts = whole
    train_with_kills(tmp_path / "run", opts, seed=1, most_kills=6)
    assert_same_run(tmp_path / "run", output)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_many_more_kills_change_nothing_either(whole, tmp_path, seed):
    output, opts = whole
    train_with_kills(tmp_path / "run", opts, seed, most_kills=12)
    assert_same_run(tmp_path / "run", output)
