"""Two processes: the same numbers as one, and neither waits for the other when one ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from validation_toys import Mean, Noisy, make_loader, with_values

from d2pd.training.validation import validation_losses

SCRIPT = Path(__file__).with_name("validation_rank.py")
ROOT = SCRIPT.parent.parent.parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What each of two gloo processes met."""
    folder = tmp_path_factory.mktemp("ranks")
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


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "count"), [("five", 5), ("one", 1)])
def test_two_processes_give_the_number_of_one_to_the_bit(ranks, one_thread, name, count):
    alone = validation_losses(Noisy(), make_loader(count), seed=42)
    expected = {name: value.hex() for name, value in alone.items()}
    assert [rank[name] for rank in ranks] == [expected, expected]


def test_without_an_image_both_say_so(ranks):
    message = ["ValueError", "there is no image to measure a validation loss on"]
    assert [rank["none"] for rank in ranks] == [message, message]


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [
        ("error", 1, ["ValueError", "boom"]),
        ("stop", 0, ["StopTraining", "SIGTERM"]),
        ("unpicklable", 0, ["RuntimeError", "NeedsMore: 1 and 2"]),
    ],
)
def test_what_one_process_meets_ends_both(ranks, name, own, other):
    assert ranks[1 - own][name] == other
    assert ranks[own][name] == (["NeedsMore", "1 and 2"] if name == "unpicklable" else other)


def test_an_image_without_a_number_is_one_for_both(ranks):
    alone = validation_losses(
        Mean(), with_values([1.0, FloatingPointError("Inf/NaN"), 2.0]), seed=0
    )
    expected = {name: value.hex() for name, value in alone.items()}
    assert expected == {"total_loss": "nan", "loss_a": "nan", "loss_b": "nan"}
    assert [rank["refused"] for rank in ranks] == [expected, expected]


def test_both_stop_early_by_what_the_main_process_logged(ranks):
    iteration, reasons, _ = ranks[0]["early stopping"]
    assert iteration == 4
    assert reasons == ["bbox/AP has not improved on 4 (iteration 2) for 2 evaluations"]
    assert ranks[0]["early stopping"] == ranks[1]["early stopping"]


def test_a_metric_that_is_absent_ends_both(ranks):
    start = "EARLY_STOPPING.METRIC bbox/AP was not logged by the evaluation after iteration 0; "
    assert ranks[0]["absent metric"] == start + "name one of those that are there: bbox/AP50"
    assert ranks[1]["absent metric"] == start + "no metric at all was logged"
