"""Plain data: what a checkpoint may hold besides the weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def plain(value: Any, where: str) -> Any:
    """Turn the state of a training into data that ``weights_only`` reading accepts.

    Args:
        value: Containers, tensors and numbers; numpy's numbers become Python's, paths strings.
        where: The keys that lead to it, for messages.

    Returns:
        Dictionaries, lists, tuples, tensors, numbers and strings of exactly these types. Tensors
        share their storage with the given ones, containers are new.

    Raises:
        TypeError: If something else is in it.
    """
    return _plain(value, where, {})


def _plain(value: Any, where: str, done: dict[int, Any]) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    # The type itself: an enum is an int too, and would be stored as a class.
    if type(value) in _PLAIN:
        return value
    if type(value) in (Tensor, nn.Parameter):
        return Tensor.detach(value)  # a hostile file can give a tensor another ``detach``
    if not isinstance(value, Mapping | list | tuple):
        raise TypeError(
            f"{where} is a {type(value).__name__}, which a checkpoint cannot hold: turn it into "
            "numbers, strings, lists, dictionaries or tensors"
        )
    # Each container once: one that holds itself twice, many times over, would never end.
    if id(value) not in done:
        done[id(value)] = _container(value, where, done)
    return done[id(value)]


def _container(value: Any, where: str, done: dict[int, Any]) -> Any:
    if isinstance(value, Mapping):
        entries = dict.items(value) if isinstance(value, dict) else value.items()
        return {_plain(k, where, done): _plain(v, f"{where}.{k}", done) for k, v in entries}
    parts = [_plain(entry, f"{where}[{i}]", done) for i, entry in enumerate(value)]
    return tuple(parts) if isinstance(value, tuple) else parts
