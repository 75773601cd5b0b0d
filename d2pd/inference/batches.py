"""Images that are computed together."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


def in_batches(
    items: Iterable[Item], key_of: Callable[[Item], Any], size: int
) -> Iterator[list[Item]]:
    """Yield items that follow each other and have the same key together, ``size`` at most."""
    batch: list[Item] = []
    for item in items:
        if batch and (len(batch) == size or key_of(item) != key_of(batch[0])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
