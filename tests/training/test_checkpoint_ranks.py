"""Two processes resume from one file, and neither waits for the other when there is none."""

from pathlib import Path

import pytest
from checkpoint_toys import Run, cut
from two_ranks import run_ranks

SCRIPT = Path(__file__).with_name("checkpoint_rank.py")


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
    return run_ranks(SCRIPT, folder)


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
