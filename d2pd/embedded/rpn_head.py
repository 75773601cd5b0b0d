"""The layers of the region proposal network."""

from collections import OrderedDict
from collections.abc import Sequence

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from d2pd.embedded.conv import Conv2d
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError


class StandardRPNHead(nn.Module):
    """3x3 convolutions, then objectness and box deltas for the anchors of each location.

    The same weights serve every feature map.
    """

    def __init__(self, in_channels: int, num_anchors: int, conv_dims: Sequence[int] = (-1,)):
        """Create the layers.

        Args:
            in_channels: Channels of the feature maps.
            num_anchors: Anchors per location.
            conv_dims: Output channels of each hidden convolution; -1 keeps the number.

        Raises:
            ConfigError: If there is no convolution, or one without channels.
        """
        super().__init__()
        if not conv_dims or any(dim != -1 and dim <= 0 for dim in conv_dims):
            raise ConfigError(f"MODEL.RPN.CONV_DIMS is {list(conv_dims)}: give -1 or sizes over 0")
        hidden = []
        for dim in conv_dims:
            out_channels = in_channels if dim == -1 else dim
            hidden.append(Conv2d(in_channels, out_channels, 3, padding=1, activation=nn.ReLU()))
            in_channels = out_channels
        self.conv: nn.Module = hidden[0]
        if len(hidden) > 1:
            named = {f"conv{index}": conv for index, conv in enumerate(hidden)}
            self.conv = nn.Sequential(OrderedDict(named))
        self.objectness_logits = nn.Conv2d(in_channels, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(in_channels, num_anchors * 4, 1)
        for conv in (*hidden, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predict on feature maps (N, C, H, W).

        Returns:
            For each map, objectness logits (N, H * W * A) and deltas (N, H * W * A, 4).
        """
        logits, deltas = [], []
        for feature in features:
            hidden = self.conv(feature)
            # (N, A, H, W) and (N, A * 4, H, W), anchors to the end
            logits.append(self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1))
            predicted = self.anchor_deltas(hidden).permute(0, 2, 3, 1)
            deltas.append(predicted.reshape(predicted.shape[0], -1, 4))
        return logits, deltas


def build_rpn_head(
    cfg: CfgNode, input_shape: list[ShapeSpec], num_anchors: list[int]
) -> StandardRPNHead:
    """Build the head that all feature maps share.

    Args:
        cfg: Configuration.
        input_shape: Shapes of the feature maps.
        num_anchors: Anchors per location of each feature map.

    Raises:
        ConfigError: If the feature maps differ in channels or anchors, or the head is unknown.
    """
    name = cfg.MODEL.RPN.HEAD_NAME
    if name != StandardRPNHead.__name__:
        raise ConfigError(
            f"MODEL.RPN.HEAD_NAME is '{name}', the embedded engine has 'StandardRPNHead'"
        )
    channels = {shape.channels or 0 for shape in input_shape}
    if len(channels) != 1 or len(set(num_anchors)) != 1:
        raise ConfigError(
            f"MODEL.RPN.IN_FEATURES need equal channels and anchors per location: "
            f"got {sorted(channels)} channels and {num_anchors} anchors"
        )
    return StandardRPNHead(channels.pop(), num_anchors[0], cfg.MODEL.RPN.CONV_DIMS)
