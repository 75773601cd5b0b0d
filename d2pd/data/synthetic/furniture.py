"""Things that stand on the street: as warm and as bright as persons, of other shapes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from d2pd.data.synthetic.canvas import Canvas, Colour, random_colour, shade
from d2pd.data.synthetic.climate import Climate

Box = tuple[float, float, float, float]  # left, top, width, height; pixels
Painter = Callable[[Canvas, np.random.Generator, Climate, Box], None]


@dataclass(frozen=True)
class Thing:
    """A kind of street furniture: how to paint it, its range of metres, how common it is."""

    paint: Painter
    width: tuple[float, float]
    height: tuple[float, float]
    weight: float


def _pole(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    x, y, width, height = box
    colour, warmth = random_colour(rng, 40, 190), climate.thing(rng)
    canvas.rectangle(x, y, max(width, 1), height, colour, warmth)
    canvas.rectangle(x - width * 0.5, y + height * 0.93, width * 2, height * 0.07, colour, warmth)
    head = rng.uniform()
    if head < 0.5:  # a street lamp
        arm = width * float(rng.uniform(6, 14)) * (1 if rng.uniform() < 0.5 else -1)
        canvas.line([(x, y), (x + arm, y - width)], width * 0.6, colour, warmth)
        canvas.ellipse(x + arm, y - width, width * 1.3, width * 0.6, colour, climate.skin + 8)
        if climate.night:
            canvas.lights.append((x + arm, y, width * 1.0, (190.0, 235.0, 250.0)))
    elif head < 0.8:  # a traffic sign
        size = width * float(rng.uniform(1.2, 2.0))
        canvas.ellipse(x + width / 2, y + size, size, size, random_colour(rng), climate.thing(rng))


def _post(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    """Paint a meter or bollard: a warm head on a column, but no legs."""
    x, y, width, height = box
    colour, warmth = random_colour(rng, 40, 200), climate.thing(rng)
    canvas.rectangle(x + width * 0.3, y + height * 0.2, width * 0.4, height * 0.8, colour, warmth)
    if rng.uniform() < 0.5:
        canvas.ellipse(
            x + width / 2, y + height * 0.15, width / 2, height * 0.15,
            shade(colour, 1.3), climate.thing(rng),
        )  # fmt: skip
    else:
        canvas.rectangle(x, y, width, height * 0.3, shade(colour, 0.7), climate.thing(rng))


def _cabinet(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    """Paint a vending machine, switch box or bin: a warm slab as tall as a person."""
    x, y, width, height = box
    colour, warmth = random_colour(rng), climate.thing(rng)
    canvas.rectangle(x, y, width, height, colour, warmth)
    panel = (
        x + width * 0.12,
        y + height * 0.08,
        width * 0.6,
        height * float(rng.uniform(0.2, 0.6)),
    )
    canvas.rectangle(*panel, shade(colour, float(rng.uniform(0.4, 1.7))), climate.thing(rng))
    if climate.night and rng.uniform() < 0.4:
        canvas.lights.append(
            (x + width / 2, y + height * 0.3, width * 0.2, random_colour(rng, 150, 250))
        )


def _cone(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    x, y, width, height = box
    orange: Colour = (30.0, 90.0, 225.0)
    warmth = climate.thing(rng)
    foot = y + height
    canvas.polygon([(x, foot), (x + width / 2, y), (x + width, foot)], orange, warmth)
    canvas.rectangle(
        x + width * 0.25, y + height * 0.5, width * 0.5, height * 0.18, (230, 230, 230), warmth - 4
    )


def _board(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    x, y, width, height = box
    colour, warmth, foot = random_colour(rng), climate.thing(rng), y + height
    slant = width * 0.12
    canvas.polygon(
        [(x, foot), (x + slant, y), (x + width - slant, y), (x + width, foot)], colour, warmth
    )
    for row in rng.uniform(0.15, 0.7, 3):
        stripe = (x + width * 0.25, y + height * row, width * 0.5, max(height * 0.06, 1))
        canvas.rectangle(*stripe, shade(colour, 0.5), warmth)


def _bush(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    x, y, width, height = box
    green: Colour = (rng.uniform(20, 60), rng.uniform(60, 120), rng.uniform(30, 90))
    leaf = climate.thing(rng)
    for _ in range(14):
        across, up = rng.uniform(0.15, 0.85, 2)
        size_x, size_y = rng.uniform(0.12, 0.24, 2)
        canvas.ellipse(
            x + across * width, y + height * (0.25 + 0.7 * up), size_x * width, size_y * height,
            shade(green, float(rng.uniform(0.6, 1.4))), leaf + float(rng.uniform(-5, 5)),
        )  # fmt: skip
    canvas.rectangle(
        x + width * 0.1, y + height * 0.75, width * 0.8, height * 0.25, shade(green, 0.7), leaf
    )


def _trunk(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    x, y, width, height = box
    bark, warmth = random_colour(rng, 30, 95), climate.thing(rng)
    foot, middle = y + height, x + width / 2
    lean = float(rng.uniform(-0.4, 0.4)) * width
    top = middle + lean
    left, right = (top - width * 0.25, y), (top + width * 0.25, y)
    canvas.polygon([(x, foot), left, right, (x + width, foot)], bark, warmth)
    for side in (-1, 1):
        fork = [
            (middle + lean, y + height * 0.3),
            (middle + lean + side * width * 1.6, y - height * 0.1),
        ]
        canvas.line(fork, width * 0.3, bark, warmth)


def _dog(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    x, y, width, height = box
    coat = random_colour(rng, 20, 200)
    warmth = climate.between(float(rng.uniform(0.5, 1.0)))
    for share in (0.22, 0.32, 0.68, 0.78):
        leg = (x + width * share, y + height * 0.55, max(width * 0.06, 1), height * 0.45)
        canvas.rectangle(*leg, shade(coat, 0.8), warmth - 3)
    canvas.ellipse(x + width * 0.5, y + height * 0.45, width * 0.35, height * 0.2, coat, warmth)
    canvas.ellipse(
        x + width * 0.88, y + height * 0.2, width * 0.13, height * 0.18, coat, climate.skin
    )
    canvas.line(
        [(x + width * 0.18, y + height * 0.4), (x, y + height * 0.15)], width * 0.05, coat, warmth
    )


def _bicycle(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    x, y, width, height = box
    colour, warmth = random_colour(rng, 20, 180), climate.thing(rng)
    radius = height * 0.32
    ring = np.linspace(0, 2 * np.pi, 15)
    hubs = [(x + radius, y + height - radius), (x + width - radius, y + height - radius)]
    for hub_x, hub_y in hubs:
        rim = np.stack([hub_x + radius * np.cos(ring), hub_y + radius * np.sin(ring)], axis=1)
        canvas.line(rim, height * 0.05, (25, 25, 25), warmth)
    seat, bar = (x + width * 0.35, y + height * 0.15), (x + width * 0.72, y)
    canvas.line([hubs[0], seat, bar, hubs[1]], height * 0.05, colour, warmth)
    canvas.line([hubs[0], (x + width * 0.5, y + height * 0.75), bar], height * 0.05, colour, warmth)


def _umbrella(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    """Paint a sunshade over a stall."""
    x, y, width, height = box
    colour, warmth = random_colour(rng, 80, 230), climate.thing(rng)
    canvas.rectangle(x + width * 0.48, y, max(width * 0.04, 1), height, (90, 90, 90), warmth)
    canvas.polygon(
        [(x, y + height * 0.3), (x + width / 2, y), (x + width, y + height * 0.3)], colour, warmth
    )
    canvas.rectangle(
        x + width * 0.2,
        y + height * 0.65,
        width * 0.6,
        height * 0.35,
        shade(colour, 0.6),
        climate.thing(rng),
    )


THINGS = (
    Thing(_pole, (0.12, 0.3), (3.5, 7.0), 2.5),
    Thing(_post, (0.3, 0.55), (0.9, 1.7), 2.0),
    Thing(_cabinet, (0.5, 1.1), (0.8, 2.1), 2.0),
    Thing(_cone, (0.35, 0.5), (0.6, 0.9), 0.8),
    Thing(_board, (0.5, 1.0), (0.8, 1.8), 1.2),
    Thing(_bush, (0.7, 2.4), (0.6, 1.8), 1.5),
    Thing(_trunk, (0.25, 0.55), (1.7, 3.2), 1.5),
    Thing(_dog, (0.7, 1.0), (0.45, 0.7), 0.7),
    Thing(_bicycle, (1.5, 1.8), (0.95, 1.1), 0.8),
    Thing(_umbrella, (1.6, 2.8), (2.0, 2.6), 0.5),
)
PARTIAL_OCCLUDERS: tuple[Painter, ...] = (_bush, _board, _cabinet)
