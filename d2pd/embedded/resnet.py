"""ResNet backbones: He et al., Deep Residual Learning, CVPR 2016."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from d2pd.embedded.backbone import BACKBONE_REGISTRY, Backbone
from d2pd.embedded.batch_norm import FrozenBatchNorm2d, get_norm
from d2pd.embedded.conv import Conv2d, init_msra
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, norm: str, **kwargs: Any
) -> Conv2d:
    """A convolution that keeps the size at stride 1, with a norm in place of a bias."""
    kwargs.setdefault("padding", kernel_size // 2)
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        bias=False,
        norm=get_norm(norm, out_channels),
        **kwargs,
    )


class FreezableBlock(nn.Module):
    """A part of the network that can be frozen.

    Attributes:
        out_channels: Channels of its output.
        stride: Input pixels for a step of one in its output.
    """

    def __init__(self, out_channels: int, stride: int):
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> None:
        """Train nothing in here any more, batch statistics included."""
        self.requires_grad_(False)
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)


class ResidualBlock(FreezableBlock):
    """Convolutions beside a shortcut; the shortcut projects where the channels change.

    The shortcut registers first and is initialised last: names, parameter order and random draws
    are those of Detectron2, so equal seeds give equal weights.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str):
        super().__init__(out_channels, stride)
        self.shortcut = (
            _conv(in_channels, out_channels, 1, norm, stride=stride)
            if in_channels != out_channels
            else None
        )

    def _initialise(self, *convs: Conv2d) -> None:
        for conv in (*convs, self.shortcut):
            if conv is not None:
                init_msra(conv)

    def _residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_channels, H / stride, W / stride)."""
        out = self._residual(x)
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, as in ResNet-18 and -34."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "BN"):
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride)
        self.conv2 = _conv(out_channels, out_channels, 3, norm)
        self._initialise(self.conv1, self.conv2)

    def _residual(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu_(self.conv1(x)))


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions, as in ResNet-50 and deeper, ResNeXt included."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ):
        """Create the block.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output.
            bottleneck_channels: Channels of the 3x3 convolution.
            stride: Of the whole block.
            num_groups: Groups of the 3x3 convolution.
            norm: See ``get_norm``.
            stride_in_1x1: Put the stride into the first 1x1 convolution (weights by MSRA) instead
                of the 3x3 (torchvision, ResNeXt).
            dilation: Of the 3x3 convolution.
        """
        super().__init__(in_channels, out_channels, stride, norm)
        first, middle = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=first)
        self.conv2 = _conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            norm,
            stride=middle,
            padding=dilation,
            groups=num_groups,
            dilation=dilation,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)
        self._initialise(self.conv1, self.conv2, self.conv3)

    def _residual(self, x: Tensor) -> Tensor:
        return self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))


class BasicStem(FreezableBlock):
    """The first layers: a 7x7 convolution and max pooling, each of stride 2."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: str = "BN"):
        super().__init__(out_channels, stride=4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)
        init_msra(self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to (N, out_channels, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(Backbone):
    """A stem and up to four stages, ``res2`` to ``res5``."""

    def __init__(
        self,
        stem: FreezableBlock,
        stages: Sequence[Sequence[FreezableBlock]],
        out_features: list[str],
        freeze_at: int = 0,
    ):
        """Join the parts; stages after the last feature wanted are dropped.

        Args:
            stem: First layers.
            stages: Blocks of each stage.
            out_features: Feature maps to return: ``stem``, ``res2``, ... ``res5``.
            freeze_at: Stages to freeze, counted from the stem: 0 none, 2 the stem and ``res2``.

        Raises:
            ConfigError: If a feature does not exist.
        """
        super().__init__()
        names = ["stem", *(f"res{i}" for i in range(2, 2 + len(stages)))]
        unknown = sorted(set(out_features) - set(names))
        if unknown or not out_features:
            raise ConfigError(f"RESNETS.OUT_FEATURES is {out_features}, choose of {names}")
        self._out_features = out_features
        self._out_feature_channels = {"stem": stem.out_channels}
        self._out_feature_strides = {"stem": stem.stride}
        self._stage_names = names[1 : 1 + max(names.index(name) for name in out_features)]
        self.stem = stem
        stride = stem.stride
        for name, blocks in zip(self._stage_names, stages, strict=False):
            self.add_module(name, nn.Sequential(*blocks))
            for block in blocks:
                stride *= block.stride
            self._out_feature_channels[name] = blocks[-1].out_channels
            self._out_feature_strides[name] = stride
        for frozen in [[stem], *stages][:freeze_at]:
            for block in frozen:
                block.freeze()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (N, C, H, W) to the feature maps wanted, by name."""
        outputs = {"stem": self.stem(x)}
        x = outputs["stem"]
        for name in self._stage_names:
            x = outputs[name] = getattr(self, name)(x)
        return {name: outputs[name] for name in outputs if name in self._out_features}


def _make_blocks(cfg: CfgNode, stage: int, channels: tuple[int, int]) -> list[FreezableBlock]:
    """Blocks of one stage.

    Args:
        cfg: Configuration.
        stage: 0 for ``res2`` to 3 for ``res5``.
        channels: Into the stage and out of it.
    """
    resnets = cfg.MODEL.RESNETS
    in_channels, out_channels = channels
    dilation = resnets.RES5_DILATION if stage == 3 else 1
    stride = 1 if stage == 0 or dilation == 2 else 2
    blocks: list[FreezableBlock] = []
    for index in range(BLOCKS_PER_STAGE[resnets.DEPTH][stage]):
        shape = {
            "in_channels": in_channels if index == 0 else out_channels,
            "out_channels": out_channels,
            "stride": stride if index == 0 else 1,
            "norm": resnets.NORM,
        }
        if resnets.DEPTH < 50:
            blocks.append(BasicBlock(**shape))
            continue
        blocks.append(
            BottleneckBlock(
                **shape,
                bottleneck_channels=resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP * 2**stage,
                num_groups=resnets.NUM_GROUPS,
                stride_in_1x1=resnets.STRIDE_IN_1X1,
                dilation=dilation,
            )
        )
    return blocks


def _check_resnet_keys(cfg: CfgNode) -> None:
    resnets = cfg.MODEL.RESNETS
    if resnets.DEPTH not in BLOCKS_PER_STAGE:
        allowed = sorted(BLOCKS_PER_STAGE)
        raise ConfigError(f"MODEL.RESNETS.DEPTH is {resnets.DEPTH}, allowed are {allowed}")
    if resnets.RES5_DILATION not in (1, 2):
        raise ConfigError(f"MODEL.RESNETS.RES5_DILATION is {resnets.RES5_DILATION}, allowed: 1, 2")
    if resnets.DEPTH < 50:
        needed = {"RES2_OUT_CHANNELS": 64, "RES5_DILATION": 1, "NUM_GROUPS": 1}
        for key, value in needed.items():
            if resnets[key] != value:
                raise ConfigError(
                    f"MODEL.RESNETS.{key} is {resnets[key]}: "
                    f"set it to {value} for DEPTH {resnets.DEPTH}"
                )


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet from ``MODEL.RESNETS`` and ``MODEL.BACKBONE.FREEZE_AT``.

    Raises:
        ConfigError: If a key has a value that no ResNet goes with.
    """
    _check_resnet_keys(cfg)
    resnets = cfg.MODEL.RESNETS
    in_channels = resnets.STEM_OUT_CHANNELS
    stem = BasicStem(input_shape.channels or 3, in_channels, resnets.NORM)
    stages = []
    for stage in range(4):
        out_channels = resnets.RES2_OUT_CHANNELS * 2**stage
        stages.append(_make_blocks(cfg, stage, (in_channels, out_channels)))
        in_channels = out_channels
    return ResNet(stem, stages, list(resnets.OUT_FEATURES), cfg.MODEL.BACKBONE.FREEZE_AT)
