"""A model that draws, counts, remembers and reports in its forward pass, and samples for it."""

import random

import numpy as np
import torch
from torch import nn

from d2pd.d2 import Boxes, Instances, get_event_storage


class DropPath(nn.Module):
    """timm's, in name and in asking for its mode."""

    def forward(self, x):
        return x * torch.rand(()) if self.training else x


class Noisy(nn.Module):
    """Loses by its pixels, by three random generators and by what it remembers of earlier calls."""

    def __init__(self, seed: int = 0, image_noise: float = 1.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 1)
        self.norm = nn.BatchNorm2d(4)
        self.instance_norm = nn.InstanceNorm2d(4, track_running_stats=True)
        self.dropout = nn.Dropout(0.5)
        self.drop_path = DropPath()
        self.image_noise = image_noise
        self.normalizer = 1.0  # an attribute that is rebound, such as RetinaNet has
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean_loss", torch.zeros(()))
        self.modes: list[dict[str, bool]] = []  # lists changed in place are not set back
        self.has_gradients: list[bool] = []

    def forward(self, batch):
        self.modes.append({name: module.training for name, module in self.named_modules()})
        self.has_gradients.append(torch.is_grad_enabled())
        x = torch.stack([sample["image"].float() / 255 for sample in batch])
        x = self.drop_path(self.dropout(self.instance_norm(self.norm(self.conv(x)))))
        drawn = float(torch.rand(())) + float(np.random.rand()) + random.random()
        loss = self.head(x).square().mean() * (1 + self.image_noise * drawn) / self.normalizer
        self.normalizer *= 1.1
        self.calls += 1
        self.mean_loss = 0.9 * self.mean_loss + 0.1 * loss.detach()
        get_event_storage().put_scalar("toy/drawn", drawn)
        return {"loss_a": loss, "loss_b": 0.1 * self.head.weight.square().sum() + 0.01 * drawn}


class Mean(nn.Module):
    """Loses what the sample says; ``value`` may be anything that ``float`` takes, or an error."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        value = batch[0]["value"]
        if isinstance(value, BaseException):
            raise value
        return {"loss_a": self.weight * value, "loss_b": torch.tensor(0.25)}


def make_sample(k, *, size=(32, 48), boxes=((4.0, 4.0, 20.0, 28.0),), value=0.0):
    height, width = size
    generator = torch.Generator().manual_seed(k)
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return {
        "image": torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8),
        "instances": instances,
        "file_name": f"image{k}.png",
        "k": k,
        "height": height,
        "width": width,
        "value": value,
    }


def make_loader(count, **kwargs):
    return [[make_sample(k, **kwargs)] for k in range(count)]


def with_values(values):
    return [[make_sample(k, value=value)] for k, value in enumerate(values)]
