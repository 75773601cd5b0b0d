"""Two processes train as one: positives are counted over both, though one image has none."""

import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "training"))

from ssd_rank import batch_of, gradients_of, make_frozen, quiet  # noqa: E402
from two_ranks import run_ranks  # noqa: E402


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(FOLDER))
        return run_ranks(FOLDER / "ssd_rank.py", tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
def test_gradients_are_those_of_one_process_with_both_images(ranks):
    model = quiet(make_frozen())
    losses, gradients = gradients_of(model, batch_of(0) + batch_of(1))
    for rank in ranks:
        torch.testing.assert_close(rank["gradients"], gradients, rtol=1e-4, atol=1e-4)
    for name, loss in losses.items():
        assert (ranks[0]["losses"][name] + ranks[1]["losses"][name]) / 2 == pytest.approx(loss)
    assert ranks[1]["losses"] == {"loss_cls": 0.0, "loss_box_reg": 0.0}


@pytest.mark.slow
def test_a_process_by_itself_waits_for_nobody(ranks):
    with torch.no_grad():
        expected = {n: v.item() for n, v in quiet(make_frozen())(batch_of(0)).items()}
    assert ranks[0]["alone"] == pytest.approx(expected)
    assert ranks[0]["validation"]["loss_cls"] == pytest.approx(expected["loss_cls"])
    assert ranks[0]["losses"]["loss_cls"] == pytest.approx(2 * expected["loss_cls"])
