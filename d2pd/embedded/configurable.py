"""Let a class with plain arguments also be built from the configuration."""

import functools
from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode


def configurable(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate ``__init__`` so that ``Class(cfg, ...)`` works beside ``Class(name=value, ...)``.

    With a ``CfgNode`` as first positional argument, the positional arguments go to the class
    method ``from_config``, which returns the plain arguments as a dict; keyword arguments override
    single ones.
    """

    @functools.wraps(init)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        if args and isinstance(args[0], CfgNode):
            kwargs = {**type(self).from_config(*args), **kwargs}
            args = ()
        init(self, *args, **kwargs)

    return build
