import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.reporting.report.chart import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    Chart,
    Line,
    place_chart,
    short_number,
)

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def test_linear_axis_runs_from_corner_to_corner():
    drawn = place_chart(Chart("t", "x", [Line("a", [(0, 0), (5, 5), (10, 10)])]))

    middle_x, middle_y = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    assert drawn.values[0]["points"] == [
        [LEFT, BOTTOM, 0, 0],
        [middle_x, middle_y, 5, 5],
        [RIGHT, TOP, 10, 10],
    ]
    assert [text for _, text in drawn.x_ticks] == ["0", "2", "4", "6", "8", "10"]


def test_log_axis_gives_each_decade_the_same_length():
    axis = Axis(0.01, 1.0, 0, 100, is_log=True)

    assert [axis.place(value) for value in (0.01, 0.1, 1.0)] == [0, 50, 100]
    assert [text for _, text in axis.ticks()] == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]


def test_values_beyond_the_axis_lie_on_its_ends():
    axis = Axis(0.1, 1.0, 10, 20, is_log=True)

    assert (axis.place(1e-9), axis.place(99.0)) == (10, 20)


def test_points_that_are_no_numbers_are_left_out():
    points = [(0, math.nan), (1, 1.0), (2, math.inf), (3, 0.0), (4, 2.0)]

    linear = place_chart(Chart("t", "x", [Line("a", points)]))
    log = place_chart(Chart("t", "x", [Line("a", points)], is_y_log=True))

    assert [p[2] for p in linear.values[0]["points"]] == [1, 3, 4]
    assert [p[2] for p in log.values[0]["points"]] == [1, 4]


def test_chart_without_a_point_is_none():
    assert place_chart(Chart("t", "x", [])) is None
    assert place_chart(Chart("t", "x", [Line("a", [(0, math.nan)])])) is None


def test_single_point_is_drawn_as_a_dot_in_the_middle():
    drawn = place_chart(Chart("t", "x", [Line("a", [(7, 3)])]))

    [(_, _, dots, _)] = drawn.paths
    assert dots == [((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2)]


def test_steps_go_along_before_they_go_up():
    drawn = place_chart(Chart("t", "x", [Line("a", [(0, 0), (10, 10)], is_stepped=True)]))

    assert drawn.paths[0][1] == f"M{LEFT} {BOTTOM}H{RIGHT}V{TOP}"


def test_a_hundred_thousand_points_become_no_more_than_the_pixels_show():
    points = [(x, x / 1e5) for x in range(100_000)]

    kept = place_chart(Chart("t", "x", [Line("a", points)])).values[0]["points"]

    assert len(kept) < 2 * (RIGHT - LEFT)
    assert (kept[0][2], kept[-1][2]) == (0, 99_999)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_whatever_comes_lies_inside_the_frame(points, is_x_log, is_y_log):
    points = [(x, y) for x, y in points if not (abs(x) > 1e300 or abs(y) > 1e300)]
    drawn = place_chart(Chart("t", "x", [Line("a", points)], is_x_log=is_x_log, is_y_log=is_y_log))

    for x, y, *_ in drawn.values[0]["points"] if drawn else []:
        assert LEFT <= x <= RIGHT
        assert TOP <= y <= BOTTOM


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (1234.5, "1234"),
        (20000, "20,000"),
        (2e-4, "0.0002"),
        (3e7, "3e+07"),
    ],
)
def test_numbers_are_short(value, words):
    assert short_number(value) == words
