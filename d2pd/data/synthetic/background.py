"""The place of a scene: sky, skyline, street fronts, trees and the road."""

import itertools
from dataclasses import dataclass

import numpy as np

from d2pd.data.synthetic.canvas import Canvas, Colour, random_colour, shade
from d2pd.data.synthetic.climate import Climate
from d2pd.data.synthetic.layout import HEIGHT, WIDTH

EYE_METRES = 1.65  # the camera stands about as high as a person's head: heads meet the horizon
WHITE: Colour = (215.0, 222.0, 225.0)


@dataclass(frozen=True)
class View:
    """The camera of a scene: a flat ground below ``horizon``, streets run to ``vanishing_x``."""

    horizon: float
    vanishing_x: float

    def pixels_per_metre(self, y: float) -> float:
        """Size of a metre standing on the ground at row ``y``."""
        return max(y - self.horizon, 1.0) / EYE_METRES

    def ground_x(self, metres: float, y: float) -> float:
        """Column of the point ``metres`` beside the street's axis on ground row ``y``."""
        return self.vanishing_x + metres * self.pixels_per_metre(y)


def paint_background(
    canvas: Canvas, rng: np.random.Generator, climate: Climate, view: View
) -> None:
    """Paint everything that has no place on the road; it covers the whole canvas."""
    _paint_sky(canvas, rng, climate)
    _paint_skyline(canvas, rng, climate, view)
    _paint_ground(canvas, rng, climate, view)
    for side in (-1, 1):
        if rng.uniform() < 0.6:
            _paint_front(canvas, rng, climate, view, side)
        else:
            _paint_grove(canvas, rng, climate, view, side)


def _paint_sky(canvas: Canvas, rng: np.random.Generator, climate: Climate) -> None:
    low_blue = rng.uniform(195, 250)
    low: Colour = (low_blue, low_blue * rng.uniform(0.94, 1.0), low_blue * rng.uniform(0.86, 1.0))
    high = shade((low[0], low[1] * 0.93, low[2] * 0.85), float(rng.uniform(0.6, 1.0)))
    ramp = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None]
    visible = (1 - ramp) * np.array(high) + ramp * np.array(low)
    canvas.visible[:] = visible.astype(np.uint8)[:, None]
    canvas.thermal[:] = int(climate.sky)


def _paint_skyline(canvas: Canvas, rng: np.random.Generator, climate: Climate, view: View) -> None:
    x = float(rng.uniform(-60, 0))
    while x < WIDTH:
        width = float(rng.uniform(30, 140))
        if rng.uniform() < 0.65:
            top = view.horizon - float(rng.uniform(25, 190))
            _paint_block(canvas, rng, climate, (x, top, width, view.horizon + 4 - top))
        else:
            radius = float(rng.uniform(15, 55))
            _paint_crown(canvas, rng, climate, x + width / 2, view.horizon - radius * 0.8, radius)
        x += width * float(rng.uniform(0.6, 1.0))


def _paint_block(
    canvas: Canvas,
    rng: np.random.Generator,
    climate: Climate,
    box: tuple[float, float, float, float],
) -> None:
    x, y, width, height = box
    colour, warmth = random_colour(rng, 50, 210, 0.08), climate.wall + float(rng.uniform(-10, 8))
    canvas.rectangle(x, y, width, height, colour, warmth)
    step_x, step_y = float(rng.uniform(9, 24)), float(rng.uniform(12, 30))
    fill_x, fill_y = rng.uniform(0.35, 0.8, 2)
    pane, cold = shade(colour, float(rng.uniform(0.3, 0.7))), float(rng.uniform(-18, 10))
    lit = climate.night and rng.uniform() < 0.7
    for row in np.arange(y + 5, y + height - step_y, step_y):
        for column in np.arange(x + 4, x + width - step_x * fill_x, step_x):
            draw = rng.uniform()
            glow = warmth + cold + (climate.between(0.8) - climate.air if draw < 0.08 else 0)
            canvas.rectangle(column, row, step_x * fill_x, step_y * fill_y, pane, glow)
            if lit and draw > 0.75:
                canvas.lights.append((column, row, step_x * 0.18, random_colour(rng, 170, 250)))


def _paint_front(
    canvas: Canvas, rng: np.random.Generator, climate: Climate, view: View, side: int
) -> None:
    """Paint a street front in perspective: shop windows, doors, signs, air conditioners."""
    setback, tall = float(rng.uniform(5.5, 9.5)), float(rng.uniform(4, 14))
    near_depth, far_depth = 4.5, float(rng.uniform(25, 70))

    def point(depth: float, metres_up: float) -> tuple[float, float]:
        scale = 340.0 / depth
        return (
            view.vanishing_x + side * setback * scale,
            view.horizon + (EYE_METRES - metres_up) * scale,
        )

    def quad(start: float, end: float, low: float, high: float) -> list[tuple[float, float]]:
        return [point(start, low), point(start, high), point(end, high), point(end, low)]

    start = near_depth
    while start < far_depth:
        end = start + float(rng.uniform(2.5, 9.0)) * (0.6 + start / 25)
        top = tall * float(rng.uniform(0.7, 1.2))
        colour, warmth = random_colour(rng, 45, 200, 0.12), climate.wall + float(rng.uniform(-8, 8))
        canvas.polygon(quad(start, end, -0.1, top), colour, warmth)
        for floor in np.arange(0.4, top - 2.0, 3.1):
            edges = np.linspace(start, end, int(rng.integers(2, 6)))
            for first, last in itertools.pairwise(edges):
                gap = (last - first) * float(rng.uniform(0.1, 0.3))
                opening = quad(first + gap, last - gap, floor, floor + float(rng.uniform(1.4, 2.3)))
                pane = shade(colour, float(rng.uniform(0.25, 1.6)))
                canvas.polygon(opening, pane, climate.thing(rng) * 0.5 + warmth * 0.5)
                if climate.night and rng.uniform() < 0.3:
                    x, y = opening[0]
                    light = (x, y - 4, 340 / first * 0.16, random_colour(rng, 150, 250))
                    canvas.lights.append(light)
        start = end


def _paint_crown(
    canvas: Canvas, rng: np.random.Generator, climate: Climate, x: float, y: float, radius: float
) -> None:
    green: Colour = (rng.uniform(20, 60), rng.uniform(55, 110), rng.uniform(30, 90))
    leaf = climate.air + float(rng.uniform(-3, 10)) + 0.4 * (climate.wall - climate.air)
    places = rng.normal(0.0, 0.45, (26, 2)) * radius + (x, y)
    sizes = rng.uniform(0.1, 0.42, (26, 2)) * radius
    tints, warms = rng.uniform(0.55, 1.35, 26), rng.uniform(-5, 5, 26)
    for (centre_x, centre_y), (wide, tall), tint, warm in zip(
        places, sizes, tints, warms, strict=True
    ):
        canvas.ellipse(centre_x, centre_y, wide, tall, shade(green, float(tint)), leaf + warm)


def _paint_grove(
    canvas: Canvas, rng: np.random.Generator, climate: Climate, view: View, side: int
) -> None:
    """Paint trees beside the road, the far ones first."""
    for depth in np.sort(rng.uniform(8, 45, int(rng.integers(3, 8))))[::-1]:
        scale = 340.0 / depth
        x = view.vanishing_x + side * float(rng.uniform(5.5, 14)) * scale
        foot, trunk = view.horizon + EYE_METRES * scale, float(rng.uniform(1.6, 3.2)) * scale
        bark, warmth = random_colour(rng, 30, 90), climate.thing(rng)
        half = float(rng.uniform(0.09, 0.22)) * scale
        canvas.rectangle(x - half, foot - trunk, 2 * half, trunk, bark, warmth)
        radius = float(rng.uniform(1.2, 2.6)) * scale
        if x + radius > 0 and x - radius < WIDTH:
            _paint_crown(canvas, rng, climate, x, foot - trunk - 0.5 * radius, radius)


def _paint_ground(canvas: Canvas, rng: np.random.Generator, climate: Climate, view: View) -> None:
    top = int(view.horizon)
    asphalt, near = rng.uniform(60, 125), float(rng.uniform(-8, 4))
    ramp = np.linspace(1.12, 0.9, HEIGHT - top, dtype=np.float32)[:, None]
    tint = asphalt * rng.uniform(0.93, 1.07, 3).astype(np.float32)
    canvas.visible[top:] = (ramp * tint).astype(np.uint8)[:, None]
    warmth = climate.ground + np.linspace(0, near, HEIGHT - top)
    canvas.thermal[top:] = np.clip(warmth, 0, 255).astype(np.uint8)[:, None]
    for side in (-1, 1):
        _paint_pavement(canvas, rng, climate, view, side)
    _paint_markings(canvas, rng, climate, view)


def _strip(view: View, metres: tuple[float, float], rows: tuple[float, float]) -> np.ndarray:
    (left, right), (near, far) = metres, rows
    return np.array(
        [
            (view.ground_x(left, near), near),
            (view.ground_x(right, near), near),
            (view.ground_x(right, far), far),
            (view.ground_x(left, far), far),
        ]
    )


def _paint_pavement(
    canvas: Canvas, rng: np.random.Generator, climate: Climate, view: View, side: int
) -> None:
    kerb = side * float(rng.uniform(3.0, 7.0))
    colour, warmth = random_colour(rng, 80, 170, 0.0), climate.ground + float(rng.uniform(-9, 9))
    rows = (HEIGHT + 4.0, view.horizon + 2)
    canvas.polygon(_strip(view, (kerb, side * 60.0), rows), colour, warmth)
    edge = _strip(view, (kerb, kerb + side * 0.25), rows)
    canvas.polygon(edge, shade(colour, 1.3), warmth + float(rng.uniform(-8, 8)))


def _paint_markings(canvas: Canvas, rng: np.random.Generator, climate: Climate, view: View) -> None:
    cooler = climate.ground - float(rng.uniform(1, 9))
    for lane in (-1.7, 1.7) if rng.uniform() < 0.5 else (0.0,):
        near = float(HEIGHT + 30)
        while near > view.horizon + 8:
            far = view.horizon + (near - view.horizon) * 0.75
            canvas.polygon(_strip(view, (lane - 0.08, lane + 0.08), (near, far)), WHITE, cooler)
            near = view.horizon + (near - view.horizon) * 0.5
    if rng.uniform() < 0.4:
        near = view.horizon + float(rng.uniform(40, 200))
        rows = (near, view.horizon + (near - view.horizon) * 0.78)
        for metres in np.arange(-6.0, 6.0, 0.9):
            canvas.polygon(_strip(view, (metres, metres + 0.45), rows), WHITE, cooler)
    _paint_patches(canvas, rng, climate, view)


def _paint_patches(canvas: Canvas, rng: np.random.Generator, climate: Climate, view: View) -> None:
    """Paint stains, covers and shadows, which lie flat."""
    for _ in range(int(rng.integers(3, 9))):
        y = view.horizon + float(rng.uniform(8, 260))
        scale = view.pixels_per_metre(y)
        x, half = float(rng.uniform(0, WIDTH)), float(rng.uniform(0.15, 0.9)) * scale
        darker = tuple(float(value) for value in rng.uniform(40, 90) * np.ones(3))
        grey: Colour = (darker[0], darker[1], darker[2])
        canvas.ellipse(x, y, half, half * 0.18, grey, climate.ground + float(rng.uniform(-12, 14)))
