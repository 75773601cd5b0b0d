"""What the drawn pictures show."""

import numpy as np
import pytest

from d2pd.data.synthetic import Frame, Label, draw_frame
from d2pd.data.synthetic.body import FRONT_ASPECT, draw_pose, fit, walker
from d2pd.data.synthetic.canvas import Canvas
from d2pd.data.synthetic.climate import draw_climate
from d2pd.data.synthetic.pedestrians import paint_label

PERSON = Label((300, 150, 82, 200), "person")


def drawn(*labels: Label, im_name: str = "set00/V000/I00019", key: int = 4) -> tuple:
    return draw_frame(Frame(im_name, labels, (key, 0, 0)))


@pytest.mark.parametrize("box", [(620, 308, 0, 1), (10, 20, 0, 0), (5, 5, -3, 40), (5, 5, 1e9, 9)])
def test_a_box_without_area_shows_nothing(box: tuple) -> None:
    for first, second in zip(drawn(PERSON), drawn(PERSON, Label(box, "person")), strict=True):
        np.testing.assert_array_equal(first, second)


def test_boxes_that_are_not_finite_show_nothing() -> None:
    nowhere = Label((float("nan"), 3.0, 30.0, 60.0), "person")
    for first, second in zip(drawn(PERSON), drawn(PERSON, nowhere), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", ["person", "cyclist", "people"])
def test_a_figure_is_at_the_same_place_in_both_pictures_and_inside_its_box(kind: str) -> None:
    canvas, climate = Canvas(), draw_climate(np.random.default_rng(1), night=True)
    canvas.visible[:], canvas.thermal[:] = 255, 255  # no part is as bright or as warm as this
    x, y, width, height = 200, 150, 130, 160
    paint_label(canvas, np.random.default_rng(2), Label((x, y, width, height), kind), climate)
    seen, warm = (canvas.visible < 250).any(axis=2), canvas.thermal < 250
    assert (seen & warm).sum() > 0.95 * (seen | warm).sum()
    rows, columns = np.nonzero(warm)
    assert y - 2 <= rows.min() <= y + 3
    assert y + height - 4 <= rows.max() <= y + height + 2
    assert x - 0.15 * width <= columns.min() < columns.max() <= x + 1.15 * width


def test_day_and_night_follow_the_set_and_night_is_darker() -> None:
    day, night = (drawn(PERSON, im_name=f"{name}/V000/I00019")[0] for name in ("set02", "set03"))
    assert night.mean() < 0.6 * day.mean()


def test_by_day_persons_may_be_colder_than_the_ground_and_at_night_never() -> None:
    climates = [draw_climate(np.random.default_rng(seed), night=False) for seed in range(200)]
    colder = sum(climate.skin < climate.ground for climate in climates)
    assert 30 < colder < 100
    for seed in range(200):
        climate = draw_climate(np.random.default_rng(seed), night=True)
        assert climate.skin > climate.ground


@pytest.mark.parametrize("aspect", [0.25, 0.33, 0.41, 0.55])
def test_a_walker_has_the_height_and_about_the_width_of_the_box(aspect: float) -> None:
    for seed in range(20):
        pose = draw_pose(np.random.default_rng(seed), aspect)
        points = np.concatenate([shape for _, shape in fit(walker(pose), 100 * aspect, 100)])
        extent = points.max(axis=0) - points.min(axis=0)
        assert extent[1] == pytest.approx(100)
        assert 0.6 * 100 * aspect < extent[0] < 1.25 * 100 * aspect
        assert aspect > FRONT_ASPECT or pose.turned <= 0.3


def test_an_occluded_person_is_covered_from_below() -> None:
    free, heavy = (
        drawn(Label(PERSON.box_xywh, "person", grade))[1].astype(int) for grade in (0, 2)
    )
    changed = np.abs(free - heavy)[150:350, 305:375] > 3
    assert changed[110:].mean() > 0.4
    assert changed[:50].mean() < 0.2
