"""One of two processes that train an SSDSeg together; see ``two_ranks``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

import torch
import torch.distributed as dist
from ssd_toys import make_model, sample
from torch.nn.parallel import DistributedDataParallel
from two_ranks import answer

from d2pd.d2 import EventStorage
from d2pd.training.isolation import without_other_processes
from d2pd.training.validation import measure_images

LABELS = (((10, 12, 40, 60), (50, 20, 62, 44), (52, 21, 64, 45)), ())
"""Those of the image of each process: the second one has none."""


def batch_of(rank):
    torch.manual_seed(5 + rank)
    return [sample(LABELS[rank], (1, 0, 1))]


def make_frozen():
    """A model whose images do not see one another, so that two processes can be one."""
    return make_model(MODEL__SSD__SEG__MAPS=[], MODEL__BACKBONE__NAME="vgg_light").train()


def quiet(model):
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


def gradients_of(model, batch):
    with EventStorage(0):
        losses = model(batch)
    sum(losses.values()).backward()
    weights = [p.grad.double().abs().sum().item() for p in model.parameters() if p.grad is not None]
    return {name: loss.item() for name, loss in losses.items()}, weights


def scenarios(_folder):
    rank = dist.get_rank()
    model = quiet(make_frozen())
    losses, gradients = gradients_of(DistributedDataParallel(model), batch_of(rank))
    answers = {"losses": losses, "gradients": gradients}
    # One process alone, as where a culprit is looked for: the other does not answer.
    if rank == 0:
        with without_other_processes(model), EventStorage(0):
            found = model(batch_of(0))
        answers["alone"] = {name: loss.item() for name, loss in found.items()}
        one = batch_of(0)[0] | {"k": 0, "file_name": "a.png"}
        answers["validation"] = measure_images(model, [one], seed=1)[0].losses
    return answers


if __name__ == "__main__":
    answer(scenarios)
