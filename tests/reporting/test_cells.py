"""Cells of a map, drawn over the picture."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from d2pd.reporting.cells import DIMMED, LEAST_WIDTH, TINT, colour_cells, heat_cells

BLUE = (0, 0, 200)


def centre_of(picture, cell, cells):
    """Return the pixel in the middle of a cell."""
    height, width = picture.shape[:2]
    y, x = int((cell[0] + 0.5) * height / cells[0]), int((cell[1] + 0.5) * width / cells[1])
    return picture[y, x].tolist()


def test_cells_by_hand():
    mask = np.array([[0, 1, 255], [1, 0, 0]])
    drawn = colour_cells(np.full((400, 900, 3), 100, np.uint8), mask, {1: BLUE})
    assert drawn.shape == (400, 900, 3)
    dimmed = 100 * DIMMED
    painted = [round(dimmed * (1 - TINT) + side * TINT) for side in BLUE]
    for cell, value in np.ndenumerate(mask):
        wanted = painted if value == 1 else [round(dimmed)] * 3
        assert centre_of(drawn, cell, mask.shape) == wanted


@given(rows=st.integers(1, 70), columns=st.integers(1, 90))
def test_every_cell_has_a_line_at_its_upper_and_left_side_but_the_first(rows, columns):
    black = np.zeros((500, LEAST_WIDTH, 3), np.uint8)
    drawn = colour_cells(black, np.zeros((rows, columns), int), {}).any(axis=2)
    assert drawn.all(axis=1).sum() == rows - 1
    assert drawn.all(axis=0).sum() == columns - 1
    assert drawn.sum() == 500 * (columns - 1) + LEAST_WIDTH * (rows - 1) - (rows - 1) * (
        columns - 1
    )


def test_small_pictures_are_enlarged_and_keep_their_shape():
    drawn = colour_cells(np.zeros((128, 160, 3), np.uint8), np.zeros((4, 5), int), {})
    assert drawn.shape == (512, 640, 3)


def test_heat_grows_with_the_probability_and_stays_in_its_cells():
    heat = np.array([[0.0, 0.5], [0.75, 1.0]], np.float32)
    drawn = heat_cells(np.zeros((640, 640, 3), np.uint8), heat)
    bright = [sum(centre_of(drawn, cell, (2, 2))) for cell in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert bright == sorted(bright)
    assert len(set(bright)) == 4
