"""Where the labels of a scene stand: boxes drawn from the quantiles of the real labels."""

import math
from dataclasses import dataclass, replace

import numpy as np

from d2pd.data.synthetic import quantiles

HEIGHT, WIDTH = 512, 640
TOLERATED_COVER = 0.15  # share of a box that may be hidden before the label counts as occluded
HEAVY_COVER = 0.5
PLACING_ATTEMPTS = 25
CYCLIST_MAX_ASPECT = 1.05  # a wider label to ignore is a group of people
SAME_SCENE = 0.6  # correlation of the label tops of one scene: they follow its horizon


@dataclass(frozen=True)
class Label:
    """One label of a scene.

    Attributes:
        box_xywh: Left, top, width, height; pixels of the frame.
        kind: "person", "cyclist" or "people"; the latter two are regions to ignore.
        occlusion: 0 none, 1 partial, 2 heavy.
    """

    box_xywh: tuple[float, float, float, float]
    kind: str
    occlusion: int = 0

    @property
    def bottom(self) -> float:
        """Lower edge: where the feet stand, in pixels; larger is nearer."""
        return self.box_xywh[1] + self.box_xywh[3]


def cover(
    front: tuple[float, float, float, float], rear: tuple[float, float, float, float]
) -> float:
    """Share of the area of ``rear`` that ``front`` hides, both XYWH; 0 for a box without area."""
    width = min(front[0] + front[2], rear[0] + rear[2]) - max(front[0], rear[0])
    height = min(front[1] + front[3], rear[1] + rear[3]) - max(front[1], rear[1])
    area = rear[2] * rear[3]
    return max(width, 0.0) * max(height, 0.0) / area if area > 0 else 0.0


def hidden_share(label: Label, others: list[Label]) -> float:
    """Largest share of ``label`` that one nearer label of ``others`` hides."""
    nearer = (other for other in others if other.bottom > label.bottom)
    return max((cover(other.box_xywh, label.box_xywh) for other in nearer), default=0.0)


def draw_labels(rng: np.random.Generator, night: bool) -> list[Label]:
    """Draw the labels of one scene, persons first.

    Heights, positions, shapes and counts follow the train labels, occlusion the test labels.
    Labels keep clear of each other; where the scene is too full for that, the hidden one is
    labelled as occluded.
    """
    light = "night" if night else "day"
    scene_tilt = float(rng.standard_normal())
    persons = quantiles.draw_count(rng, quantiles.COUNT["person", light])
    regions = quantiles.draw_count(rng, quantiles.COUNT["ignore", light])
    labels: list[Label] = []
    for group in ["person"] * persons + ["ignore"] * regions:
        labels.append(_place(rng, group, light, scene_tilt, labels))
    return [_with_found_occlusion(label, labels) for label in labels]


def _place(
    rng: np.random.Generator, group: str, light: str, scene_tilt: float, placed: list[Label]
) -> Label:
    height = quantiles.at_quantile(quantiles.HEIGHT[group, light], rng.uniform())
    occlusion = quantiles.draw_count(rng, quantiles.OCCLUSION)
    for _ in range(PLACING_ATTEMPTS):
        label = _propose(rng, group, light, scene_tilt, height, occlusion)
        if _is_clear(label, placed):
            break
    return label


def _propose(
    rng: np.random.Generator,
    group: str,
    light: str,
    scene_tilt: float,
    height: float,
    occlusion: int,
) -> Label:
    row = quantiles.height_row(height)
    aspect = quantiles.at_quantile(quantiles.ASPECT[group][row], rng.uniform())
    tilt = SAME_SCENE * scene_tilt + math.sqrt(1 - SAME_SCENE**2) * float(rng.standard_normal())
    level = 0.5 * (1 + math.erf(tilt / math.sqrt(2)))
    top = quantiles.at_quantile(quantiles.TOP[group][row], level)
    centre = quantiles.at_quantile(quantiles.CENTRE_X[group, light], rng.uniform())
    box = _inside_frame(centre - aspect * height / 2, top, aspect * height, height)
    if group == "person":
        return Label(box, "person", occlusion)
    return Label(box, "cyclist" if aspect <= CYCLIST_MAX_ASPECT else "people", 0)


def _inside_frame(
    left: float, top: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """Round to whole pixels and shift, or where too large clip, the box into the frame."""
    whole_width, whole_height = min(max(round(width), 4), WIDTH), max(round(height), 8)
    x = min(max(round(left), 0), WIDTH - whole_width)
    y = max(round(top), 0)
    return (x, y, whole_width, min(whole_height, HEIGHT - y))


def _is_clear(label: Label, placed: list[Label]) -> bool:
    margin = 0.6 * label.box_xywh[2] if label.occlusion else 0.0  # room for what hides it
    x, y, width, height = label.box_xywh
    front = (x - margin, y, width + 2 * margin, height)
    for other in placed:
        hides = label.bottom >= other.bottom and cover(front, other.box_xywh) > TOLERATED_COVER
        if hides or (
            other.bottom >= label.bottom and cover(other.box_xywh, label.box_xywh) > TOLERATED_COVER
        ):
            return False
    return True


def _with_found_occlusion(label: Label, labels: list[Label]) -> Label:
    share = hidden_share(label, labels)
    found = 0 if share <= TOLERATED_COVER else 1 if share <= HEAVY_COVER else 2
    return replace(label, occlusion=max(label.occlusion, found))
