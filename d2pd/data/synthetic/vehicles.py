"""Cars and buses, from the side and from either end."""

import numpy as np

from d2pd.data.synthetic.canvas import Canvas, Colour, random_colour, shade
from d2pd.data.synthetic.climate import Climate
from d2pd.data.synthetic.furniture import Box, Thing

GLASS: Colour = (75.0, 65.0, 55.0)


def paint_car_side(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    """Paint a car seen from the side; its wheels are warm when it has been driven."""
    x, y, width, height = box
    flip = rng.uniform() < 0.5
    paint, warmth = random_colour(rng, 20, 235), climate.thing(rng)
    driven = climate.between(float(rng.uniform(0.5, 1.2))) if rng.uniform() < 0.6 else warmth - 5

    def place(across: float, down: float) -> tuple[float, float]:
        return (x + width * (1 - across if flip else across), y + height * down)

    hull = [(0.0, 0.85), (0.0, 0.52), (0.2, 0.45), (0.98, 0.45), (1.0, 0.6), (1.0, 0.85)]
    cabin = [(0.2, 0.47), (0.34, 0.03), (0.72, 0.0), (0.9, 0.47)]
    panes = [(0.27, 0.42), (0.37, 0.1), (0.7, 0.08), (0.82, 0.42)]
    canvas.polygon([place(*corner) for corner in cabin], paint, warmth)
    canvas.polygon([place(*corner) for corner in panes], GLASS, climate.sky * 0.4 + warmth * 0.5)
    canvas.polygon([place(*corner) for corner in hull], paint, warmth)
    hood = [place(0.01, 0.54), place(0.2, 0.47), place(0.2, 0.6), place(0.01, 0.64)]
    canvas.polygon(hood, shade(paint, 1.1), driven)
    for across in (0.19, 0.8):
        centre = place(across, 0.82)
        canvas.ellipse(*centre, height * 0.21, height * 0.18, (22, 22, 22), driven)
        canvas.ellipse(*centre, height * 0.1, height * 0.09, (140, 140, 140), driven + 5)


def paint_car_end(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    """Paint a car seen from its front or its back."""
    x, y, width, height = box
    paint, warmth = random_colour(rng, 20, 235), climate.thing(rng)
    driven = climate.between(float(rng.uniform(0.5, 1.3))) if rng.uniform() < 0.6 else warmth - 5

    def quad(
        left: float, top: float, right: float, low: float, taper: float
    ) -> list[tuple[float, float]]:
        return [
            (x + width * left, y + height * low),
            (x + width * (left + taper), y + height * top),
            (x + width * (right - taper), y + height * top),
            (x + width * right, y + height * low),
        ]

    for across in (0.08, 0.76):
        canvas.rectangle(
            x + width * across, y + height * 0.75, width * 0.16, height * 0.25, (22, 22, 22), driven
        )
    canvas.polygon(quad(0.08, 0.0, 0.92, 0.45, 0.12), paint, warmth)
    canvas.polygon(quad(0.14, 0.06, 0.86, 0.42, 0.1), GLASS, climate.sky * 0.4 + warmth * 0.5)
    canvas.polygon(quad(0.0, 0.42, 1.0, 0.88, 0.02), paint, warmth)
    canvas.polygon(quad(0.25, 0.55, 0.75, 0.8, 0.0), shade(paint, 0.6), driven)
    rear = rng.uniform() < 0.5
    lamp: Colour = (40.0, 40.0, 220.0) if rear else (225.0, 245.0, 255.0)
    for across in (0.12, 0.88):
        centre = (x + width * across, y + height * 0.56)
        canvas.ellipse(*centre, width * 0.07, height * 0.06, lamp, climate.skin)
        if climate.night and rng.uniform() < 0.75:
            canvas.lights.append((*centre, width * (0.07 if rear else 0.13), lamp))


def _bus(canvas: Canvas, rng: np.random.Generator, climate: Climate, box: Box) -> None:
    x, y, width, height = box
    paint, warmth = random_colour(rng, 40, 230), climate.thing(rng)
    canvas.rectangle(x, y, width, height * 0.92, paint, warmth)
    canvas.rectangle(
        x + width * 0.06, y + height * 0.1, width * 0.88, height * 0.42, GLASS, warmth - 10
    )
    engine = climate.between(float(rng.uniform(0.6, 1.4)))
    canvas.rectangle(
        x + width * 0.15, y + height * 0.65, width * 0.7, height * 0.2, shade(paint, 0.7), engine
    )
    for across in (0.08, 0.76):
        canvas.rectangle(
            x + width * across, y + height * 0.9, width * 0.16, height * 0.1, (22, 22, 22), engine
        )


VEHICLES = (
    Thing(paint_car_side, (3.8, 4.7), (1.4, 1.7), 2.2),
    Thing(paint_car_end, (1.65, 1.95), (1.4, 1.7), 2.2),
    Thing(_bus, (2.3, 2.6), (2.7, 3.3), 0.6),
)
