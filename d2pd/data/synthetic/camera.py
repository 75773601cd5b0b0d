"""What the light and the two cameras make of a painted pair."""

import cv2
import numpy as np

from d2pd.data.synthetic.canvas import Canvas
from d2pd.data.synthetic.layout import HEIGHT, WIDTH

COARSE = 8  # the light of lamps is computed on a grid this much coarser


def expose(canvas: Canvas, rng: np.random.Generator, night: bool) -> tuple[np.ndarray, np.ndarray]:
    """Turn the painted pair into what the cameras record.

    Returns:
        Visible (512, 640, 3) uint8 BGR and thermal (512, 640) uint8.
    """
    return _expose_visible(canvas, rng, night), _expose_thermal(canvas, rng)


def _texture(rng: np.random.Generator, cell: int, size: tuple[int, int]) -> np.ndarray:
    grid = rng.standard_normal((HEIGHT // cell + 1, WIDTH // cell + 1), dtype=np.float32)
    return cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR)


def _expose_visible(canvas: Canvas, rng: np.random.Generator, night: bool) -> np.ndarray:
    size = (WIDTH, HEIGHT)
    grain = rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)
    gain = 1 + 0.06 * _texture(rng, 40, size) + 0.035 * _texture(rng, 4, size)
    balance = rng.uniform(0.92, 1.07, 3).astype(np.float32)
    picture: np.ndarray = canvas.visible.astype(np.float32)
    if night:
        picture *= _lamp_light(canvas, rng)
        picture += _glow(canvas)
        strength = float(rng.uniform(3, 11))
        colour_noise = rng.standard_normal((HEIGHT // 2, WIDTH // 2, 3), dtype=np.float32)
        picture += cv2.resize(colour_noise, size, interpolation=cv2.INTER_LINEAR) * strength
    else:
        strength = float(rng.uniform(2, 6))
        balance *= np.float32(rng.uniform(0.75, 1.15))
    picture *= gain[..., None] * balance
    picture += (grain * strength)[..., None]
    picture = cv2.GaussianBlur(picture, (3, 3), float(rng.uniform(0.4, 0.8)))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(0, HEIGHT, COARSE, dtype=np.float32)[:, None]
    columns = np.arange(0, WIDTH, COARSE, dtype=np.float32)[None]
    return rows, columns


def _lamp_light(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Share of the daylight that lamps, headlights and the city's glow give, per channel."""
    rows, columns = _grid()
    light = np.full((HEIGHT // COARSE, WIDTH // COARSE), float(rng.uniform(0.14, 0.4)), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.uniform(0, WIDTH), rng.uniform(150, 480)
        wide, tall = rng.uniform(60, 220), rng.uniform(40, 150)
        pool = np.exp(-(((columns - x) / wide) ** 2) - ((rows - y) / tall) ** 2)
        light += float(rng.uniform(0.15, 0.6)) * pool
    tint = np.array([rng.uniform(0.6, 1.0), rng.uniform(0.85, 1.05), 1.0], np.float32)
    fine = cv2.resize(light, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return fine[..., None] * tint


def _glow(canvas: Canvas) -> np.ndarray:
    """Light of the lamps themselves, with a halo from the lens."""
    shine = np.zeros((HEIGHT // 2, WIDTH // 2, 3), np.float32)
    for x, y, radius, colour in canvas.lights:
        centre = (round(x * 4), round(y * 4))
        cv2.circle(shine, centre, max(round(radius * 4), 8), colour, -1, cv2.LINE_8, 3)
    small = cv2.resize(shine, (WIDTH // COARSE, HEIGHT // COARSE), interpolation=cv2.INTER_AREA)
    halo = cv2.GaussianBlur(small, (0, 0), 2.2)
    size = (WIDTH, HEIGHT)
    return (
        cv2.resize(shine, size, interpolation=cv2.INTER_LINEAR)
        + cv2.resize(halo, size, interpolation=cv2.INTER_LINEAR) * 0.8
    )


def _expose_thermal(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    size = (WIDTH, HEIGHT)
    picture: np.ndarray = canvas.thermal.astype(np.float32)
    picture += 2.0 * _texture(rng, 64, size) + 1.6 * _texture(rng, 9, size)
    rows, columns = _grid()
    edge = ((columns - WIDTH / 2) / WIDTH) ** 2 + ((rows - HEIGHT / 2) / HEIGHT) ** 2
    vignette = (1 - float(rng.uniform(0.1, 0.5)) * edge).astype(np.float32)
    picture *= cv2.resize(vignette, size, interpolation=cv2.INTER_LINEAR)
    columns_noise = rng.standard_normal((1, WIDTH), dtype=np.float32)
    picture += columns_noise * float(rng.uniform(0.3, 1.2))
    picture = np.asarray(
        cv2.GaussianBlur(picture, (5, 5), float(rng.uniform(0.6, 1.1))), np.float32
    )
    noise = rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)
    picture += noise * float(rng.uniform(0.6, 1.8))
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)
