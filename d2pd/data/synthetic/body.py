"""The shape of a walking or riding person, as polygons in units of the body's height.

The y axis runs from 0 (crown) down to 1 (soles), x is 0 at the middle of the shoulders.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

FRONT_ASPECT = 0.37  # narrower boxes hold persons seen from the front or the back
CIRCLE = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 17)[:-1]), np.sin(np.linspace(0, 2 * np.pi, 17)[:-1])], axis=1
)


class Part(IntEnum):
    """What a polygon shows; each part has one colour and one warmth."""

    NOTHING = 0
    FACE = 1
    HAIR = 2
    COAT = 3
    SLEEVE = 4
    HAND = 5
    LEG = 6
    REAR_LEG = 7
    SHOE = 8
    BAG = 9
    FRAME = 10
    TYRE = 11


Shape = tuple[Part, np.ndarray]


@dataclass(frozen=True)
class Pose:
    """How a person stands, walks and is dressed, as far as the outline goes.

    Attributes:
        turned: 0 seen from the front, 1 from the side.
        facing: -1 left, 1 right.
        away: Whether the back is seen, so that hair hides the face.
        stride: Angle between a leg and the vertical, radians.
        arm_swing: Angle between an arm and the vertical, radians.
        coat_hem: Lower edge of the coat, in body heights.
        bare_legs: Whether a skirt or shorts show the legs.
        girth: Width of the torso relative to the common one.
        bag: "none", "back" or "hand".
        hooded: Whether a hood or hat covers the face.
    """

    turned: float
    facing: int
    away: bool
    stride: float
    arm_swing: float
    coat_hem: float
    bare_legs: bool
    girth: float
    bag: str
    hooded: bool


def draw_pose(rng: np.random.Generator, aspect: float) -> Pose:
    """Draw a pose whose outline suits a box of ``aspect`` = width / height."""
    sideways = aspect > FRONT_ASPECT and rng.uniform() < 0.6
    widest = min(max(0.9 * aspect, 0.12), 0.5)
    stride = math.asin(min(widest / 0.92, 0.5)) * rng.uniform(0.55, 1.0) if sideways else 0.0
    return Pose(
        turned=float(rng.uniform(0.7, 1.0)) if sideways else float(rng.uniform(0.0, 0.3)),
        facing=1 if rng.uniform() < 0.5 else -1,
        away=bool(rng.uniform() < 0.4),
        stride=stride if sideways else float(rng.uniform(0.02, 0.12)),
        arm_swing=float(rng.uniform(0.05, 0.2)) + 0.8 * stride * float(rng.uniform(0.3, 1.2)),
        coat_hem=float(rng.choice((0.52, 0.55, 0.66), p=(0.5, 0.3, 0.2))),
        bare_legs=bool(rng.uniform() < 0.2),
        girth=float(rng.uniform(0.85, 1.2)),
        bag=str(rng.choice(("none", "back", "hand"), p=(0.65, 0.2, 0.15))),
        hooded=bool(rng.uniform() < 0.12),
    )


def walker(pose: Pose) -> list[Shape]:
    """Outline a walking person; later shapes lie over earlier ones."""
    shapes = _arm(pose, -1)
    shapes += _leg(pose, -1) + _leg(pose, 1)
    shapes += _torso(pose)
    shapes += _head(0.0, 0.075, pose)
    if pose.bag != "none":
        shapes.append(_bag(pose))
    return shapes + _arm(pose, 1)


def rider(pose: Pose, aspect: float) -> list[Shape]:
    """Outline a person on a bicycle, from the side or, in a narrow box, from the front."""
    if aspect < 0.62:
        return _rider_from_front(pose)
    return _rider_from_side(pose, aspect)


def fit(shapes: list[Shape], width: float, height: float) -> list[Shape]:
    """Scale unit shapes to a box of pixels: full height, width as far as a body may stretch."""
    points = np.concatenate([outline for _, outline in shapes])
    low, high = points.min(axis=0), points.max(axis=0)
    scale_y = height / (high[1] - low[1])
    natural = (high[0] - low[0]) * scale_y
    stretch = min(max(0.97 * width / natural, 0.75), 1.35)
    middle = np.array([(low[0] + high[0]) / 2, low[1]])
    scale = np.array([scale_y * stretch, scale_y])
    offset = np.array([width / 2, 0.0])
    return [(part, (outline - middle) * scale + offset) for part, outline in shapes]


def _disc(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    return CIRCLE * (half_width, half_height) + (x, y)


def _limb(
    start: tuple[float, float], end: tuple[float, float], thick: float, thin: float
) -> np.ndarray:
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0) or 1e-6
    across = np.array([(y0 - y1) / length, (x1 - x0) / length]) / 2
    along = np.array([(x1 - x0) / length, (y1 - y0) / length])
    first, last = np.array(start) - along * thick / 3, np.array(end) + along * thin / 3
    return np.array(
        [
            first + across * thick,
            first - across * thick,
            last - across * thin,
            last + across * thin,
        ]
    )


def _leg(pose: Pose, side: int) -> list[Shape]:
    spread = 0.045 * (1 - pose.turned) * pose.girth
    hip = (side * spread, 0.5)
    angle = side * pose.stride
    bend = 0.9 * pose.stride if side < 0 else 0.1 * pose.stride
    forward = pose.facing
    knee = (hip[0] + forward * 0.23 * math.sin(angle), 0.5 + 0.23 * math.cos(angle))
    lower = angle - bend
    ankle = (knee[0] + forward * 0.22 * math.sin(lower), knee[1] + 0.22 * math.cos(lower))
    part = Part.LEG if side > 0 else Part.REAR_LEG
    toe = forward * 0.035 * pose.turned
    return [
        (part, _limb(hip, knee, 0.1 * pose.girth, 0.075)),
        (Part.HAND if pose.bare_legs else part, _limb(knee, ankle, 0.07, 0.05)),
        (Part.SHOE, _disc(ankle[0] + toe, ankle[1] + 0.025, 0.03 + 0.025 * pose.turned, 0.022)),
    ]


def _arm(pose: Pose, side: int) -> list[Shape]:
    shoulder_x = side * 0.095 * (1 - 0.85 * pose.turned) * pose.girth
    out = side * (1 - pose.turned) * 0.16
    angle = -side * pose.arm_swing * pose.turned * pose.facing + out
    elbow = (shoulder_x + 0.16 * math.sin(angle), 0.18 + 0.16 * math.cos(angle))
    lower = angle + 0.35 * pose.facing * pose.turned
    hand = (elbow[0] + 0.15 * math.sin(lower), elbow[1] + 0.15 * math.cos(lower))
    return [
        (Part.SLEEVE, _limb((shoulder_x, 0.19), elbow, 0.06, 0.05)),
        (Part.SLEEVE, _limb(elbow, hand, 0.05, 0.04)),
        (Part.HAND, _disc(hand[0], hand[1] + 0.012, 0.02, 0.022)),
    ]


def _torso(pose: Pose) -> list[Shape]:
    shoulder = (0.105 - 0.04 * pose.turned) * pose.girth
    waist = (0.08 - 0.012 * pose.turned) * pose.girth
    hem = waist * (1.35 if pose.coat_hem > 0.6 else 1.08)
    outline = [
        *((-0.03, 0.13), (-shoulder, 0.165), (-waist, 0.4), (-hem, pose.coat_hem)),
        *((hem, pose.coat_hem), (waist, 0.4), (shoulder, 0.165), (0.03, 0.13)),
    ]
    return [(Part.COAT, np.array(outline))]


def _head(x: float, y: float, pose: Pose) -> list[Shape]:
    neck = np.array([(x - 0.025, y), (x + 0.025, y), (x + 0.03, y + 0.09), (x - 0.03, y + 0.09)])
    shapes = [(Part.FACE, neck), (Part.HAIR, _disc(x, y - 0.005, 0.054, 0.07))]
    if not (pose.away and pose.turned < 0.5) and not pose.hooded:
        forward = 0.02 * pose.facing * pose.turned
        shapes.append((Part.FACE, _disc(x + forward, y + 0.018, 0.04, 0.047)))
    return shapes


def _bag(pose: Pose) -> Shape:
    if pose.bag == "hand":
        x = pose.facing * 0.12
        return (
            Part.BAG,
            np.array([(x - 0.05, 0.5), (x + 0.05, 0.5), (x + 0.05, 0.62), (x - 0.05, 0.62)]),
        )
    x = -pose.facing * 0.08 * pose.turned
    return (Part.BAG, _disc(x, 0.29, 0.05 + 0.02 * (1 - pose.turned), 0.1))


def _rider_from_front(pose: Pose) -> list[Shape]:
    tyre = np.array([(-0.018, 0.62), (0.018, 0.62), (0.018, 1.0), (-0.018, 1.0)])
    shapes: list[Shape] = [(Part.TYRE, tyre)]
    for side in (-1, 1):
        low = 0.86 if side > 0 else 0.78
        shapes.append((Part.LEG, _limb((side * 0.05, 0.52), (side * 0.09, 0.68), 0.1, 0.08)))
        shapes.append((Part.REAR_LEG, _limb((side * 0.09, 0.68), (side * 0.06, low), 0.07, 0.05)))
        shapes.append((Part.SHOE, _disc(side * 0.06, low + 0.02, 0.03, 0.02)))
    bar = np.array([(-0.17, 0.475), (0.17, 0.475), (0.17, 0.495), (-0.17, 0.495)])
    shapes += [(Part.FRAME, bar), *_torso(pose)]
    for side in (-1, 1):
        shapes.append((Part.SLEEVE, _limb((side * 0.1, 0.19), (side * 0.15, 0.46), 0.06, 0.045)))
    return shapes + _head(0.0, 0.075, pose)


def _rider_from_side(pose: Pose, aspect: float) -> list[Shape]:
    radius = 0.19
    reach = min(max(aspect / 2 - radius, 0.16), 0.34)
    forward = pose.facing
    saddle, bar, pedal = (-forward * 0.1, 0.5), (forward * (reach - 0.06), 0.47), (0.0, 0.84)
    shoulder = (forward * 0.06, 0.19)
    shapes: list[Shape] = []
    for side in (-1, 1):
        wheel = (side * reach, 1 - radius)
        shapes += _ring(wheel[0], wheel[1], radius)
        anchor = bar if side == forward else saddle
        shapes.append((Part.FRAME, _limb(wheel, anchor, 0.016, 0.016)))
        shapes.append((Part.FRAME, _limb(anchor, pedal, 0.016, 0.016)))
    knee = (forward * 0.1, 0.66)
    shapes += [
        (Part.LEG, _limb(saddle, knee, 0.11, 0.08)),
        (Part.LEG, _limb(knee, pedal, 0.07, 0.05)),
        (Part.SHOE, _disc(pedal[0] + 0.02 * forward, 0.86, 0.05, 0.022)),
        (Part.COAT, _limb(shoulder, saddle, 0.17 * pose.girth, 0.15 * pose.girth)),
        (Part.SLEEVE, _limb(shoulder, bar, 0.06, 0.045)),
        (Part.HAND, _disc(bar[0], bar[1], 0.022, 0.022)),
    ]
    return shapes + _head(forward * 0.1, 0.075, pose)


def _ring(x: float, y: float, radius: float) -> list[Shape]:
    around = [_disc(x, y, radius * scale, radius * scale) for scale in (1.0, 0.86)]
    closed = [np.concatenate([outline, outline[:1]]) for outline in around]
    return [(Part.TYRE, np.concatenate([closed[0], closed[1][::-1]]))]
