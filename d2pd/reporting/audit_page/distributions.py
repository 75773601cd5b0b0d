"""How large the boxes of a label file are, how many there are, and where."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from d2pd.data.audit.box_rules import sound_boxes
from d2pd.data.fold_assignment import UNKNOWN_DAYTIME, daytime_of
from d2pd.data.label_table.table import UNKNOWN_CATEGORY, LabelTable
from d2pd.reporting.audit_page.content import Bars, Grid
from d2pd.reporting.report.chart import Chart, Line, Point

MOST_CLASSES = 6
"""Classes with a line of their own in a chart; the others share one."""

MOST_BARS = 30
MOST_BINS = 40
COLUMNS = 32
REGIONS, UNKNOWN, OTHERS = "regions to ignore", "unknown class", "other classes"
OCCLUSIONS = {0: "none", 1: "partial", 2: "heavy", -1: "not stated"}

Group = tuple[str, np.ndarray]
"""Name and (B,) bool of the boxes that share a line."""


def size_charts(table: LabelTable) -> list[Chart]:
    """Draw height, width, their ratio, and the number of boxes in an image.

    Boxes without area or with numbers that are not finite are left out.
    """
    boxes = table.boxes_xyxy
    is_sound = sound_boxes(boxes)
    with np.errstate(all="ignore"):  # what is not sound is left out below
        widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        ratios = widths / heights
    groups = [(name, mask & is_sound) for name, mask in _groups(table)]
    return [
        _histogram(
            "Number of boxes by height (log scale)", "height in px", heights, groups, is_whole=True
        ),
        _histogram(
            "Number of boxes by width (log scale)", "width in px", widths, groups, is_whole=True
        ),
        _histogram(
            "Number of boxes by width / height (log scale)",
            "width / height",
            ratios,
            groups,
            is_whole=False,
        ),
        _boxes_per_image(table),
    ]


def count_bars(table: LabelTable) -> Iterator[Bars]:
    """Count boxes by class and occlusion, images and objects by day and night.

    What the file does not tell of is left out.
    """
    groups = _groups(table, MOST_BARS)
    yield Bars("Boxes by class", [(name, int(mask.sum())) for name, mask in groups])
    is_object = ~table.is_region
    stated = Counter(table.occlusion[is_object].tolist())
    if set(stated) - {-1}:
        rows = [(name, stated[value]) for value, name in OCCLUSIONS.items() if stated[value]]
        yield Bars("Objects by occlusion", rows, "Regions to ignore are not counted.")
    daytimes = np.array([daytime_of(name) for name in table.image_names])
    if (daytimes != UNKNOWN_DAYTIME).any():
        yield _daytime_bars("Images by day and night", daytimes)
        yield _daytime_bars("Objects by day and night", daytimes[table.box_images[is_object]])


def centre_grid(table: LabelTable) -> Grid | None:
    """Count the centres of objects in each part of their image, None where no size is known."""
    widths, heights = table.widths[table.box_images], table.heights[table.box_images]
    is_taken = sound_boxes(table.boxes_xyxy) & ~table.is_region & (widths > 0) & (heights > 0)
    if not is_taken.any():
        return None
    boxes = table.boxes_xyxy[is_taken]
    x = (boxes[:, 0] / 2 + boxes[:, 2] / 2) / widths[is_taken]
    y = (boxes[:, 1] / 2 + boxes[:, 3] / 2) / heights[is_taken]
    ratio = float(np.median(heights[is_taken] / widths[is_taken]))
    rows = int(np.clip(round(COLUMNS * ratio), COLUMNS // 4, COLUMNS * 2))
    counts, _, _ = np.histogram2d(y, x, (rows, COLUMNS), ((0, 1), (0, 1)))
    beyond = len(x) - int(counts.sum())
    note = "Each image is stretched to the same frame; the fullest cell holds "
    note += f"{int(counts.max()):,} of {len(x):,} objects"
    note += f"; {beyond:,} with their centre beyond the rim are left out." if beyond else "."
    return Grid("Centres of objects", counts.astype(int).tolist(), note)


def _groups(table: LabelTable, most: int = MOST_CLASSES) -> list[Group]:
    """Divide the boxes by class, the frequent ones first; regions and unknown ones last."""
    is_known = (table.categories >= 0) & ~table.is_region
    counts = np.bincount(table.categories[is_known], minlength=len(table.class_names))
    order = np.argsort(-counts, kind="stable")
    own = order if len(order) <= most else order[: most - 1]
    groups = [(table.class_names[at], is_known & (table.categories == at)) for at in own]
    if len(order) > len(own):
        is_other = is_known & np.isin(table.categories, order[len(own) :])
        groups.append((f"{len(order) - len(own)} {OTHERS}", is_other))
    is_unknown = (table.categories == UNKNOWN_CATEGORY) & ~table.is_region
    rest = [(UNKNOWN, is_unknown), (REGIONS, table.is_region)]
    return groups + [(name, mask) for name, mask in rest if mask.any()]


def _histogram(
    title: str, label: str, values: np.ndarray, groups: Sequence[Group], *, is_whole: bool
) -> Chart:
    """Count values in bins of equal ratio.

    Args:
        title: Of the chart.
        label: Of the x axis.
        values: (B,) of which only those of groups need be positive.
        groups: Each becomes a line.
        is_whole: Bins end at whole numbers: most values are, and a finer bin would be empty.
    """
    own = [(name, values[mask]) for name, mask in groups]
    own = [(name, found[np.isfinite(found) & (found > 0)]) for name, found in own]
    kept = [found for _, found in own if found.size]
    lines = []
    if kept:
        edges = _edges(min(map(np.min, kept)), max(map(np.max, kept)), is_whole)
        for style, (name, found) in enumerate(own):
            if found.size:
                counts, _ = np.histogram(found, edges)
                note = f"median {np.median(found):.4g}"
                dash = "dashed" if name == REGIONS else ""
                points = _steps(edges, counts)
                lines.append(Line(name, points, style, dash, is_stepped=True, note=note))
    absent = "There is no box of any size."
    top = max((y for line in lines for _, y in line.points), default=1.0)
    return Chart(title, label, lines, absent, is_x_log=True, y_range=(0.0, 1.05 * top))


def _edges(low: float, high: float, is_whole: bool) -> np.ndarray:
    edges = np.geomspace(low, high * 1.001, MOST_BINS + 1)
    if is_whole:
        edges = np.where(edges >= 1, np.floor(edges), edges)
        edges = np.unique([*edges, np.floor(high) + 1])
    return edges


def _steps(edges: np.ndarray, counts: np.ndarray) -> list[Point]:
    """Return the corners of a histogram: each count holds until the next bin, the last one too."""
    points = zip(edges[:-1].tolist(), counts.tolist(), strict=True)
    return [(edges[0], 0.0), *points, (float(edges[-1]), 0.0)]


def _boxes_per_image(table: LabelTable) -> Chart:
    num_images = table.num_images
    kinds = {"objects": ~table.is_region, "with regions": np.ones(table.num_boxes, dtype=bool)}
    if not table.is_region.any():
        del kinds["with regions"]
    lines = []
    for style, (name, mask) in enumerate(kinds.items()):
        numbers = np.bincount(table.box_images[mask], minlength=num_images)
        if num_images:
            step = max(1, -(-int(numbers.max() + 1) // MOST_BINS))
            edges = np.arange(0, numbers.max() + 1 + step, step)
            counts, _ = np.histogram(numbers, edges)
            note = f"median {np.median(numbers):g}, most {numbers.max():,}"
            lines.append(Line(name, _steps(edges, counts), style, is_stepped=True, note=note))
    top = max((y for line in lines for _, y in line.points), default=1.0)
    absent = "There is no image."
    title = "Number of images by the boxes in them"
    return Chart(title, "boxes in an image", lines, absent, y_range=(0.0, 1.05 * top))


def _daytime_bars(title: str, daytimes: np.ndarray) -> Bars:
    counts = Counter(daytimes.tolist())
    rows = [(name, counts[name]) for name in ("day", "night")]
    if counts[UNKNOWN_DAYTIME]:
        rows.append(("not known", counts[UNKNOWN_DAYTIME]))
    return Bars(title, rows)
