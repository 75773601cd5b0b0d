"""Running a model on the side of its training: what a forward pass draws or changes is set back."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from d2pd.training.random_state import random_state, set_random_state

_WITH_A_MODE = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm of torch, Detectron2 and the engine
    nn.modules.dropout._DropoutNd,
    nn.MultiheadAttention,
    nn.RNNBase,
)
_NAMES_WITH_A_MODE = ("FrozenBatchNorm2d", "StochasticDepth", "DropPath", "DropBlock2d")
"""Classes of Detectron2, torchvision and timm, by name: not all of them are installed."""


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper of ``torch.nn.parallel``, whose forward communicates."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    return model.module if isinstance(model, wrappers) else model


def cuda_devices(model: nn.Module) -> list[int]:
    """Return the indices of the GPUs that a model lies on; empty on a CPU."""
    tensors = chain(model.parameters(), model.buffers())
    devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    return sorted(torch.cuda.current_device() if d.index is None else d.index for d in devices)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Set the generators of torch, its GPUs, NumPy and Python back afterwards."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def seed_generators(seed: int, devices: Sequence[int]) -> None:
    """Seed the generators of torch, of these GPUs, of NumPy and Python.

    Args:
        seed: In [0, 2**63).
        devices: Indices of GPUs; those of others are left alone.
    """
    torch.default_generator.manual_seed(seed)
    for device in devices:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def loss_mode(model: nn.Module) -> Iterator[None]:
    """Let a model return its losses without the noise of training.

    Within the context it is in training mode, with its normalisation, dropout and stochastic depth
    in evaluation mode; afterwards every module has the mode it had. Functional dropout that asks
    for ``self.training`` is out of reach.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        if not model.training:
            model.train()
        for module in model.modules():
            if _has_a_mode(module):
                module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _has_a_mode(module: nn.Module) -> bool:
    names = {base.__name__ for base in type(module).__mro__}
    return isinstance(module, _WITH_A_MODE) or not names.isdisjoint(_NAMES_WITH_A_MODE)


@contextmanager
def without_other_processes(model: nn.Module) -> Iterator[None]:
    """Let a model that talks to other processes in its forward pass work by itself.

    They are not listening: this is for what one process does, or each as often as it has images.
    Batch norm over all processes becomes its own, and a module with ``has_peers`` is told.
    """
    talking = [module for module in model.modules() if _talks(module)]
    counting = [module for module in model.modules() if getattr(module, "has_peers", False)]
    classes: list[Any] = [type(module) for module in talking]
    try:
        for module in talking:
            module.__class__ = nn.BatchNorm2d
        for module in counting:
            vars(module)["has_peers"] = False
        yield
    finally:
        for module, own in zip(talking, classes, strict=True):
            module.__class__ = own
        for module in counting:
            vars(module)["has_peers"] = True


def _talks(module: nn.Module) -> bool:
    is_batch_norm = isinstance(module, nn.SyncBatchNorm | nn.BatchNorm2d)
    return is_batch_norm and "Sync" in type(module).__name__


class ForwardState:
    """Everything a forward pass may change in a model: its buffers, and what it rebinds.

    Some models keep a running value, such as RetinaNet's normaliser, in an attribute of a module
    rather than in a buffer. Containers that a model changes in place are not kept.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take the state of all modules as it is now."""
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for module in model.modules():
            for namespace in (vars(module), module._buffers):
                self._attributes.append((namespace, dict(namespace)))
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Set it back, bit by bit."""
        for namespace, content in self._attributes:
            namespace.clear()
            namespace.update(content)
        for buffer, value in self._buffers:
            buffer.copy_(value)
