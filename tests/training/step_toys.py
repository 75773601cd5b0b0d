"""Samples and models that make a step go wrong in one way each."""

import torch
from torch import nn

from d2pd.d2 import Boxes, Instances

NAN = float("nan")
HEIGHT, WIDTH = 20, 30


def sample(value=1.0, name="a.png", boxes=((0, 0, 4, 8),), classes=None, image=None, **extra):
    """A sample of 30x20 pixels whose ``value`` the toys below learn from."""
    instances = Instances((HEIGHT, WIDTH))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes or [0] * len(boxes), dtype=torch.int64)
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8) if image is None else image
    return {"file_name": name, "image": image, "value": value, "instances": instances, **extra}


class Toy(nn.Module):
    """Loss = weight * mean value of the images, so that its gradient is that mean."""

    def __init__(self, noise: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.noise = noise

    def forward(self, batch):
        drawn = self.noise * torch.rand(())
        mean = torch.tensor([s["value"] for s in batch]).mean()
        return {"loss_a": self.weight * (mean + drawn), "loss_b": 0 * self.weight}


class Root(Toy):
    """A value of -1 gives a finite loss whose gradient is not."""

    def forward(self, batch):
        losses = super().forward(batch)
        if any(s["value"] == -1 for s in batch):
            losses["loss_a"] = losses["loss_a"] + (self.weight * 0).sqrt()
        return losses


class Asserting(Toy):
    """Refuses a value of -2 by an assert."""

    def forward(self, batch):
        assert all(s["value"] != -2 for s in batch), "a value of\n  -2"
        return super().forward(batch)


class Crowd(Toy):
    """Finite for each image, not for two together."""

    def forward(self, batch):
        losses = super().forward(batch)
        losses["loss_a"] = losses["loss_a"] / (len(batch) < 2)
        return losses
