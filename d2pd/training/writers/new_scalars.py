"""What an event storage holds that has not been written yet."""

from collections import defaultdict

from d2pd.d2 import EventStorage
from d2pd.training.hooks.scalar_history import WINDOW


def new_scalars(storage: EventStorage, after: int) -> list[tuple[int, dict[str, float]]]:
    """Return the latest scalars by their iteration, as writers show them.

    Args:
        storage: Where the run has put them.
        after: Iteration; scalars of it and of earlier ones are left out.

    Returns:
        Iteration and name -> value, in order of the iteration. A value is the median of ``WINDOW``
        iterations where the storage hints that it should be smoothed.
    """
    rows: dict[int, dict[str, float]] = defaultdict(dict)
    for name, (value, iteration) in storage.latest_with_smoothing_hint(WINDOW).items():
        if iteration > after:
            rows[iteration][name] = float(value)
    return sorted(rows.items())
