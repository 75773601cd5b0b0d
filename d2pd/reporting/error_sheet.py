"""The errors of a detector as one picture: what the gallery of the report shows, side by side."""

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from d2pd.reporting.report.content import Box, Card
from d2pd.reporting.sheet import DETECTION, FAULT, IGNORE, LABEL, Mark, Tile, draw_sheet

COLUMNS = 3
TILE_WIDTH = 420
PLURALS = {
    "false positive": "false positives",
    "miss": "misses",
    "not counted": "detections that do not count",
}
KINDS = {"label": LABEL, "detection": DETECTION, "ignore": IGNORE}
HEADING = (
    "{kinds}, each with what is around it.  Red: the error.  Green: labels.  Orange: detections.  "
    "Hatched: ignore region."
)


def draw_errors(cards: Sequence[Card], path: str | Path) -> None:
    """Draw errors with what is around them.

    Args:
        cards: Of ``report.cards.Gallery.draw``; at least one.
        path: PNG file to write; its folder is made.

    Raises:
        ValueError: If there is no card.
    """
    tiles = [_tile(card) for card in cards]
    kinds = " and ".join(dict.fromkeys(PLURALS[card.kind] for card in cards))
    heading = HEADING.format(kinds=kinds.capitalize())
    draw_sheet(tiles, path, heading=heading, columns=COLUMNS, tile_width=TILE_WIDTH)


def _tile(card: Card) -> Tile:
    image = _picture(card)
    scale = image.shape[1] / card.view[2]
    boxes = sorted(card.boxes, key=lambda box: box.is_subject)  # the last one comes on top
    marks = [_mark(box, card.view, scale) for box in boxes if _is_seen(box, card.view)]
    return Tile(image, f"{card.reason}: {card.lines[0]}", marks)


def _is_seen(box: Box, view: Sequence[float]) -> bool:
    x, y, width, height = box.xywh
    left, top, view_width, view_height = view
    is_inside = left < x + width and x < left + view_width
    return box.is_subject or (is_inside and top < y + height and y < top + view_height)


def _mark(box: Box, view: Sequence[float], scale: float) -> Mark:
    x, y, width, height = box.xywh
    corners = (x - view[0], y - view[1], x + width - view[0], y + height - view[1])
    kind = FAULT if box.is_subject else KINDS[box.kind]
    return Mark([scale * corner for corner in corners], kind, box.text)


def _picture(card: Card) -> np.ndarray:
    """Return the part that a card shows, (H, W, 3) uint8 RGB; grey where it has no picture."""
    if not card.crop:
        width, height = (max(1, round(side)) for side in card.view[2:])
        return np.full((height, width, 3), 96, np.uint8)
    encoded = base64.b64decode(card.crop.partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(picture)
