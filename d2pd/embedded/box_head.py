"""Layers between the pooled features of a region and its predictions."""

import math
from collections.abc import Sequence
from typing import Any

from fvcore.common.config import CfgNode
from torch import nn

from d2pd.embedded.batch_norm import get_norm
from d2pd.embedded.configurable import configurable
from d2pd.embedded.conv import Conv2d, init_msra, init_xavier
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError


class FastRCNNConvFCHead(nn.Sequential):
    """3x3 convolutions, each with norm and ReLU, then linear layers, each with ReLU."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dims: Sequence[int],
        fc_dims: Sequence[int],
        conv_norm: str = "",
    ):
        """Create the layers ``conv1``, ``conv2``, ..., ``fc1``, ``fc2``, ...

        Args:
            input_shape: Channels, height and width of the pooled features.
            conv_dims: Output channels of each convolution.
            fc_dims: Output size of each linear layer.
            conv_norm: See ``get_norm``.

        Raises:
            ConfigError: If there is no layer at all.
        """
        super().__init__()
        if not conv_dims and not fc_dims:
            raise ConfigError("MODEL.ROI_BOX_HEAD needs layers: set NUM_FC or NUM_CONV over 0")
        channels = input_shape.channels or 1
        self._height, self._width = input_shape.height or 1, input_shape.width or 1
        convs, linears = [], []
        for index, dim in enumerate(conv_dims, start=1):
            convs.append(
                Conv2d(
                    channels,
                    dim,
                    3,
                    padding=1,
                    bias=not conv_norm,
                    norm=get_norm(conv_norm, dim),
                    activation=nn.ReLU(),
                )
            )
            self.add_module(f"conv{index}", convs[-1])
            channels = dim
        size = math.prod((channels, self._height, self._width))
        for index, dim in enumerate(fc_dims, start=1):
            if index == 1:
                self.add_module("flatten", nn.Flatten())
            linears.append(nn.Linear(size, dim))
            self.add_module(f"fc{index}", linears[-1])
            self.add_module(f"fc_relu{index}", nn.ReLU())
            size = dim
        self._is_flat = bool(linears)
        self._out_channels = size if linears else channels
        for conv in convs:
            init_msra(conv)
        for linear in linears:
            init_xavier(linear)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read ``MODEL.ROI_BOX_HEAD``."""
        head = cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "conv_dims": [head.CONV_DIM] * head.NUM_CONV,
            "fc_dims": [head.FC_DIM] * head.NUM_FC,
            "conv_norm": head.NORM,
        }

    @property
    def output_shape(self) -> ShapeSpec:
        """Shape of what comes out for one region."""
        if self._is_flat:
            return ShapeSpec(channels=self._out_channels)
        return ShapeSpec(channels=self._out_channels, height=self._height, width=self._width)


def build_box_head(cfg: CfgNode, input_shape: ShapeSpec) -> FastRCNNConvFCHead:
    """Build the box head for pooled features of this shape.

    Raises:
        ConfigError: If ``MODEL.ROI_BOX_HEAD.NAME`` is another than the one there is.
    """
    name = cfg.MODEL.ROI_BOX_HEAD.NAME
    if name != FastRCNNConvFCHead.__name__:
        raise ConfigError(
            f"MODEL.ROI_BOX_HEAD.NAME is '{name}', the embedded engine has 'FastRCNNConvFCHead'"
        )
    return FastRCNNConvFCHead(cfg, input_shape)
