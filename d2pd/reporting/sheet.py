"""A sheet of pictures with marks on them: the drawing below the galleries."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

DPI = 100
MARGIN = 12  # px between tiles
CAPTION = 24  # px above a tile
HEADING_LINE, HEADING_LETTER = 20, 10  # px
TALLEST = 1.5  # height of a tile at most, in widths
FONT_SIZE = 7.5
LETTER_WIDTH, LINE_HEIGHT = 6.4, 14.0  # px on the sheet, for FONT_SIZE

LABEL = "label"
IGNORE = "ignore"
DETECTION = "detection"
REMINDER = "reminder"
FAULT = "fault"

GREEN, ORANGE, GREY, RED = "#3ddc5a", "#ff9f1c", "#d8d8d8", "#ff4b4b"
STYLES: dict[str, dict[str, Any]] = {
    LABEL: {"edgecolor": GREEN, "linewidth": 1.4},
    DETECTION: {"edgecolor": ORANGE, "linewidth": 1.4},
    REMINDER: {"edgecolor": GREEN, "linewidth": 1.2, "linestyle": (0, (3, 2))},
    IGNORE: {"edgecolor": GREY, "linewidth": 0.9, "linestyle": (0, (4, 3)), "hatch": "////"},
    FAULT: {"edgecolor": RED, "linewidth": 1.8},
}
"""How each kind of box looks; ``REMINDER`` is a label on a picture of detections, ``FAULT`` one
that cannot be learnt: it has a ring where it is too small to be seen, or outside."""

RING = 22  # px on the sheet: diameter, and the least side of a fault that is seen without a ring


@dataclass
class Mark:
    """A box on a picture: XYXY in its pixels, a kind of ``STYLES``, and what stands beside it."""

    bbox: Sequence[float]
    kind: str
    text: str = ""


@dataclass
class Tile:
    """A picture, (H, W, 3) uint8 RGB, its caption and its marks."""

    image: np.ndarray
    caption: str
    marks: list[Mark] = field(default_factory=list)


def draw_sheet(
    tiles: Sequence[Tile], path: str | Path, *, heading: str, columns: int, tile_width: int = 560
) -> None:
    """Draw tiles row by row into a PNG file.

    Args:
        tiles: At least one.
        path: File to write; its folder is made.
        heading: Above all, wrapped to the width.
        columns: Tiles in a row.
        tile_width: Width of a tile, px; the height of a row follows from its tallest picture.

    Raises:
        ValueError: If there is no tile.
    """
    if not tiles:
        raise ValueError("there is no picture to draw")
    columns = min(columns, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [_row_height(row, tile_width) for row in rows]
    width = columns * (tile_width + MARGIN) + MARGIN
    heading_lines = textwrap.wrap(heading, width // HEADING_LETTER)
    heading_height = 2 * MARGIN + HEADING_LINE * len(heading_lines)
    height = heading_height + sum(heights) + len(rows) * (CAPTION + MARGIN)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        MARGIN / width,
        1 - MARGIN / height,
        "\n".join(heading_lines),
        va="top",
        fontsize=12,
        weight="bold",
    )
    bottom = heading_height
    for row, row_height in zip(rows, heights, strict=True):
        bottom += CAPTION + row_height
        for column, tile in enumerate(row):
            left = MARGIN + column * (tile_width + MARGIN)
            place = (left / width, 1 - bottom / height, tile_width / width, row_height / height)
            _draw_tile(figure.add_axes(place), tile, tile_width)
        bottom += MARGIN
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Half the time of level 6, which is the default, for a file a sixth larger.
    figure.savefig(path, dpi=DPI, format="png", pil_kwargs={"compress_level": 3})


def _row_height(row: Sequence[Tile], tile_width: int) -> int:
    aspect = max(tile.image.shape[0] / tile.image.shape[1] for tile in row)
    return round(tile_width * min(aspect, TALLEST))


def _draw_tile(axes: Axes, tile: Tile, tile_width: int) -> None:
    height, width = tile.image.shape[:2]
    # Pixel i covers [i, i + 1], as in the coordinates of boxes.
    axes.imshow(tile.image, extent=(0, width, height, 0))
    axes.autoscale(False)  # marks that reach outside must not make room for themselves
    axes.set_anchor("NW")
    axes.set_axis_off()
    axes.set_title(shorten(tile.caption, tile_width // 8), loc="left", fontsize=9, pad=4)
    # Image pixels for one pixel of the sheet: letters keep their size whatever the image's.
    scale = max(width / tile_width, height / (tile_width * TALLEST))
    for mark in tile.marks:
        _draw_box(axes, mark)
        if mark.kind == FAULT:
            _draw_ring(axes, mark, (height, width), scale)
    for mark, place in place_texts(tile.marks, (height, width), scale):
        axes.text(
            place[0],
            place[1],
            mark.text,
            va="top",
            fontsize=FONT_SIZE,
            color="black",
            bbox={"facecolor": STYLES[mark.kind]["edgecolor"], "edgecolor": "none", "pad": 0.7},
            clip_on=True,
        )


def _draw_box(axes: Axes, mark: Mark) -> None:
    x1, y1, x2, y2 = (float(value) for value in mark.bbox)
    style = STYLES[mark.kind]
    # A dark rim, so that the line shows on snow and in the dark alike.
    rim = {"linewidth": style["linewidth"] + 1.4, "edgecolor": "black", "alpha": 0.5}
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **rim))
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))


def _draw_ring(axes: Axes, mark: Mark, image_size: tuple[int, int], scale: float) -> None:
    """Draw a ring around a box of which too little is in the picture to be seen."""
    height, width = image_size
    x1, x2 = (min(max(0.0, float(x)), width) for x in mark.bbox[0::2])
    y1, y2 = (min(max(0.0, float(y)), height) for y in mark.bbox[1::2])
    if min(x2 - x1, y2 - y1) >= RING * scale:
        return
    points = RING * 72 / DPI
    for colour, linewidth in (("black", 3.2), (RED, 1.8)):
        axes.plot(
            (x1 + x2) / 2,
            (y1 + y2) / 2,
            "o",
            markersize=points,
            markeredgecolor=colour,
            markeredgewidth=linewidth,
            fillstyle="none",
            clip_on=False,
        )


def place_texts(
    marks: Sequence[Mark], image_size: tuple[int, int], scale: float
) -> list[tuple[Mark, tuple[float, float]]]:
    """Find places for the texts of marks where they do not cover one another, if there are.

    Args:
        marks: Those without a text are left out.
        image_size: (height, width) of the picture; texts stay inside.
        scale: Picture pixels for one pixel of the sheet.

    Returns:
        For each mark with a text, the (x, y) of the text's upper left corner: above its box, else
        below, at its right or inside; above again where all of these are taken.
    """
    line = LINE_HEIGHT * scale
    taken: list[tuple[float, float, float, float]] = []
    placed = []
    for mark in (mark for mark in marks if mark.text):
        x1, y1, x2, y2 = (float(value) for value in mark.bbox)
        length = len(mark.text) * LETTER_WIDTH * scale
        spots = []
        for x, y in ((x1, y1 - line), (x1, y2), (x2, y1), (x1, y1)):
            left = max(0.0, min(x, image_size[1] - length))
            top = max(0.0, min(y, image_size[0] - line))
            spots.append((left, top, left + length, top + line))
        spot = next((s for s in spots if not any(_overlap(s, t) for t in taken)), spots[0])
        taken.append(spot)
        placed.append((mark, spot[:2]))
    return placed


def _overlap(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def shorten(text: str, length: int) -> str:
    """Cut a text in its middle where it is longer than ``length`` characters."""
    if len(text) <= length:
        return text
    head = length // 3
    return f"{text[:head]}…{text[-(length - head - 1) :]}"
