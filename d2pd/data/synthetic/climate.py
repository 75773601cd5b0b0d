"""The light and the warmth of a scene: one draw that every painter reads."""

from dataclasses import dataclass

import numpy as np

HOT_DAYS = 0.2  # share of the days on which the ground is warmer than a person


@dataclass(frozen=True)
class Climate:
    """Warmth in levels of the thermal camera, 0..255.

    Attributes:
        night: Whether the visible picture is lit by lamps only.
        air: Warmth of what the air alone tempers.
        skin: Warmth of bare skin; the gap to ``air`` is the contrast of a naked person.
        ground: Warmth of the road.
        wall: Warmth of facades.
        sky: Warmth of the sky, mostly the coldest.
    """

    night: bool
    air: float
    skin: float
    ground: float
    wall: float
    sky: float

    def between(self, share: float) -> float:
        """Warmth of a surface at ``share`` of the way from air (0) to skin (1)."""
        return self.air + share * (self.skin - self.air)

    def thing(self, rng: np.random.Generator) -> float:
        """Draw the warmth of a lifeless thing: from colder than the air to as warm as skin."""
        if rng.uniform() < 0.6:
            return self.between(float(rng.uniform(0.4, 1.15)))
        return self.ground + float(rng.uniform(-12, 12))


def draw_climate(rng: np.random.Generator, night: bool) -> Climate:
    """Draw the climate of one scene; on hot days persons may be colder than the ground."""
    if night:
        air = float(rng.uniform(20, 42))
        ground, wall = air + rng.uniform(-4, 8), air + rng.uniform(-3, 14)
        return Climate(True, air, air + rng.uniform(75, 110), ground, wall, rng.uniform(0, 10))
    if rng.uniform() < HOT_DAYS:
        air = float(rng.uniform(48, 62))
        skin = air + rng.uniform(14, 26)
        ground, wall = skin + rng.uniform(40, 75), skin + rng.uniform(0, 60)
        return Climate(False, air, skin, ground, wall, rng.uniform(0, 25))
    air = float(rng.uniform(36, 56))
    ground, wall = air + rng.uniform(2, 14), air + rng.uniform(0, 20)
    return Climate(False, air, air + rng.uniform(60, 92), ground, wall, rng.uniform(0, 30))
