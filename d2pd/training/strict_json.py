"""Numbers that are not finite in JSON, which has none."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def strict(value: Any) -> Any:
    """Return plain data with the strings ``inf``, ``-inf`` and ``nan`` for such numbers.

    Args:
        value: Mappings, sequences, numbers, strings, None; tuples become lists.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: strict(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [strict(part) for part in value]
    return value
