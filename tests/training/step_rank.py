"""One of two processes that train together; see ``two_ranks``."""

import torch
import torch.distributed as dist
from step_toys import NAN, Asserting, Root, Toy, sample
from torch.nn.parallel import DistributedDataParallel
from two_ranks import answer

from d2pd.d2 import EventStorage
from d2pd.errors import UserError
from d2pd.training.culprits.evidence import Evidence
from d2pd.training.culprits.non_finite import Guard
from d2pd.training.step import Step


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


def scenarios(folder):
    """Everything that is asked of one process."""
    rank = dist.get_rank()
    answers = {}
    for name, (kind, bad_sample) in CASES.items():
        for accumulate in (1, 2):
            told = stop(rank, kind(), bad_sample, folder / f"{name}{accumulate}", accumulate)
            answers[f"{name}{accumulate}"] = told
        answers[f"skip {name}"] = skip(rank, kind(), bad_sample, folder / f"skip {name}")
    answers["whole"] = weight_after(rank, folder, accumulate=1)
    answers["parts"] = weight_after(rank, folder, accumulate=2)
    answers["draws"] = [drawn(rank, folder) for _ in range(2)]
    return answers


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


if __name__ == "__main__":
    answer(scenarios)
