"""An aligned pair of pictures on which every shape is painted once, in colour and in warmth."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from d2pd.data.synthetic.layout import HEIGHT, WIDTH

Colour = tuple[float, float, float]  # blue, green, red; 0..255, as seen in daylight
SHIFT = 3  # fractional bits of the coordinates given to OpenCV


def shade(colour: Colour, factor: float) -> Colour:
    """Brighten (factor > 1) or darken a colour."""
    blue, green, red = (min(max(channel * factor, 0.0), 255.0) for channel in colour)
    return (blue, green, red)


def random_colour(
    rng: np.random.Generator, low: float = 20, high: float = 230, vivid: float = 0.3
) -> Colour:
    """Draw a mostly dull colour; ``vivid`` is the chance of a strong one."""
    grey = rng.uniform(low, high)
    spread = rng.uniform(0.0, 0.18) if rng.uniform() >= vivid else rng.uniform(0.3, 0.8)
    blue, green, red = np.clip(grey * (1 + spread * rng.uniform(-1, 1, 3)), 0, 255)
    return (float(blue), float(green), float(red))


@dataclass
class Canvas:
    """The visible and the thermal picture of one scene while it is painted.

    Attributes:
        visible: (512, 640, 3) uint8, BGR.
        thermal: (512, 640) uint8, levels of the thermal camera.
        lights: Lamps that shine at night: x, y, radius in pixels, colour. They are lit last.
    """

    visible: np.ndarray = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    thermal: np.ndarray = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH), np.uint8))
    lights: list[tuple[float, float, float, Colour]] = field(default_factory=list)

    def polygon(
        self, points: Sequence[Sequence[float]] | np.ndarray, colour: Colour, warmth: float
    ) -> None:
        """Fill the polygon of (N, 2) pixel ``points``."""
        corners = np.round(np.asarray(points, np.float64) * (1 << SHIFT)).astype(np.int32)
        cv2.fillPoly(self.visible, [corners], colour, cv2.LINE_AA, SHIFT)
        cv2.fillPoly(self.thermal, [corners], (_level(warmth),), cv2.LINE_AA, SHIFT)

    def rectangle(
        self, x: float, y: float, width: float, height: float, colour: Colour, warmth: float
    ) -> None:
        """Fill the rectangle whose upper left corner is (x, y)."""
        left, right = (min(max(round(value), 0), WIDTH) for value in (x, x + width))
        top, bottom = (min(max(round(value), 0), HEIGHT) for value in (y, y + height))
        self.visible[top:bottom, left:right] = colour
        self.thermal[top:bottom, left:right] = _level(warmth)

    def ellipse(
        self,
        x: float,
        y: float,
        half_width: float,
        half_height: float,
        colour: Colour,
        warmth: float,
    ) -> None:
        """Fill the upright ellipse centred on (x, y)."""
        factor = 1 << SHIFT
        centre = (round(x * factor), round(y * factor))
        axes = (max(round(half_width * factor), 1), max(round(half_height * factor), 1))
        full = (0, 0, 360)
        cv2.ellipse(self.visible, centre, axes, *full, colour, -1, cv2.LINE_AA, SHIFT)
        cv2.ellipse(self.thermal, centre, axes, *full, (_level(warmth),), -1, cv2.LINE_AA, SHIFT)

    def line(
        self,
        points: Sequence[Sequence[float]] | np.ndarray,
        thickness: float,
        colour: Colour,
        warmth: float,
    ) -> None:
        """Draw connected strokes through ``points``."""
        corners = np.round(np.asarray(points, np.float64) * (1 << SHIFT)).astype(np.int32)
        width = max(round(thickness), 1)
        cv2.polylines(self.visible, [corners], False, colour, width, cv2.LINE_AA, SHIFT)
        cv2.polylines(self.thermal, [corners], False, (_level(warmth),), width, cv2.LINE_AA, SHIFT)

    def hide_lights(self, x: float, y: float, width: float, height: float) -> None:
        """Put out the lights behind an opaque thing of this box."""
        self.lights = [
            light
            for light in self.lights
            if not (x < light[0] < x + width and y < light[1] < y + height)
        ]

    def paste(
        self, left: int, top: int, visible: np.ndarray, thermal: np.ndarray, alpha: np.ndarray
    ) -> None:
        """Blend a patch over the pair; what lies outside the frame is cut off.

        Args:
            left: Column of the patch's first column; may be negative.
            top: Row of the patch's first row; may be negative.
            visible: (h, w, 3) float32, already multiplied by ``alpha``.
            thermal: (h, w) float32, already multiplied by ``alpha``.
            alpha: (h, w) float32 in [0, 1].
        """
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + alpha.shape[1], WIDTH), min(top + alpha.shape[0], HEIGHT)
        if x0 >= x1 or y0 >= y1:
            return
        window = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        rest = 1.0 - alpha[window]
        below = self.visible[y0:y1, x0:x1]
        blended = below * rest[..., None] + visible[window]
        self.visible[y0:y1, x0:x1] = np.clip(blended, 0, 255).astype(np.uint8)
        blended = self.thermal[y0:y1, x0:x1] * rest + thermal[window]
        self.thermal[y0:y1, x0:x1] = np.clip(blended, 0, 255).astype(np.uint8)


def _level(warmth: float) -> float:
    return float(min(max(round(warmth), 0), 255))
