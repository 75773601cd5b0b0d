"""``train_net.py``, where something happens on one process before one of its steps.

``D2PD_TEST_FAULT`` says what, as ``WHAT RANK ITERATION``; unset, nothing does.
"""

import os
import signal
import sys

import torch

import d2pd.data.images
from d2pd.cli import train
from d2pd.d2 import comm
from d2pd.training.step import Step


def kill(step):
    os.kill(os.getpid(), signal.SIGKILL)


def lose_pictures(step):
    d2pd.data.images.image_path = lambda record, camera: f"gone/{record['image_id']}.png"


@torch.no_grad()
def diverge(step):
    for parameter in step.model.parameters():
        parameter.fill_(torch.nan)


def terminate(step):
    os.kill(os.getppid(), signal.SIGTERM)


def press_ctrl_c(step):
    os.killpg(os.getpgrp(), signal.SIGINT)


FAULTS = {each.__name__: each for each in (kill, lose_pictures, diverge, terminate, press_ctrl_c)}


def install(what, rank, iteration):
    run_step = Step.run_step

    def run_step_with_fault(step):
        if comm.get_rank() == int(rank) and step.iter == int(iteration):
            FAULTS[what](step)
        run_step(step)

    Step.run_step = run_step_with_fault


# At import, as the processes that are started import this file too.
if fault := os.environ.get("D2PD_TEST_FAULT"):
    install(*fault.split())

if __name__ == "__main__":
    sys.exit(train())
