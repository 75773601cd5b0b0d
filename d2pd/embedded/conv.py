"""A convolution with what follows it, and how layers start."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, then an optional norm, then an optional activation.

    The norm is a submodule called ``norm``: checkpoints hold ``conv1.weight``,
    ``conv1.norm.weight`` and so on.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ):
        """Create the layer.

        Args:
            args: As for ``nn.Conv2d``.
            norm: Applied to the output of the convolution.
            activation: Applied last.
            kwargs: As for ``nn.Conv2d``.
        """
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        x = F.conv2d(
            input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


def init_msra(layer: nn.Conv2d) -> None:
    """Start a convolution that a ReLU follows: normal weights that keep the gradient's scale.

    Source: He et al., Delving Deep into Rectifiers, ICCV 2015.
    """
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_xavier(layer: nn.Conv2d | nn.Linear) -> None:
    """Start a layer with uniform weights that keep the scale of its input, as in Caffe2.

    Source: Glorot and Bengio, AISTATS 2010, with the inputs alone counted.
    """
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
