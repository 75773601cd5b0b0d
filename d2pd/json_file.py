"""JSON files: whole or not there, and of numbers that any reader takes."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2pd.output_files import write_file


def write_json(path: Path, content: Any, *, indent: int | None = None) -> None:
    """Write plain data; folders are made.

    Args:
        path: What lies there is replaced, once the new file is whole.
        content: See ``strict``.
        indent: Spaces a level; None for one line.

    Raises:
        UserError: If it cannot be written: the disk is full, or a folder has the name.
    """
    write_file(path, json.dumps(strict(content), indent=indent, ensure_ascii=False) + "\n")


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
