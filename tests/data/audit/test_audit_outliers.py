"""What is far from its class: hand-computed spreads, and the two conditions."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2pd.data.audit.outliers import find_outliers, measure_outliers
from d2pd.data.label_table.table import LabelTable


def table_of_sides(sides, categories=None, is_region=None) -> LabelTable:
    """One image of unknown size with boxes of these widths and heights."""
    sides = np.asarray(sides, dtype=np.float64)
    count = len(sides)
    corners = np.zeros((count, 2))
    return LabelTable(
        path=Path("labels.csv"),
        format="csv",
        box_format="xyxy",
        image_names=["a.jpg"],
        image_ids=[0],
        image_rows=np.array([1]),
        heights=np.zeros(1),
        widths=np.zeros(1),
        box_images=np.zeros(count, dtype=np.int64),
        boxes_xyxy=np.concatenate([corners, corners + sides], axis=1),
        box_rows=np.arange(count) + 1,
        categories=np.zeros(count, dtype=np.int64) if categories is None else categories,
        class_names=("person", "cyclist"),
        category_words={},
        is_region=np.zeros(count, dtype=bool) if is_region is None else is_region,
        occlusion=np.full(count, -1, dtype=np.int8),
        malformed=[],
        repeated={},
    )


def spread_sides(logs) -> np.ndarray:
    """Squares whose area has these logarithms."""
    side = np.exp(np.asarray(logs) / 2)
    return np.stack([side, side], axis=1)


def test_deviations_are_distances_of_logarithms_over_the_robust_spread():
    # Quartiles of 0..40 / 40 are 0.25 and 0.75: the spread is 0.5 / 1.349 = 0.37065.
    logs = np.append(np.arange(40) / 40, 1.0)
    logs[0] = -3.0  # as low as before for a quartile
    (outlier,) = measure_outliers(table_of_sides(spread_sides(logs)))
    assert (outlier.rule, outlier.index) == ("outlier_area", 0)
    assert outlier.value == pytest.approx(np.exp(-3.0))
    assert outlier.median == pytest.approx(np.exp(0.5))
    assert outlier.deviations == pytest.approx(3.5 / (0.5 / 1.349))


def test_a_finding_tells_value_median_and_distance():
    logs = np.append(np.arange(40) / 40, 1.0)
    logs[0] = -3.0
    (finding,) = find_outliers(table_of_sides(spread_sides(logs)))
    assert finding.message == (
        "area 0.04979, the median of its class is 1.649: 9.4 robust standard deviations apart"
    )
    assert (finding.row, finding.category) == (1, "person")


@pytest.mark.parametrize(("factor", "count"), [(3.9, 0), (4.1, 1), (1 / 3.9, 0), (1 / 4.1, 1)])
def test_an_area_is_an_outlier_from_four_times_the_median_or_a_quarter(factor, count):
    sides = np.full((50, 2), 10.0)
    sides[7] *= factor**0.5
    assert [outlier.index for outlier in measure_outliers(table_of_sides(sides))] == [7] * count


@pytest.mark.parametrize(("factor", "count"), [(2.4, 0), (2.6, 1), (1 / 2.4, 0), (1 / 2.6, 1)])
def test_an_aspect_is_an_outlier_from_two_and_a_half_times_the_median(factor, count):
    sides = np.full((50, 2), 10.0)
    sides[7] *= [factor**0.5, factor**-0.5]
    outliers = measure_outliers(table_of_sides(sides))
    assert [(o.rule, o.index) for o in outliers] == [("outlier_aspect", 7)] * count


def test_where_boxes_vary_much_a_factor_alone_is_no_outlier():
    logs = np.linspace(-4, 4, 101)  # quartiles -2 and 2: five deviations are 14.8
    assert measure_outliers(table_of_sides(spread_sides(np.append(logs, 14)))) == []
    assert len(measure_outliers(table_of_sides(spread_sides(np.append(logs, 16))))) == 1


@pytest.mark.parametrize(("count", "is_found"), [(29, False), (30, True)])
def test_a_class_needs_thirty_boxes(count, is_found):
    sides = np.full((count, 2), 10.0)
    sides[0] = 1.0
    assert bool(measure_outliers(table_of_sides(sides))) == is_found


def test_each_class_has_its_own_median():
    sides = np.concatenate([np.full((40, 2), 10.0), np.full((40, 2), 100.0)])
    categories = np.repeat([0, 1], 40)
    assert measure_outliers(table_of_sides(sides, categories)) == []
    categories[[3, 77]] = [1, 0]
    outliers = measure_outliers(table_of_sides(sides, categories))
    assert [outlier.index for outlier in outliers] == [3, 77]


@pytest.mark.parametrize("category", [-1, -2])
def test_regions_and_unknown_categories_are_neither_outliers_nor_counted(category):
    sides = np.full((60, 2), 10.0)
    sides[:31] = 1000.0  # the greater half, were they counted
    categories = np.zeros(60, dtype=np.int64)
    categories[:31] = category
    assert measure_outliers(table_of_sides(sides[:60], categories)) == []
    sides[59] = 1.0
    categories[31:] = 0
    assert measure_outliers(table_of_sides(sides, categories)) == []  # 29 objects are left
    is_region = np.zeros(60, dtype=bool)
    is_region[:29] = True
    sides[:31] = 1000.0
    sides[30:] = 10.0
    outliers = measure_outliers(table_of_sides(sides, np.zeros(60, dtype=np.int64), is_region))
    assert [outlier.index for outlier in outliers] == [29]


@given(
    st.lists(st.tuples(st.floats(1, 500), st.floats(1, 500)), min_size=30, max_size=60),
    st.integers(-6, 6),
)
@settings(max_examples=60, deadline=None)
def test_the_unit_of_length_does_not_matter(sides, power):
    sides = np.array(sides)
    sides[0] = sides[1:].min(axis=0) / [900, 30]
    outliers = measure_outliers(table_of_sides(sides))
    scaled = measure_outliers(table_of_sides(sides * 2.0**power))
    assert {(o.rule, o.index) for o in outliers} == {(o.rule, o.index) for o in scaled}
