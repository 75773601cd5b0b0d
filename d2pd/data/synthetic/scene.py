"""A whole scene: background, street furniture, labelled figures, what hides them, the cameras."""

from collections.abc import Callable

import numpy as np

from d2pd.data.synthetic.background import View, paint_background
from d2pd.data.synthetic.camera import expose
from d2pd.data.synthetic.canvas import Canvas
from d2pd.data.synthetic.climate import Climate, draw_climate
from d2pd.data.synthetic.furniture import PARTIAL_OCCLUDERS, THINGS, Box, Painter, Thing
from d2pd.data.synthetic.layout import TOLERATED_COVER, WIDTH, Label, cover
from d2pd.data.synthetic.pedestrians import is_drawable, paint_label
from d2pd.data.synthetic.vehicles import VEHICLES, paint_car_side

COVERED = {1: (0.22, 0.42), 2: (0.52, 0.72)}  # share of the height hidden, by occlusion
Layer = tuple[float, Callable[[], None]]


def draw_scene(
    rng: np.random.Generator, labels: list[Label], night: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the aligned pair of pictures that ``labels`` describe.

    Args:
        rng: The only source of chance; the same state gives the same bytes.
        labels: What to draw; boxes may be degenerate or reach outside the frame.
        night: Whether lamps, rather than the sun, light the visible picture.

    Returns:
        Visible (512, 640, 3) uint8 BGR and thermal (512, 640) uint8.
    """
    labels = [label for label in labels if is_drawable(label)]
    climate = draw_climate(rng, night)
    view = View(_horizon(rng, labels), float(rng.uniform(180, 460)))
    canvas = Canvas()
    paint_background(canvas, rng, climate, view)
    layers = _furniture(canvas, rng, climate, view, labels)
    for label, own in zip(labels, rng.spawn(len(labels)), strict=True):
        layers.append((label.bottom, _figure_painter(canvas, own, label, climate)))
        if label.occlusion:
            layers.append(
                (label.bottom + 0.5, _occluder_painter(canvas, own.spawn(1)[0], label, climate))
            )
    for _, paint in sorted(layers, key=lambda layer: layer[0]):
        paint()
    return expose(canvas, rng, night)


def _horizon(rng: np.random.Generator, labels: list[Label]) -> float:
    """Row of the horizon: a little under the heads of the persons."""
    tops = [label.box_xywh[1] for label in labels if label.kind == "person"]
    middle, under = float(rng.normal(220, 8)), float(rng.uniform(1, 9))
    if tops:
        middle = float(np.median(tops))
    return min(max(middle + under, 120.0), 360.0)


def _figure_painter(
    canvas: Canvas, rng: np.random.Generator, label: Label, climate: Climate
) -> Callable[[], None]:
    return lambda: paint_label(canvas, rng, label, climate)


def _occluder_painter(
    canvas: Canvas, rng: np.random.Generator, label: Label, climate: Climate
) -> Callable[[], None]:
    x, _, width, height = label.box_xywh
    hidden = float(rng.uniform(*COVERED[label.occlusion])) * height
    if label.occlusion == 2 and rng.uniform() < 0.6:
        wide = max(3.0 * hidden, 1.4 * width)
        paint: Painter = paint_car_side
    else:
        paint = PARTIAL_OCCLUDERS[int(rng.integers(len(PARTIAL_OCCLUDERS)))]
        wide = width * float(rng.uniform(1.1, 1.6))
    left = x + width / 2 - wide * float(rng.uniform(0.42, 0.58))
    box = (left, label.bottom + 0.04 * height - hidden, wide, hidden)
    return lambda: paint(canvas, rng, climate, box)


def _furniture(
    canvas: Canvas, rng: np.random.Generator, climate: Climate, view: View, labels: list[Label]
) -> list[Layer]:
    layers: list[Layer] = []
    for things, most in ((VEHICLES, 4), (THINGS, 11)):
        weights = np.cumsum([thing.weight for thing in things])
        for _ in range(int(rng.integers(most // 3, most + 1))):
            pick = rng.uniform(0, weights[-1])
            thing = things[int(np.searchsorted(weights, pick, side="right"))]
            layer = _stand(canvas, rng, climate, view, thing, labels)
            if layer is not None:
                layers.append(layer)
    return layers


def _stand(
    canvas: Canvas,
    rng: np.random.Generator,
    climate: Climate,
    view: View,
    thing: Thing,
    labels: list[Label],
) -> Layer | None:
    """Find a place for ``thing`` where it hides no label; None where it would."""
    foot = view.horizon + float(np.exp(rng.uniform(np.log(22), np.log(150))))
    scale = view.pixels_per_metre(foot)
    width, height = scale * rng.uniform(*thing.width), scale * rng.uniform(*thing.height)
    box: Box = (float(rng.uniform(-0.3 * width, WIDTH)), foot - height, width, height)
    for label in labels:
        if foot >= label.bottom and cover(box, label.box_xywh) > TOLERATED_COVER / 2:
            return None

    def paint() -> None:
        canvas.hide_lights(*box)
        thing.paint(canvas, rng, climate, box)

    return (foot, paint)
