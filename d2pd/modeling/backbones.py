"""VGG backbones of SSD: from images to the maps conv4_3 and conv7."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from d2pd.errors import ConfigError

MAPS = ("conv4_3", "conv7")
"""The maps that a backbone gives, with a step for 8 and for 16 pixels of the image."""

Widths = Mapping[int, tuple[int, ...]]
"""Channels of each 3x3 convolution of a block, by the number of the block."""

_LAST_BLOCK = 5


@dataclass(frozen=True)
class VggPlan:
    """What a backbone is made of.

    Attributes:
        widths: Of the blocks 1 to 5.
        last_width: Channels of conv6 and conv7.
        has_norm: Whether each convolution has batch norm behind it.
    """

    widths: Widths
    last_width: int
    has_norm: bool


_VGG16 = {1: (64,) * 2, 2: (128,) * 2, 3: (256,) * 3, 4: (512,) * 3, 5: (512,) * 3}
# An eighth of VGG16's channels where the maps are large, a quarter where they are small, and a
# single convolution in the first two blocks: a 40th of its arithmetic.
_LIGHT = {1: (8,), 2: (24,), 3: (48,) * 2, 4: (96,) * 3, 5: (128,) * 2}
PLANS = {
    "vgg16": VggPlan(_VGG16, 1024, has_norm=False),
    "vgg16_bn": VggPlan(_VGG16, 1024, has_norm=True),
    "vgg_light": VggPlan(_LIGHT, 192, has_norm=True),
}
"""Backbones by the name in ``MODEL.BACKBONE.NAME``."""


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that works by its running numbers where a channel has only one value.

    The last map of SSD300 is a single position: with one image in a batch it has no deviation,
    and torch refuses to train on it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            norms = (self.running_mean, self.running_var, self.weight, self.bias)
            return F.batch_norm(x, *norms, training=False, eps=self.eps)
        return super().forward(x)


class ConvLayer(nn.Conv2d):
    """A convolution, batch norm if it is to have one, and ReLU.

    The convolution keeps its bias before a norm too, as torchvision's VGG does. Frozen, it learns
    nothing, and its norm keeps its numbers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        has_norm: bool,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        is_frozen: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation)
        norm = FrozenBatchNorm2d if is_frozen else BatchNorm
        self.norm = norm(out_channels) if has_norm else None
        if is_frozen:
            self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W')."""
        x = super().forward(x)
        return F.relu(x if self.norm is None else self.norm(x))


class ConvBlocks(nn.Module):
    """Blocks of 3x3 convolutions, with 2x2 max pooling between two of them.

    Args:
        in_channels: Channels of the input.
        widths: The blocks, in order.
        has_norm: Whether there is batch norm.
        freeze_at: Blocks up to this number are frozen.
    """

    def __init__(self, in_channels: int, widths: Widths, *, has_norm: bool, freeze_at: int) -> None:
        super().__init__()
        self._block_names: list[list[str]] = []
        for block, widths_of_block in widths.items():
            self._block_names.append([])
            for number, width in enumerate(widths_of_block, 1):
                layer = ConvLayer(
                    *(in_channels, width, 3),
                    padding=1,
                    has_norm=has_norm,
                    is_frozen=block <= freeze_at,
                )
                self.add_module(f"conv{block}_{number}", layer)
                self._block_names[-1].append(f"conv{block}_{number}")
                in_channels = width
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks; the third pooling rounds up, as SSD300's 75 to 38."""
        for position, names in enumerate(self._block_names):
            if position:
                x = F.max_pool2d(x, 2, ceil_mode=position == 3)
            for name in names:
                x = self.get_submodule(name)(x)
        return x


class HalfwayFront(nn.Module):
    """The first four blocks, once for each camera; a 1x1 convolution then mixes the two.

    Args:
        visible: Sees the first channels of an image.
        lwir: Sees the others.
        num_visible: How many the first ones are.
        has_norm: Whether there is batch norm behind the 1x1 convolution.

    Source: Liu et al., Multispectral Deep Neural Networks for Pedestrian Detection, BMVC 2016.
    """

    def __init__(
        self, visible: ConvBlocks, lwir: ConvBlocks, num_visible: int, *, has_norm: bool
    ) -> None:
        super().__init__()
        self.visible = visible
        self.lwir = lwir
        self.num_visible = num_visible
        self.out_channels = visible.out_channels
        both = visible.out_channels + lwir.out_channels
        self.fuse = ConvLayer(both, self.out_channels, 1, has_norm=has_norm)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to conv4_3."""
        visible = self.visible(images[:, : self.num_visible])
        lwir = self.lwir(images[:, self.num_visible :])
        return self.fuse(torch.cat([visible, lwir], dim=1))


class Vgg(nn.Module):
    """VGG16 as SSD has it: dilated conv6 and conv7 in place of the fully connected layers.

    Args:
        plan: Channels and norm.
        channels: Channels of the images: one number, or one for each camera, visible first, whose
            conv1 to conv4 are then separate (halfway fusion).
        freeze_at: Blocks to freeze, 0 (none) to 5.

    Source: Liu et al., SSD, ECCV 2016, section 3; Chen et al., DeepLab, ICLR 2015.
    """

    def __init__(self, plan: VggPlan, channels: Sequence[int], freeze_at: int) -> None:
        super().__init__()
        blocks = partial(ConvBlocks, has_norm=plan.has_norm, freeze_at=freeze_at)
        front_widths = {block: plan.widths[block] for block in range(1, _LAST_BLOCK)}
        fronts = [blocks(number, front_widths) for number in channels]
        width = fronts[0].out_channels
        self.front: nn.Module = fronts[0]
        if len(fronts) > 1:
            visible, lwir = fronts
            self.front = HalfwayFront(visible, lwir, channels[0], has_norm=plan.has_norm)
        self.rear = blocks(width, {_LAST_BLOCK: plan.widths[_LAST_BLOCK]})
        self.conv6 = ConvLayer(
            *(self.rear.out_channels, plan.last_width, 3),
            padding=6,
            dilation=6,
            has_norm=plan.has_norm,
        )
        self.conv7 = ConvLayer(plan.last_width, plan.last_width, 1, has_norm=plan.has_norm)
        self.out_channels = (width, plan.last_width)
        _initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (N, C, H, W) to conv4_3 and conv7."""
        conv4_3 = self.front(images)
        conv5 = self.rear(F.max_pool2d(conv4_3, 2))
        conv7 = self.conv7(self.conv6(F.max_pool2d(conv5, 3, stride=1, padding=1)))
        return [conv4_3, conv7]


def _initialise(module: nn.Module) -> None:
    """Draw the weights as torchvision does for VGG."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # every layer here has one


def vgg_plan(name: str, freeze_at: int) -> VggPlan:
    """Look up what ``MODEL.BACKBONE.NAME`` names, and see that so much of it can be frozen.

    Raises:
        ConfigError: If there is no such backbone, or ``freeze_at`` is not in 0..5.
    """
    if name not in PLANS:
        raise ConfigError(
            f"MODEL.BACKBONE.NAME is {name!r}; SSDSeg is built on one of {', '.join(PLANS)}"
        )
    if not 0 <= freeze_at <= _LAST_BLOCK:
        raise ConfigError(
            f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; {name} has {_LAST_BLOCK} blocks of "
            f"convolutions to freeze: 0 (none) to {_LAST_BLOCK}"
        )
    return PLANS[name]
