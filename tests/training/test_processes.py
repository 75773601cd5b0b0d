"""Two processes train together: they stop together, skip together, and name the same image."""

import json
from pathlib import Path

import pytest
from step_rank import CASES
from two_ranks import run_ranks

SCRIPT = Path(__file__).with_name("step_rank.py")


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each rank answered, once both are through; a hang is a failure."""
    folder = tmp_path_factory.mktemp("processes")
    return folder, run_ranks(SCRIPT, folder)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_violation_on_one_process_stops_both_and_both_name_its_image(answers, name, accumulate):
    folder, found = answers
    case = f"{name}{accumulate}"
    kind = "TargetError" if name == "targets" else "DivergedError"
    path = folder / case / "iter_0000001_rank1.json"
    for told in (of_rank[case] for of_rank in found):
        assert told["kind"] == kind
        assert told["text"].startswith("iteration 1: rank 1: ")
        assert "b.png (row 9)" in told["text"]
        assert "ok.png" not in told["text"]
        assert told["text"].endswith(f"see {path}")
        assert told["weight"][0] == told["weight"][1]
    assert found[0][case]["text"] == found[1][case]["text"]
    files = sorted(entry.name for entry in (folder / case).iterdir())
    assert files == [f"iter_0000001_rank1{ending}" for ending in (".json", ".png", ".pt")]
    told = json.loads(path.read_text())
    assert told["verdict"] == ("data" if name == "targets" else "image")
    assert (told["rank"], [i["row"] for i in told["images"] if i["is_blamed"]]) == (1, [9])


@pytest.mark.parametrize("name", CASES)
def test_step_skipped_for_one_process_is_skipped_by_both(answers, name):
    _, found = answers
    for of_rank in found:
        with_bad, without = of_rank[f"skip {name}"]
        assert with_bad == without
    assert found[0][f"skip {name}"] == found[1][f"skip {name}"]


def test_gradient_is_the_mean_over_processes_and_parts(answers):
    _, found = answers
    for of_rank in found:
        assert of_rank["whole"] == pytest.approx(2.0 - 0.1 * (1.0 + 2.0) / 2)
        assert of_rank["parts"] == pytest.approx(of_rank["whole"])


def test_processes_draw_differently_and_each_repeats_itself(answers):
    _, (first, second) = answers
    for mean, of_rank in zip((1.0, 2.0), (first, second), strict=True):
        assert of_rank["draws"][0] == of_rank["draws"][1] != 2.0 * mean
    assert first["draws"][0] - 2.0 != pytest.approx(second["draws"][0] - 4.0)
