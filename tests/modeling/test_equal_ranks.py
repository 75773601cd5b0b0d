"""Two processes step as one does with the whole batch."""

import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "training"))

from equal_rank import (  # noqa: E402
    MODELS,
    batch_of,
    make_faster_rcnn,
    make_unequal_faster_rcnn,
    step_of,
)
from two_ranks import RANKS, run_ranks  # noqa: E402

from d2pd.d2 import EventStorage  # noqa: E402


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(FOLDER))
        run_ranks(FOLDER / "equal_rank.py", folder)
    return {
        name: [torch.load(folder / f"{name}{rank}.pt") for rank in range(RANKS)] for name in MODELS
    }


def difference(ours, reference, what):
    """The largest one over all parameters, relative to the largest number."""
    assert ours[what].keys() == reference[what].keys()
    largest = max(float(value.abs().max()) for value in reference[what].values())
    assert largest > 0
    apart = {n: float((ours[what][n] - value).abs().max()) for n, value in reference[what].items()}
    return max(apart.values()) / largest


@pytest.mark.parametrize("name", ["frozen", "ssd_seg", "faster_rcnn"])
def test_gradients_and_a_step_are_those_of_one_process(ranks, name):
    expected = step_of(name)
    for ours in ranks[name]:
        print(name, difference(ours, expected, "gradients"))
        assert difference(ours, expected, "gradients") < 1e-6
        assert difference(ours, expected, "weights") < 1e-6
    alone = step_of(name, rank=0, world_size=2)
    assert difference(alone, expected, "gradients") > 0.01  # the other half of the batch counts


def test_faster_rcnn_weighs_processes_alike_though_their_regions_are_not_as_many(ranks):
    """``loss_cls`` and ``loss_box_reg`` are divided by the regions of the process, here as many."""
    assert len(set(regions(make_faster_rcnn))) == 1
    first, second = regions(make_unequal_faster_rcnn)
    assert first != second
    expected = step_of("unequal_faster_rcnn")
    (ours, theirs) = ranks["unequal_faster_rcnn"]
    apart = difference(ours, expected, "gradients")
    print("regions", first, second, "gradients", apart)
    assert difference(ours, theirs, "gradients") == 0
    assert 1e-6 < apart < abs(first - second) / (first + second)


def regions(make):
    """Regions of an image that each process trains on, on average."""
    counts = []
    for rank in range(RANKS):
        model = make()
        with EventStorage(0) as storage:
            model(batch_of(rank, RANKS, like_toys=False))
        latest = storage.latest()
        counts.append(sum(latest[f"roi_head/num_{kind}_samples"][0] for kind in ("fg", "bg")))
    return counts
