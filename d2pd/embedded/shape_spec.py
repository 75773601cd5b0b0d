"""What a layer is told about the feature maps that it will get."""

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Shape of a feature map, as far as it is known before a forward pass.

    Attributes:
        channels: Number of channels.
        height: Rows, for maps of a fixed size.
        width: Columns, for maps of a fixed size.
        stride: Pixels of the network input for a step of one in the map.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
