"""A training small enough to be saved and resumed many times in a test."""

from pathlib import Path

import torch
from torch import nn

from d2pd.training.checkpoints.checkpointer import Checkpointer


class Model(nn.Module):
    def __init__(self, order=("a", "b"), classes=2):
        super().__init__()
        for name in order:
            self.add_module(name, nn.Linear(3, 3))
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, classes)

    def forward(self, x):
        return self.last(self.norm(self.b(self.a(x))))


class Run:
    """A training with the state of Detectron2's trainer, nested as there."""

    def __init__(self, folder: Path, order=("a", "b"), classes=2, seed=0, steps=20, **options):
        torch.manual_seed(seed)
        self.model = Model(order, classes)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.iter = -1
        self.checkpointer = Checkpointer(self.model, str(folder), trainer=self, **options)

    def train(self, steps):
        """Do as many iterations; ``iter`` is then the last of them."""
        for _ in range(steps):
            self.iter += 1
            torch.manual_seed(self.iter)
            loss = self.model(torch.randn(4, 3)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
        return self

    def save(self, pending=False):
        self.checkpointer.save_iteration(self.iter, pending=pending)
        return Path(self.checkpointer.save_dir) / f"model_{self.iter:07d}.pth"

    def save_final(self):
        self.checkpointer.save_final(self.iter)
        return Path(self.checkpointer.save_dir) / "model_final.pth"

    def save_best(self, name="model_best"):
        self.checkpointer.save_best(
            name, iteration=self.iter, metric="bbox/AP", value=31.5, mode="max", config_text="A: 1"
        )
        return Path(self.checkpointer.save_dir) / f"{name}.pth"

    def state_dict(self):
        return {
            "iteration": self.iter,
            "hooks": {"LRScheduler": self.schedule.state_dict()},
            "_trainer": {"iteration": self.iter, "optimizer": self.optimizer.state_dict()},
        }

    def load_state_dict(self, state):
        self.iter = state["iteration"]
        self.schedule.load_state_dict(state["hooks"]["LRScheduler"])
        self.optimizer.load_state_dict(state["_trainer"]["optimizer"])


def resumed(folder: Path, **options) -> Run:
    run = Run(folder, seed=9, **options)
    run.checkpointer.resume()
    return run


def assert_same_model(one, other):
    theirs = other.state_dict()
    assert one.state_dict().keys() == theirs.keys()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=0)


def stock_content(run: Run):
    """What stock Detectron2 puts into ``model_final.pth``; read from one that it wrote.

    Keys in its order; no parameter names, no ``pending``, no ``run``.
    """
    optimizer = run.optimizer.state_dict()
    optimizer["param_groups"] = [
        {key: value for key, value in group.items() if key != "param_names"}
        for group in optimizer["param_groups"]
    ]
    schedule = {"base_lrs": run.schedule.base_lrs, "last_epoch": run.schedule.last_epoch}
    return {
        "model": run.model.state_dict(),
        "trainer": {
            "iteration": run.iter,
            "hooks": {"LRScheduler": schedule},
            "_trainer": {"iteration": run.iter, "optimizer": optimizer},
        },
        "iteration": run.iter,
    }


def flip(path: Path, at: int) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(content)


def cut(path: Path, size: int = -400) -> None:
    """Leave the first bytes of a file."""
    path.write_bytes(path.read_bytes()[:size])
