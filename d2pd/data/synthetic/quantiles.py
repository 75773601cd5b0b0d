"""Quantiles of the real KAIST labels, and draws from them.

Every number was measured by
``python -m d2pd.data.synthetic.measure ../shared/data/kaist/train20.json .../test20.json``
on the sanitised train labels (8,963 rows; heights, positions, shapes, counts) and on the improved
test labels (occlusion, which the train labels do not state). Lengths are pixels of the 640x512
frame; ``ignore`` is the kind of the labels with category -1.
"""

from collections.abc import Sequence

import numpy as np

LEVELS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
HEIGHT_EDGES = (45, 70, 110)  # label heights that part the four rows of TOP and ASPECT

HEIGHT: dict[tuple[str, str], Sequence[float]] = {
    ("person", "day"): (19, 28, 34, 39, 47, 63, 95, 130, 156, 222, 296),
    ("person", "night"): (20, 26, 34, 39, 52, 68, 99, 140, 178, 247, 292),
    ("ignore", "day"): (19, 25, 28, 31, 36, 45, 71, 109, 143, 205, 273),
    ("ignore", "night"): (14, 19, 24, 26, 32, 47, 86, 108, 149, 256, 282),
}
CENTRE_X: dict[tuple[str, str], Sequence[float]] = {
    ("person", "day"): (6, 42, 120, 165, 269, 394, 501, 564, 591, 622, 638),
    ("person", "night"): (6, 48, 110, 156, 244, 354, 535, 610, 628, 632, 637),
    ("ignore", "day"): (6, 13, 25, 39, 88, 288, 425, 530, 589, 627, 634),
    ("ignore", "night"): (8, 12, 16, 28, 174, 346, 516, 534, 573, 628, 634),
}
TOP: dict[str, tuple[Sequence[float], ...]] = {
    "person": (
        (169, 194, 206, 208, 212, 217, 221, 226, 230, 248, 283),
        (160, 194, 205, 208, 214, 219, 225, 228, 232, 254, 289),
        (168, 199, 206, 210, 216, 222, 229, 236, 241, 262, 295),
        (181, 206, 211, 214, 220, 230, 238, 247, 250, 264, 294),
    ),
    "ignore": (
        (185, 199, 204, 207, 212, 216, 220, 223, 226, 237, 266),
        (185, 193, 200, 205, 209, 214, 223, 229, 231, 240, 252),
        (175, 189, 204, 208, 210, 215, 224, 231, 235, 293, 303),
        (200, 202, 207, 209, 215, 226, 238, 253, 274, 288, 293),
    ),
}
ASPECT: dict[str, tuple[Sequence[float], ...]] = {  # width / height
    "person": (
        (0.37, 0.39, 0.4, 0.4, 0.41, 0.42, 0.48, 0.57, 0.64, 0.77, 0.97),
        (0.31, 0.37, 0.39, 0.4, 0.41, 0.41, 0.42, 0.47, 0.5, 0.62, 0.92),
        (0.22, 0.32, 0.37, 0.4, 0.41, 0.41, 0.42, 0.46, 0.48, 0.51, 0.69),
        (0.11, 0.28, 0.34, 0.37, 0.41, 0.41, 0.43, 0.46, 0.47, 0.5, 0.71),
    ),
    "ignore": (
        (0.28, 0.37, 0.5, 0.56, 0.67, 0.94, 1.39, 2.27, 3.25, 4.38, 5.29),
        (0.24, 0.31, 0.41, 0.46, 0.54, 0.64, 1.39, 3.79, 6.57, 10.35, 10.49),
        (0.19, 0.26, 0.39, 0.44, 0.51, 0.57, 0.65, 0.74, 0.8, 1.05, 1.61),
        (0.09, 0.12, 0.17, 0.19, 0.29, 0.48, 0.53, 0.58, 0.62, 0.74, 1.1),
    ),
}
COUNT: dict[tuple[str, str], Sequence[float]] = {  # share of images with 0, 1, 2, ... labels
    ("person", "day"): (
        *(0.034, 0.347, 0.238, 0.155, 0.109, 0.054),
        *(0.029, 0.017, 0.01, 0.004, 0.002, 0.001),
    ),
    ("person", "night"): (
        *(0.01, 0.239, 0.265, 0.216, 0.12, 0.052),
        *(0.037, 0.028, 0.025, 0.007, 0.001),
    ),
    ("ignore", "day"): (0.705, 0.234, 0.046, 0.01, 0.005),
    ("ignore", "night"): (0.668, 0.238, 0.092, 0.003),
}
OCCLUSION = (0.79, 0.142, 0.069)  # share of persons with occlusion 0, 1, 2


def at_quantile(table: Sequence[float], level: float) -> float:
    """Read ``table`` at ``level`` in [0, 1], linear between the measured ``LEVELS``."""
    return float(np.interp(level, LEVELS, table))


def height_row(height: float) -> int:
    """Row of ``TOP`` and ``ASPECT`` for a label of ``height`` pixels."""
    return int(np.searchsorted(HEIGHT_EDGES, height, side="right"))


def draw_count(rng: np.random.Generator, table: Sequence[float]) -> int:
    """Draw an index of ``table``, whose entries are shares (rounded: they are normalised)."""
    edges = np.cumsum(table)
    return int(np.searchsorted(edges, rng.uniform(0.0, edges[-1]), side="right"))
