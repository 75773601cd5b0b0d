"""The numbers of a training run, from its ``metrics.json``."""

import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from d2pd.errors import AnnotationError, MissingFileError

logger = logging.getLogger(__name__)

Series = dict[str, list[tuple[int, float]]]
"""metric -> (iteration, value) in order of the iteration; every value is finite."""

LARGEST = sys.float_info.max
"""JSON knows no bounds, and a whole number beyond this makes no float."""

BEST = "best/"
"""Before the name of a metric: its best value so far."""
VALIDATION = "val/"
LOSS_SCALE = "loss_scale"
"""What fp16 multiplies the loss by, which is no loss."""
SIZE_RANGES = ("APs", "APm", "APl")
MOST_CLASSES = 8
"""Of more curves than these in one panel, none could be told apart."""
_MISS_RATE = re.compile(r"(^|[^a-z0-9])(miss|(la)?mr\d*)([^a-z0-9]|$)", re.IGNORECASE)


def read_metrics(metrics_json: str | Path) -> Series:
    """Read the numbers of a ``metrics.json``.

    A line that is not whole (the run was killed while writing) is left out, with a warning. Where
    a resume wrote an iteration again, the later row counts. NaN and infinity are left out.

    Raises:
        MissingFileError: If there is no such file.
        AnnotationError: If it holds no row with an iteration and a number.
    """
    values: dict[str, dict[int, float]] = {}
    for row in _read_rows(Path(metrics_json)):
        for name, value in row.items():
            if name != "iteration" and isinstance(value, int | float) and abs(value) <= LARGEST:
                values.setdefault(name, {})[int(row["iteration"])] = float(value)
    if not values:
        raise AnnotationError(
            f"{metrics_json}: no row with an iteration and a number; nothing to draw"
        )
    return {name: sorted(points.items()) for name, points in values.items()}


def read_stop(metrics_json: str | Path) -> tuple[int, str] | None:
    """Read why a run stopped early.

    Returns:
        Iteration and reason; None where it did not, or went on afterwards.

    Raises:
        MissingFileError: If there is no such file.
    """
    rows = _read_rows(Path(metrics_json))
    if not rows or "stopped" not in rows[-1]:
        return None
    return int(rows[-1]["iteration"]), str(rows[-1]["stopped"])


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    if not path.is_file():
        raise MissingFileError(f"no {path}; a training run writes it, give its OUTPUT_DIR")
    rows = []
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        row = _parse(line)
        if row is None:
            logger.warning("%s:%d: not a whole row, left out", path, number)
        else:
            rows.append(row)
    return rows


def _parse(line: str) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # half-written, not text, or nested without end
        return None
    if not isinstance(row, dict) or not isinstance(row.get("iteration"), int):
        return None
    return row if abs(row["iteration"]) <= LARGEST else None


def add_latest(series: Series, latest: Mapping[str, tuple[float, int]]) -> Series:
    """Return the series with what a run has measured since it last wrote.

    Args:
        series: As read from the file.
        latest: metric -> value and iteration, as an event storage returns them.
    """
    merged = dict(series)
    for name, (value, iteration) in latest.items():
        points = series.get(name, [])
        if math.isfinite(value) and (not points or points[-1][0] < iteration):
            merged[name] = [*points, (iteration, value)]
    return merged


def best_points(series: Series) -> dict[str, tuple[int, float]]:
    """Return where each watched metric was best, from the rows of ``best/<metric>``.

    Returns:
        metric -> iteration at which its last best value was first written, and that value.
    """
    found = {}
    for name, points in series.items():
        if name.startswith(BEST):
            best = points[-1][1]
            start = len(points)
            while start and points[start - 1][1] == best:
                start -= 1
            found[name.removeprefix(BEST)] = points[start]
    return found


def precision_metrics(names: Iterable[str]) -> list[str]:
    """Return the average precisions to draw, by task: AP, AP50, AP75, then those of the classes.

    Left out are the size ranges, the class where there is only one (its AP is the AP), and the
    classes where there are more than ``MOST_CLASSES``.
    """
    wanted = [
        name
        for name in names
        if _last(name).startswith("AP")
        and _last(name) not in SIZE_RANGES
        and not name.startswith(BEST)
    ]
    classes = Counter(_task(name) for name in wanted if "-" in _last(name))
    drawn = [
        name
        for name in wanted
        if "-" not in _last(name) or 1 < classes[_task(name)] <= MOST_CLASSES
    ]
    return sorted(drawn, key=lambda name: (_task(name), "-" in _last(name), _last(name)))


def miss_rates(names: Iterable[str]) -> list[str]:
    """Return the miss rates to draw, for which lower is better: where many, the reasonable ones."""
    found = sorted(n for n in names if _MISS_RATE.search(n) and not n.startswith(BEST))
    reasonable = [name for name in found if "/reasonable/" in name]
    return reasonable if reasonable and len(found) > MOST_CLASSES else found[:MOST_CLASSES]


def training_losses(names: Iterable[str]) -> list[str]:
    """Return the parts of the training loss, without their sum; ``loss_seg`` also map by map."""
    return sorted(name for name in names if name.startswith("loss_") and name != LOSS_SCALE)


def _task(name: str) -> str:
    return name.rpartition("/")[0]


def _last(name: str) -> str:
    return name.rpartition("/")[2]
