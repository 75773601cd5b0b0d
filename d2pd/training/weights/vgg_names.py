"""Translates the weights of torchvision's VGG16 into those of SSD's backbone."""

from collections.abc import Iterable, Mapping

from torch import Tensor

BACKBONE = "backbone."

# torchvision: vgg.py, configuration D: convolutions of each block.
_BLOCKS = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
_CLASSES = "classifier.6.weight"
_NORM_WORDS = ("weight", "bias", "running_mean", "running_var")


def _layers(layers_per_conv: int) -> dict[int, str]:
    """Return ours by the position in torchvision's ``features``.

    Args:
        layers_per_conv: 2 for a convolution and its ReLU, 3 where batch norm is between them.
    """
    names: dict[int, str] = {}
    position = 0
    for block, count in _BLOCKS.items():
        part = "rear" if block == 5 else "front"
        for number in range(1, count + 1):
            names[position] = f"{BACKBONE}{part}.conv{block}_{number}"
            position += layers_per_conv
        position += 1  # the pooling
    return names


PLAIN, WITH_NORM = _layers(2), _layers(3)


def _parameters(layers: Mapping[int, str], *, has_norm: bool) -> dict[str, str]:
    names: dict[str, str] = {}
    for position, ours in layers.items():
        names |= {f"features.{position}.{word}": f"{ours}.{word}" for word in ("weight", "bias")}
        if has_norm:
            theirs = f"features.{position + 1}"
            names |= {f"{theirs}.{word}": f"{ours}.norm.{word}" for word in _NORM_WORDS}
    return names


_NAMES = (_parameters(PLAIN, has_norm=False), _parameters(WITH_NORM, has_norm=True))


def vgg16_names(names: Iterable[str]) -> dict[str, str] | None:
    """Return our name of each layer of a torchvision VGG16; None for any other model.

    A VGG of another depth has other positions.
    """
    found = {name for name in names if name.startswith("features.")}
    learnt = {name for name in found if not name.endswith("num_batches_tracked")}
    return next((table for table in _NAMES if learnt == table.keys()), None)


def to_ssd_backbone(state: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename a VGG16, and thin its first two fully connected layers out to conv6 and conv7.

    fc6 sees 7x7 positions and gives 4096 numbers; conv6 keeps every third position, each way, and
    every fourth number. The classifier of ImageNet has no place in a detector.

    Args:
        state: Tensors by torchvision's names.
        table: What ``vgg16_names`` gave for them.

    Source: Chen et al., DeepLab, ICLR 2015, section 3.1; Liu et al., SSD, ECCV 2016, section 3.
    """
    renamed = {ours: state[theirs] for theirs, ours in table.items()}
    if _CLASSES not in state:
        return renamed
    fc6, fc7 = state["classifier.0.weight"], state["classifier.3.weight"]
    thinned = {
        "conv6.weight": fc6.reshape(len(fc6), -1, 7, 7)[::4, :, ::3, ::3],
        "conv6.bias": state["classifier.0.bias"][::4],
        "conv7.weight": fc7[::4, ::4, None, None],
        "conv7.bias": state["classifier.3.bias"][::4],
    }
    # Copies: a view would hold on to the 400 MB that it was taken from.
    return renamed | {BACKBONE + name: tensor.clone() for name, tensor in thinned.items()}
