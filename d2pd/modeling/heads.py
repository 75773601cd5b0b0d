"""The layers that read classes, boxes and masks off the maps."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def initialise_xavier(module: nn.Module) -> None:
    """Draw the weights of all convolutions as SSD does: Xavier uniform, bias 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class MultiboxHeads(nn.Module):
    """A 3x3 convolution for the classes and one for the boxes of the anchors, on each map.

    Args:
        channels: Channels of each map, by its name, in the order of the maps.
        anchors_per_position: Anchors at a position of each map.
        num_classes: Without background.
    """

    def __init__(
        self, channels: Mapping[str, int], anchors_per_position: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        self.num_logits = num_classes + 1
        self.cls_logits = nn.ModuleDict()
        self.box_deltas = nn.ModuleDict()
        for (name, width), number in zip(channels.items(), anchors_per_position, strict=True):
            self.cls_logits[name] = nn.Conv2d(width, number * self.num_logits, 3, padding=1)
            self.box_deltas[name] = nn.Conv2d(width, number * 4, 3, padding=1)
        initialise_xavier(self)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict for every anchor.

        Args:
            maps: (N, C, H, W) each.

        Returns:
            Logits (N, A, K + 1), background last, and box deltas (N, A, 4): map by map, row by
            row, column by column, then anchor by anchor of the position.
        """
        logits = [_by_anchor(head(x), self.num_logits) for head, x in self._on(maps, "cls_logits")]
        deltas = [_by_anchor(head(x), 4) for head, x in self._on(maps, "box_deltas")]
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)

    def _on(self, maps: Sequence[Tensor], name: str) -> list[tuple[nn.Module, Tensor]]:
        return list(zip(self.get_submodule(name).children(), maps, strict=True))


def _by_anchor(x: Tensor, size: int) -> Tensor:
    """Map (N, a * size, H, W) to (N, H * W * a, size)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size)


def make_seg_head(channels: int, kernel_size: int) -> nn.Module:
    """Make the layer that tells person from background at every position of a map.

    Args:
        channels: Of the map.
        kernel_size: 1: one 1x1 convolution; 3: a 3x3 convolution and ReLU before it.

    Returns:
        Maps (N, channels, H, W) to (N, 2, H, W) logits, background first.

    Source: Brazil et al., Illuminating Pedestrians via Simultaneous Detection & Segmentation,
    ICCV 2017: shallow, so that what it teaches ends up in the maps.
    """
    head: nn.Module = nn.Conv2d(channels, 2, 1)
    if kernel_size == 3:
        head = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), head)
    initialise_xavier(head)
    return head
