"""Persons, riders and groups, painted into their boxes."""

import cv2
import numpy as np

from d2pd.data.synthetic import body
from d2pd.data.synthetic.body import Part, Pose, Shape
from d2pd.data.synthetic.canvas import Canvas, random_colour, shade
from d2pd.data.synthetic.climate import Climate
from d2pd.data.synthetic.layout import HEIGHT, WIDTH, Label

SKINS = ((130, 170, 225), (105, 150, 205), (80, 120, 175), (60, 85, 130))  # BGR
HAIRS = ((25, 25, 30), (20, 30, 45), (50, 70, 95), (140, 140, 145))
SMOOTHING_BELOW = ((60, 3), (140, 2))  # (box height, supersampling), else 1
DRAWABLE = 3.0  # pixels; a smaller box shows nothing
LARGEST = 4000.0
GROUP_SPACING = 0.34  # persons of a group stand this many heights apart


def is_drawable(label: Label) -> bool:
    """Whether the box of ``label`` can show anything: in sight, with area, not absurdly large."""
    x, y, width, height = label.box_xywh
    in_sight = -width < x < WIDTH and -height < y < HEIGHT
    return in_sight and DRAWABLE <= width < LARGEST and DRAWABLE <= height < LARGEST


def paint_label(canvas: Canvas, rng: np.random.Generator, label: Label, climate: Climate) -> None:
    """Paint what ``label`` marks so that it fills the box."""
    x, y, width, height = label.box_xywh
    aspect = width / height
    if label.kind == "people":
        _paint_group(canvas, rng, label, climate)
        return
    pose = body.draw_pose(rng, aspect)
    shapes = body.rider(pose, aspect) if label.kind == "cyclist" else body.walker(pose)
    _paint_shadow(canvas, climate, label)
    canvas.hide_lights(x, y, width, height)
    _paint_shapes(
        canvas, rng, body.fit(shapes, width, height), (x, y, width, height), climate, pose
    )


def _paint_group(canvas: Canvas, rng: np.random.Generator, label: Label, climate: Climate) -> None:
    x, y, width, height = label.box_xywh
    persons = max(2, round(width / (GROUP_SPACING * height)))
    for place in rng.permutation(persons):
        tallest = place == 0
        size = height * (1.0 if tallest else float(rng.uniform(0.82, 1.0)))
        wide = min(float(rng.uniform(0.36, 0.5)) * size, width)
        share = place / (persons - 1)
        left = x + share * (width - wide)
        bottom = y + height - (0.0 if tallest else float(rng.uniform(0, 0.06))) * height
        pose = body.draw_pose(rng, wide / size)
        shapes = body.fit(body.walker(pose), wide, size)
        _paint_shapes(canvas, rng, shapes, (left, bottom - size, wide, size), climate, pose)


def _paint_shadow(canvas: Canvas, climate: Climate, label: Label) -> None:
    x, y, width, height = label.box_xywh
    half = max(round(0.45 * width), 1), max(round(0.025 * height), 1)
    centre = (round(x + width / 2), round(y + height - 0.01 * height))
    if not climate.night:
        cv2.ellipse(canvas.visible, centre, half, 0, 0, 360, (35, 35, 35), -1, cv2.LINE_AA)


def _paint_shapes(
    canvas: Canvas,
    rng: np.random.Generator,
    shapes: list[Shape],
    box: tuple[float, float, float, float],
    climate: Climate,
    pose: Pose,
) -> None:
    x, y, width, height = box
    factor = next((scale for limit, scale in SMOOTHING_BELOW if height < limit), 1)
    margin = int(0.25 * width) + 2
    left, top = int(np.floor(x)) - margin, int(np.floor(y)) - 1
    size = (int(width) + 2 * margin + 2, int(height) + 4)
    parts = np.zeros((size[1] * factor, size[0] * factor), np.uint8)
    for part, outline in shapes:
        corners = np.round((outline + np.array([x - left, y - top])) * factor * 8).astype(np.int32)
        cv2.fillPoly(parts, [corners], (int(part),), cv2.LINE_8, 3)
    colours, warmth = _dress(rng, climate, pose)
    relief = _relief(rng, size)
    area = cv2.INTER_AREA
    alpha = cv2.resize((parts > 0).astype(np.float32), size, interpolation=area)
    visible = cv2.resize(colours[parts], size, interpolation=area) * (1 + 0.14 * relief)[..., None]
    thermal = cv2.resize(warmth[parts], size, interpolation=area)
    thermal += alpha * relief * (0.09 * (climate.skin - climate.air))
    canvas.paste(left, top, visible, thermal, alpha)


def _relief(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    folds = rng.standard_normal((9, 5), dtype=np.float32)
    return cv2.resize(folds, size, interpolation=cv2.INTER_LINEAR)


def _dress(rng: np.random.Generator, climate: Climate, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    colours = np.zeros((len(Part), 3), np.float32)
    skin, hair = SKINS[int(rng.integers(len(SKINS)))], HAIRS[int(rng.integers(len(HAIRS)))]
    coat, legs = random_colour(rng, 15, 240), random_colour(rng, 15, 130)
    worn = {
        Part.FACE: skin, Part.HAND: skin, Part.HAIR: hair, Part.COAT: coat,
        Part.SLEEVE: shade(coat, 0.85), Part.LEG: legs, Part.REAR_LEG: shade(legs, 0.8),
        Part.SHOE: random_colour(rng, 10, 200), Part.BAG: random_colour(rng),
        Part.FRAME: random_colour(rng, 20, 200), Part.TYRE: (25.0, 25.0, 25.0),
    }  # fmt: skip
    for part, colour in worn.items():
        colours[part] = colour
    return colours, _warm(rng, climate)


def _warm(rng: np.random.Generator, climate: Climate) -> np.ndarray:
    """Warmth of each part: bare skin hottest, thick clothing near the air, sun heats cloth."""
    thickness = float(rng.uniform(0.2, 0.65))
    sun = 0.0 if climate.night else float(rng.uniform(0.0, 0.25))
    legs = float(rng.uniform(0.35, 0.85))
    shares = {
        Part.FACE: rng.uniform(0.9, 1.08), Part.HAND: rng.uniform(0.65, 1.0),
        Part.HAIR: rng.uniform(0.45, 0.75) + sun, Part.COAT: 1 - thickness + sun,
        Part.SLEEVE: 0.95 - thickness + sun, Part.LEG: legs + sun, Part.REAR_LEG: legs - 0.1 + sun,
        Part.SHOE: rng.uniform(0.2, 0.5), Part.BAG: rng.uniform(0.0, 0.3) + sun,
        Part.FRAME: rng.uniform(-0.1, 0.4), Part.TYRE: rng.uniform(0.0, 0.5),
    }  # fmt: skip
    warmth = np.zeros(len(Part), np.float32)
    for part, share in shares.items():
        warmth[part] = climate.between(float(share))
    return warmth
