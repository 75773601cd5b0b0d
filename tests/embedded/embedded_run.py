"""A d2pd training under the embedded engine, on batches that Detectron2 can be given as well.

    D2PD_ENGINE=embedded python embedded_run.py RUN.json

The file names the folder, the options, and whether to resume. Written beside it, as ``state.pth``:
the iteration that the training began at and the momenta it began with, by parameter name.
"""

import json
import sys
from itertools import count
from pathlib import Path

import torch
from parity_toys import EMBEDDED, batch_of

from d2pd.config import load_config
from d2pd.d2 import ENGINE, setup_logger
from d2pd.training.trainer import Trainer


class Batches:
    """The batch of each iteration, endlessly; goes on where it is told to."""

    dataset = (None,) * 2

    def __init__(self, cfg):
        self.start, self.num_classes = 0, cfg.MODEL.ROI_HEADS.NUM_CLASSES

    def start_at(self, iteration):
        self.start = iteration

    def __iter__(self):
        return (batch_of(at, self.num_classes, EMBEDDED) for at in count(self.start))


class TrainerOnBatches(Trainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return Batches(cfg)


def momenta(trainer):
    state = trainer.optimizer.state
    return {
        name: state[p]["momentum_buffer"].clone()
        for name, p in trainer.model.named_parameters()
        if p in state
    }


def main(plan):
    assert ENGINE == "embedded"
    setup_logger(plan["folder"], name="d2pd")
    words = [str(word) for item in plan["options"].items() for word in item]
    cfg = load_config("", [*words, "OUTPUT_DIR", plan["folder"]])
    torch.manual_seed(7)
    trainer = TrainerOnBatches(cfg)
    trainer.resume_or_load(resume=plan["resume"])
    state = {"start_iter": trainer.start_iter, "momenta": momenta(trainer)}
    torch.save(state, Path(plan["folder"]) / "state.pth")
    trainer.train()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
