"""Two processes train together: they stop together, skip together, and name the same image."""

import json
import os
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from step_toys import NAN, Asserting, Root, Toy, sample
from torch.nn.parallel import DistributedDataParallel

from d2pd.d2 import EventStorage
from d2pd.errors import UserError
from d2pd.training.culprits.evidence import Evidence
from d2pd.training.culprits.non_finite import Guard
from d2pd.training.step import Step

RANKS = 2
SECONDS = 120


def step_of(model, batches, folder, **kwargs):
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    policy = kwargs.pop("policy", "abort")
    guard = Guard(Evidence(folder), policy=policy, budget=1)
    return Step(wrapped, batches, optimizer, num_classes=1, seed=3, guard=guard, **kwargs)


def sound(rank, step):
    return [sample(1.0 + rank + step, name=f"{rank}{step}{n}.png") for n in range(2)]


def bad(rank, **kwargs):
    """A batch whose second image is bad on rank 1."""
    return [sample(name="ok.png"), sample(name="b.png", row=9, **kwargs) if rank else sample()]


CASES = {
    "targets": (Toy, {"boxes": ((5, 5, 5, 9),)}),
    "loss": (Toy, {"value": NAN}),
    "check": (Asserting, {"value": -2.0}),
    "gradient": (Root, {"value": -1.0}),
}


def run_rank(rank, folder):
    """Everything that is asked of one process; the answers go to a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=SECONDS),
    )
    answers = {}
    for name, (kind, bad_sample) in CASES.items():
        for accumulate in (1, 2):
            told = stop(rank, kind(), bad_sample, folder / f"{name}{accumulate}", accumulate)
            answers[f"{name}{accumulate}"] = told
        answers[f"skip {name}"] = skip(rank, kind(), bad_sample, folder / f"skip {name}")
    answers["whole"] = weight_after(rank, folder, accumulate=1)
    answers["parts"] = weight_after(rank, folder, accumulate=2)
    answers["draws"] = [drawn(rank, folder) for _ in range(2)]
    (folder / f"answers{rank}.json").write_text(json.dumps(answers))
    dist.destroy_process_group()


def stop(rank, model, bad_sample, folder, accumulate):
    step = step_of(model, [sound(rank, 0), bad(rank, **bad_sample)], folder, accumulate=accumulate)
    with EventStorage(0):
        step.run_step()
        step.iter += 1
        before = model.weight.item()
        try:
            step.run_step()
        except UserError as error:
            return {
                "kind": type(error).__name__,
                "text": str(error),
                "weight": [before, model.weight.item()],
            }
    return {}


def skip(rank, model, bad_sample, folder):
    """The weight after a sound, a bad and a sound step, and after the sound ones alone."""
    weights = []
    for batches in (
        [sound(rank, 0), bad(rank, **bad_sample), sound(rank, 1)],
        [sound(rank, 0), sound(rank, 1)],
    ):
        model.weight.data.fill_(2.0)
        step = step_of(model, batches, folder, policy="skip")
        with EventStorage(0):
            for _ in batches:
                step.run_step()
        weights.append(model.weight.item())
    return weights


def weight_after(rank, folder, accumulate):
    model = Toy()
    step = step_of(model, [sound(rank, 0)], folder, accumulate=accumulate)
    with EventStorage(0):
        step.run_step()
    return model.weight.item()


def drawn(rank, folder):
    model = Toy(noise=1.0)
    step = step_of(model, [sound(rank, 0)], folder)
    with EventStorage(0) as storage:
        step.run_step()
        return storage.latest()["loss_a"][0]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each rank answered, once both are through; a hang is a failure."""
    folder = tmp_path_factory.mktemp("processes")
    context = mp.spawn(run_rank, args=(folder,), nprocs=RANKS, join=False)
    deadline = time.monotonic() + SECONDS
    while not context.join(timeout=5):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail(f"the processes hang: {sorted(os.listdir(folder))}")
    return folder, [
        json.loads((folder / f"answers{rank}.json").read_text()) for rank in range(RANKS)
    ]


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
