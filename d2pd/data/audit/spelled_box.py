"""A box as its file spells it: four numbers in their own words."""

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

Texts = tuple[str, str, str, str]


@dataclass(frozen=True)
class SpelledBox:
    """The numbers of a finite box, as text.

    Attributes:
        texts: Each as its file has it, without blanks or quotes.
        is_xywh: Whether the last two are width and height, not the lower right corner.
    """

    texts: Texts
    is_xywh: bool

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 in pixels, as the readers compute them."""
        a, b, c, d = map(float, self.texts)
        return (a, b, a + c, b + d) if self.is_xywh else (a, b, c, d)

    @property
    def sizes(self) -> tuple[Decimal, Decimal]:
        """Width and height in pixels, exact."""
        a, b, c, d = map(exact, self.texts)
        return (c, d) if self.is_xywh else (c - a, d - b)

    def clipped(self, height: float, width: float) -> "SpelledBox":
        """Cut it to its image; numbers that stay the same keep their text.

        Computed in decimals, so that 630.1 and a width of 640 give 9.9.

        Args:
            height: Of the image in pixels, 0 where unknown: then there is no lower border.
            width: Likewise.
        """
        left, right = self._clip_axis(self.texts[0], self.texts[2], width or math.inf)
        top, bottom = self._clip_axis(self.texts[1], self.texts[3], height or math.inf)
        return SpelledBox((left, top, right, bottom), self.is_xywh)

    def _clip_axis(self, start: str, end: str, limit: float) -> tuple[str, str]:
        low = exact(start)
        high = exact(end) + low if self.is_xywh else exact(end)
        zero, border = Decimal(0), Decimal(limit)
        new_low, new_high = (min(max(value, zero), border) for value in (low, high))
        if (new_low, new_high) == (low, high):
            return start, end
        new_end = new_high - new_low if self.is_xywh else new_high
        is_same_end = self.is_xywh is False and new_high == high
        return (
            start if new_low == low else spell(new_low, start),
            end if is_same_end else spell(new_end, end),
        )


def exact(text: str) -> Decimal:
    """Return a finite number as it is written."""
    try:
        return Decimal(text)
    except InvalidOperation:  # 1e-9999999999999999999: 0 to readers, and too small for Decimal
        return Decimal(float(text))


def spell(value: Decimal, like: str) -> str:
    """Write a number in the manner of another: ``20.0`` where that one has a point, else ``20``."""
    if value != value.to_integral_value():
        return format(value.normalize(), "f")
    is_whole = not set(like) & set(".eE")
    return f"{int(value)}" if is_whole else f"{int(value)}.0"
