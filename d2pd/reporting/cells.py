"""What the cells of a map hold, drawn over the picture that the map spans."""

from collections.abc import Mapping

import cv2
import numpy as np
from matplotlib import colormaps

from d2pd.modeling.segmentation import IGNORE_INDEX
from d2pd.reporting.sheet import Mark, Tile

LEAST_WIDTH = 640
"""px: smaller pictures are enlarged, so that the lines between cells stay thin."""

DIMMED, TINT, LINE = 0.45, 0.6, 0.16
"""Of the picture what is left below the cells, and the shares of a cell's and a line's colour."""

HEAT_COLOURS = "inferno"

PAINTED_CELL, IGNORED_CELL = (64, 150, 255), (255, 176, 32)
MASK_COLOURS = {1: PAINTED_CELL, IGNORE_INDEX: IGNORED_CELL}
"""Of the values of ``modeling.segmentation.paint_mask``; background keeps the picture's."""


def mask_tiles(of_sample: Tile, masks: Mapping[str, np.ndarray]) -> list[Tile]:
    """Return a tile for each mask of a sample, with the boxes of the sample's own tile.

    Args:
        of_sample: Its picture, which the maps span, and its marks.
        masks: (rows, columns) of ``modeling.segmentation.paint_mask`` by the name of the map.
    """
    tiles = []
    for name, mask in masks.items():
        image = colour_cells(of_sample.image, mask, MASK_COLOURS)
        rows, columns = mask.shape
        share = f"{100 * float((mask == 1).mean()):.1f}% painted"
        caption = f"mask of {name}, {rows}×{columns} cells, {share}"
        tiles.append(tile_with_boxes_of(of_sample, image, caption))
    return tiles


def tile_with_boxes_of(other: Tile, image: np.ndarray, caption: str) -> Tile:
    """Return a tile with the boxes of another one, without their texts.

    Args:
        other: Its picture shows the same as ``image``, perhaps at another size.
        image: (H, W, 3) uint8 RGB.
        caption: Of the tile.
    """
    scale = image.shape[1] / other.image.shape[1]
    marks = [Mark([side * scale for side in mark.bbox], mark.kind) for mark in other.marks]
    return Tile(image, caption, marks)


def colour_cells(
    picture: np.ndarray, cells: np.ndarray, colours: Mapping[int, tuple[int, int, int]]
) -> np.ndarray:
    """Tint the cells of a dimmed picture by their values, with lines between them.

    Args:
        picture: (h, w, 3) uint8 RGB.
        cells: (rows, columns) of whole numbers; the map spans the whole picture.
        colours: Value -> RGB; a cell of another value is not tinted.

    Returns:
        (H, W, 3) uint8 RGB, the picture enlarged to ``LEAST_WIDTH`` or more.
    """
    tinted = np.zeros((*cells.shape, 3), np.float32)
    share = np.zeros(cells.shape, np.float32)
    for value, colour in colours.items():
        tinted[cells == value], share[cells == value] = colour, TINT
    return _blend(picture, tinted, share)


def heat_cells(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draw probabilities, dark for 0 to bright for 1, over a dimmed picture.

    Args:
        picture: (h, w, 3) uint8 RGB.
        heat: (rows, columns) in [0, 1]; the map spans the whole picture.

    Returns:
        As ``colour_cells``.
    """
    colours = 255 * colormaps[HEAT_COLOURS](np.clip(heat, 0, 1))[:, :, :3]
    return _blend(picture, colours.astype(np.float32), np.full(heat.shape, TINT, np.float32))


def _blend(picture: np.ndarray, colours: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Lay cells (rows, columns, 3) over a picture, each with its share, and lines between them."""
    height, width = picture.shape[:2]
    scale = max(1.0, LEAST_WIDTH / width)
    height, width = round(height * scale), round(width * scale)
    shown = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR) * DIMMED
    rows, columns = share.shape
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    weight = share[row][:, column, None]
    shown = shown * (1 - weight) + colours[row][:, column] * weight
    for axis, cell in ((0, row), (1, column)):
        is_first = np.flatnonzero(np.diff(cell)) + 1
        at = (is_first,) if axis == 0 else (slice(None), is_first)
        shown[at] += (255 - shown[at]) * LINE
    return shown.round().astype(np.uint8)
