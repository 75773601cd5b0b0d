"""The network of SSD: tensors in, tensors out; what is exported."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2pd.errors import ConfigError
from d2pd.modeling.backbones import MAPS, ConvLayer, Vgg, VggPlan
from d2pd.modeling.heads import MultiboxHeads, initialise_xavier


class ExtraLayer(NamedTuple):
    """A map behind conv7: a 1x1 convolution, then a 3x3 one, on the map before.

    Attributes:
        squeezed: Channels of the 1x1 convolution.
        channels: Channels of the map.
        stride: Of the 3x3 convolution.
        padding: Of the 3x3 convolution.
    """

    squeezed: int
    channels: int
    stride: int
    padding: int


class Predictions(NamedTuple):
    """What the network says of a batch.

    Attributes:
        cls_logits: (N, A, K + 1), background last.
        box_deltas: (N, A, 4), relative to the anchors.
        features: The maps that both were read off, (N, C, H, W) each.
    """

    cls_logits: Tensor
    box_deltas: Tensor
    features: list[Tensor]


class L2Norm(nn.Module):
    """Brings the channels of every position to length 1, then scales each by a learned factor.

    Args:
        channels: Channels of the map.
        scale: Initial factor.

    Source: Liu et al., ParseNet, ICLR workshop 2016, section 3.2.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape, float32: fp16 has no room for the squares."""
        # The gradient grows as 1 / eps where all channels are 0.
        return F.normalize(x.float(), dim=1, eps=1e-6) * self.scale.view(1, -1, 1, 1)


class ExtraMaps(nn.Module):
    """The maps behind conv7: conv8_2, conv9_2 and so on.

    Args:
        in_channels: Channels of conv7.
        layers: One for each map.
        has_norm: Whether there is batch norm behind each convolution.
    """

    def __init__(self, in_channels: int, layers: Sequence[ExtraLayer], *, has_norm: bool) -> None:
        super().__init__()
        for number, layer in enumerate(layers, 8):
            squeeze = ConvLayer(in_channels, layer.squeezed, 1, has_norm=has_norm)
            grow = ConvLayer(
                *(layer.squeezed, layer.channels, 3),
                stride=layer.stride,
                padding=layer.padding,
                has_norm=has_norm,
            )
            self.add_module(f"conv{number}_1", squeeze)
            self.add_module(f"conv{number}_2", grow)
            in_channels = layer.channels
        initialise_xavier(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map conv7 (N, C, H, W) to the maps behind it."""
        maps = []
        for name, layer in self.named_children():
            x = layer(x)
            if name.endswith("_2"):
                maps.append(x)
        return maps


class SSDNetwork(nn.Module):
    """VGG, the maps behind it, and the heads on all maps. It knows nothing of segmentation.

    Args:
        plan: Of the backbone.
        channels: Channels of the images; see ``Vgg``.
        freeze_at: Blocks of the backbone to freeze.
        extra_layers: The maps behind conv7.
        anchors_per_position: For each map, conv4_3 and conv7 first.
        num_classes: Without background.
        l2_norm_scale: Initial scale of the L2 norm on conv4_3; 0: there is none.

    Attributes:
        map_channels: Channels of the maps by their names: conv4_3, conv7, conv8_2, conv9_2, ...

    Source: Liu et al., SSD, ECCV 2016, sections 2.1 and 3.
    """

    def __init__(
        self,
        plan: VggPlan,
        *,
        channels: Sequence[int],
        freeze_at: int,
        extra_layers: Sequence[ExtraLayer],
        anchors_per_position: Sequence[int],
        num_classes: int,
        l2_norm_scale: float,
    ) -> None:
        super().__init__()
        self.backbone = Vgg(plan, channels, freeze_at)
        conv4_3, conv7 = self.backbone.out_channels
        self.l2_norm = L2Norm(conv4_3, l2_norm_scale) if l2_norm_scale else None
        self.extras = ExtraMaps(conv7, extra_layers, has_norm=plan.has_norm)
        widths = [conv4_3, conv7, *(layer.channels for layer in extra_layers)]
        self.map_channels = dict(zip(map_names(len(extra_layers)), widths, strict=True))
        self.heads = MultiboxHeads(self.map_channels, anchors_per_position, num_classes)

    def forward(self, images: Tensor) -> Predictions:
        """Predict classes and boxes of every anchor.

        Args:
            images: (N, C, H, W), normalised.
        """
        conv4_3, conv7 = self.backbone(images)
        maps = [conv4_3 if self.l2_norm is None else self.l2_norm(conv4_3), conv7]
        maps += self.extras(conv7)
        cls_logits, box_deltas = self.heads(maps)
        return Predictions(cls_logits, box_deltas, maps)


def map_names(num_extra: int) -> list[str]:
    """Return the names of the maps of a network with so many maps behind conv7."""
    return [*MAPS, *(f"conv{8 + number}_2" for number in range(num_extra))]


def map_sides(image_side: int, extra_layers: Sequence[ExtraLayer]) -> list[int]:
    """Return the length of each map along one direction; below 1: the image is too small for it.

    Args:
        image_side: Length of the network input along it, px.
        extra_layers: The maps behind conv7.
    """
    conv4_3 = -(-(image_side // 2 // 2) // 2)  # the third pooling rounds up
    sides = [conv4_3, conv4_3 // 2]
    for layer in extra_layers:
        sides.append((sides[-1] + 2 * layer.padding - 3) // layer.stride + 1)
    return sides


def map_sizes(
    image_size: tuple[int, int], extra_layers: Sequence[ExtraLayer]
) -> list[tuple[int, int]]:
    """Return (rows, columns) of every map.

    Args:
        image_size: (height, width) of the network input, px.
        extra_layers: The maps behind conv7.

    Raises:
        ConfigError: If nothing is left of a map.
    """
    of_rows, of_columns = (map_sides(side, extra_layers) for side in image_size)
    sizes = list(zip(of_rows, of_columns, strict=True))
    for name, (rows, columns) in zip(map_names(len(extra_layers)), sizes, strict=True):
        if min(rows, columns) < 1:
            height, width = image_size
            raise ConfigError(
                f"images of {height} x {width} px (height x width) are too small: map {name} "
                f"would be {max(rows, 0)} x {max(columns, 0)}; raise INPUT.FIXED_SIZE, "
                "INPUT.MIN_SIZE_* or the lower INPUT.AUG.SCALE_JITTER, or take "
                "layers from MODEL.SSD.EXTRA_LAYERS"
            )
    return sizes
