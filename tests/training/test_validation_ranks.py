"""Two processes: the same numbers as one, and neither waits for the other when one ends."""

from pathlib import Path

import pytest
import torch
from two_ranks import run_ranks
from validation_toys import Mean, Noisy, make_loader, with_values

from d2pd.training.validation import validation_losses

SCRIPT = Path(__file__).with_name("validation_rank.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What each of two gloo processes met."""
    return run_ranks(SCRIPT, tmp_path_factory.mktemp("ranks"))


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
