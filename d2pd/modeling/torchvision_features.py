"""Feature maps of torchvision's classifiers: where they are, and a network that gives them."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, list_models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth

from d2pd.errors import ConfigError

NAME, OUT_NODES = "MODEL.TORCHVISION.NAME", "MODEL.TORCHVISION.OUT_NODES"
LEVELS = range(1, 6)
"""A map of level k has a step for 2 ** k pixels of the image."""

_RGB = 3
_PROBE = (256, 320)  # px; of different sides, so that no map is taken for a turned one
# Left as modules in the graph, so that each has a mode of its own.
_LEAVES = {"leaf_modules": [StochasticDepth]}


@dataclass(frozen=True)
class FeatureMap:
    """Where a map is in a network.

    Attributes:
        node: A module, or an operation, whose last value it is.
        level: See ``LEVELS``.
        channels: Of the map.
        is_channels_last: Whether it comes as (N, H, W, C), as Swin's do.
    """

    node: str
    level: int
    channels: int
    is_channels_last: bool


class TorchvisionFeatures(nn.Module):
    """A classifier of torchvision up to its last map wanted; ``res<k>`` has stride ``2 ** k``.

    Parameters have torchvision's names, behind ``body``. It offers what Detectron2's ``Backbone``
    asks for, and is to be joined with that class.

    Args:
        name: As ``torchvision.models.get_model`` takes it.
        in_channels: Of the images.
        features: Maps wanted, such as ``res2`` to ``res5``, high to low resolution.
        out_nodes: Nodes to take in place of those found, each of another stride.
        freeze_at: Level up to whose map nothing learns, batch statistics included; 0 for none.
        freezes_norm: Whether batch norm learns nothing anywhere.

    Raises:
        ConfigError: If there is no such model, node or map.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        features: Sequence[str],
        *,
        out_nodes: Sequence[str] = (),
        freeze_at: int = 0,
        freezes_norm: bool = False,
    ) -> None:
        super().__init__()
        classifier = build_classifier(name, in_channels)
        values = node_values(classifier, name, in_channels)
        found = maps_by_level(values)
        chosen = maps_of_nodes(values, out_nodes) if out_nodes else found
        self._maps = _wanted(chosen, features, name)
        self._out_features = list(self._maps)
        self._out_feature_channels = {key: one.channels for key, one in self._maps.items()}
        self._out_feature_strides = {key: 2**one.level for key, one in self._maps.items()}
        frozen = _names_up_to(classifier, found, freeze_at, name)
        body = extractor(classifier, {one.node: key for key, one in self._maps.items()})
        _freeze(body, frozen, freezes_norm)
        self.body: nn.Module = body.to(torch.get_default_device())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (N, C, H, W) to maps (N, channels, H / stride, W / stride) by name."""
        found = self.body(x)
        return {
            key: found[key].permute(0, 3, 1, 2) if one.is_channels_last else found[key]
            for key, one in self._maps.items()
        }


def build_classifier(name: str, in_channels: int) -> nn.Module:
    """Build a classifier with random weights on the CPU, for images of any number of channels.

    Raises:
        ConfigError: If torchvision has none of that name; those of similar names are named.
    """
    known = list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise ConfigError(
            f"{NAME} is {name!r}, which is no classifier of torchvision {torchvision.__version__}; "
            + (f"did you mean {' or '.join(near)}?" if near else "take one such as swin_t")
        )
    with torch.device("cpu"):
        # Without this, two of them draw their weights by another, slow, way and warn of it.
        slow = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        model: nn.Module = get_model(name, weights=None, **slow)
        if in_channels != _RGB:
            _replace_first_layer(model, in_channels)
    return model


def _replace_first_layer(model: nn.Module, in_channels: int) -> None:
    path, old = next(
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == _RGB
    )
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    _put(model, path, new)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def extractor(model: nn.Module, nodes: Mapping[str, str]) -> nn.Module:
    """Return the part of a model that some nodes need, with the names that the model has.

    Args:
        model: Shares its parameters.
        nodes: Names of what is returned, by node.
    """
    part: nn.Module = create_feature_extractor(
        model, dict(nodes), tracer_kwargs=_LEAVES, suppress_diff_warning=True
    )
    return part


def node_values(model: nn.Module, name: str, in_channels: int) -> dict[str, Any]:
    """Return the last value of every node and module of a classifier, in their order.

    It is run on a picture without memory or content, and draws no random number.

    Raises:
        ConfigError: If it does not run on pictures of any size.
    """
    probe = copy.deepcopy(model).to("meta").eval()
    options: dict[str, Any] = {"tracer_kwargs": _LEAVES, "suppress_diff_warning": True}
    try:
        train, nodes = get_graph_node_names(probe, **options)
        whole = create_feature_extractor(
            probe, train_return_nodes=train, eval_return_nodes=nodes, **options
        ).eval()
        with torch.no_grad():
            found = whole(torch.zeros(1, in_channels, *_PROBE, device="meta"))
    except Exception as error:  # torch.fx can raise nearly anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{NAME} {name} cannot be a backbone, as it does not take images of any size "
            f"({reason[:120]}): take one such as swin_t, convnext_tiny or "
            "resnet50"
        ) from error
    values: dict[str, Any] = {}
    for node in nodes:
        words = node.split(".")
        for length in range(1, len(words) + 1):
            path = ".".join(words[:length])
            values.pop(path, None)  # the last value counts, and its place
            values[path] = found[node]
    return values


def _map_of(node: str, value: Any) -> FeatureMap | None:
    if not isinstance(value, Tensor) or value.dim() != 4:
        return None
    for level in LEVELS:
        sides = tuple(side >> level for side in _PROBE)
        if tuple(value.shape[2:]) == sides:
            return FeatureMap(node, level, value.shape[1], is_channels_last=False)
        if tuple(value.shape[1:3]) == sides:
            return FeatureMap(node, level, value.shape[3], is_channels_last=True)
    return None


def maps_by_level(values: Mapping[str, Any]) -> dict[int, FeatureMap]:
    """Find the map of each level: the last value of its size that an outermost module has.

    So a stage counts, and not what the first layers of the next one make of it.

    Args:
        values: What ``node_values`` returned.
    """
    maps = [one for node, value in values.items() if (one := _map_of(node, value))]
    found: dict[int, FeatureMap] = {}
    for level in LEVELS:
        of_level = [one for one in maps if one.level == level]
        depth = min((one.node.count(".") for one in of_level), default=0)
        outermost = [one for one in of_level if one.node.count(".") == depth]
        if outermost:
            found[level] = outermost[-1]
    return found


def maps_of_nodes(values: Mapping[str, Any], nodes: Sequence[str]) -> dict[int, FeatureMap]:
    """Return the maps of given nodes by level.

    Raises:
        ConfigError: If one is not there, is no map, or has the stride of another.
    """
    found: dict[int, FeatureMap] = {}
    for node in nodes:
        if node not in values:
            near = difflib.get_close_matches(node, list(values), n=3, cutoff=0.5)
            near = near or list(dict.fromkeys(path.split(".")[0] for path in values))[:8]
            raise ConfigError(
                f"{OUT_NODES} names {node!r}, which the model does not have; it has "
                f"{', '.join(near)} and others"
            )
        one = _map_of(node, values[node])
        if one is None:
            raise ConfigError(
                f"{OUT_NODES} names {node!r}, which is no map of stride 2, 4, 8, 16 or 32"
            )
        if one.level in found:
            raise ConfigError(
                f"{OUT_NODES}: {found[one.level].node} and {node} both have stride "
                f"{2**one.level}: name one of them"
            )
        found[one.level] = one
    return found


def _wanted(
    maps: Mapping[int, FeatureMap], features: Sequence[str], name: str
) -> dict[str, FeatureMap]:
    by_name = {f"res{level}": one for level, one in sorted(maps.items())}
    missing = [feature for feature in features if feature not in by_name]
    if not by_name:
        raise ConfigError(
            f"{NAME} {name} has no maps of stride 2, 4, 8, 16 or 32, hence no pyramid: take one "
            "such as swin_t, convnext_tiny or resnet50"
        )
    if missing or not features:
        there = ", ".join(f"{key} ({one.node})" for key, one in by_name.items())
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES is {list(features)}, but {name} has {there}: res<k> has "
            "stride 2 ** k"
        )
    return {feature: by_name[feature] for feature in features}


def _names_up_to(
    model: nn.Module, maps: Mapping[int, FeatureMap], freeze_at: int, name: str
) -> set[str]:
    """Return the names of the modules and parameters that a map needs."""
    if freeze_at == 0:
        return set()
    if freeze_at not in maps:
        raise ConfigError(
            f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}: {name} can be frozen up to its maps of "
            f"stride 2 ** N, N one of {', '.join(map(str, maps))}, or not at all (0)"
        )
    part = extractor(model, {maps[freeze_at].node: "last"})
    return {path for path, _ in (*part.named_modules(), *part.named_parameters())}


def _freeze(body: nn.Module, names: set[str], freezes_norm: bool) -> None:
    for path, parameter in body.named_parameters():
        if path in names:
            parameter.requires_grad_(False)
    for path, module in list(body.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and (freezes_norm or path in names):
            frozen = FrozenBatchNorm2d(module.num_features, eps=module.eps)
            frozen.load_state_dict(module.state_dict())
            _put(body, path, frozen)
