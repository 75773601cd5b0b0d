"""The tables equal the real labels, and drawn labels follow the tables."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.synthetic import frames_of_split, quantiles
from d2pd.data.synthetic.layout import Label, cover, draw_labels, hidden_share
from d2pd.data.synthetic.measure import is_day, measure_tables

SCENES = 1500


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[list[Label]]]:
    return {
        light: [
            draw_labels(np.random.default_rng((3, index)), light == "night")
            for index in range(SCENES)
        ]
        for light in ("day", "night")
    }


def persons(scenes: list[list[Label]]) -> list[Label]:
    return [label for labels in scenes for label in labels if label.kind == "person"]


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_level_never_reads_a_smaller_value(first: float, second: float) -> None:
    low, high = sorted((first, second))
    table = quantiles.HEIGHT["person", "day"]
    assert quantiles.at_quantile(table, low) <= quantiles.at_quantile(table, high)


def test_tables_have_a_value_per_level_and_never_fall() -> None:
    tables = [*quantiles.HEIGHT.values(), *quantiles.CENTRE_X.values()]
    tables += [
        row
        for rows in (quantiles.TOP, quantiles.ASPECT)
        for group in rows.values()
        for row in group
    ]
    for table in tables:
        assert len(table) == len(quantiles.LEVELS)
        assert list(table) == sorted(table)


def test_tables_equal_the_real_labels(shared_data: Path) -> None:
    kaist = shared_data / "kaist"
    measured = measure_tables(kaist / "train20.json", kaist / "test20.json")
    assert tuple(measured["occlusion"]) == quantiles.OCCLUSION
    for kind in ("person", "ignore"):
        rows = measured[f"by_height/{kind}"]
        np.testing.assert_allclose(rows["top"], quantiles.TOP[kind])
        np.testing.assert_allclose(rows["aspect"], quantiles.ASPECT[kind])
        for light in ("day", "night"):
            key, name = (kind, light), f"{kind}/{light}"
            np.testing.assert_allclose(measured[f"height/{name}"], quantiles.HEIGHT[key])
            np.testing.assert_allclose(measured[f"centre_x/{name}"], quantiles.CENTRE_X[key])
            np.testing.assert_allclose(measured[f"count/{name}"], quantiles.COUNT[key])


@pytest.mark.parametrize("light", ["day", "night"])
def test_heights_positions_and_shapes_follow_the_quantiles(scenes: dict, light: str) -> None:
    boxes = np.array([label.box_xywh for label in persons(scenes[light])], float)
    inner = slice(2, 9)  # the 5% to the 95% quantile: beyond, one box decides
    levels = quantiles.LEVELS[inner]
    height = np.array(quantiles.HEIGHT["person", light][inner])
    np.testing.assert_allclose(np.quantile(boxes[:, 3], levels), height, rtol=0.07)
    centre = np.array(quantiles.CENTRE_X["person", light][inner])
    drawn = np.quantile(boxes[:, 0] + boxes[:, 2] / 2, levels)
    np.testing.assert_allclose(drawn, centre, atol=26)
    for row, (top, aspect) in enumerate(
        zip(quantiles.TOP["person"], quantiles.ASPECT["person"], strict=True)
    ):
        members = boxes[[quantiles.height_row(value) == row for value in boxes[:, 3]]]
        np.testing.assert_allclose(np.quantile(members[:, 1], levels), top[inner], atol=8)
        shapes = np.quantile(members[:, 2] / members[:, 3], levels)
        np.testing.assert_allclose(shapes, aspect[inner], atol=0.05)


@pytest.mark.parametrize("light", ["day", "night"])
@pytest.mark.parametrize("kind", ["person", "ignore"])
def test_counts_per_image_follow_the_real_shares(scenes: dict, light: str, kind: str) -> None:
    counts = Counter(
        sum((label.kind == "person") == (kind == "person") for label in labels)
        for labels in scenes[light]
    )
    table = quantiles.COUNT[kind, light]
    drawn = [counts[number] / SCENES for number in range(len(table))]
    np.testing.assert_allclose(drawn, table, atol=0.035)
    assert sum(counts.values()) == SCENES


def test_occlusion_follows_the_test_labels(scenes: dict) -> None:
    labels = persons(scenes["day"]) + persons(scenes["night"])
    shares = np.bincount([label.occlusion for label in labels], minlength=3) / len(labels)
    np.testing.assert_allclose(shares, quantiles.OCCLUSION, atol=0.04)


def test_boxes_are_whole_pixels_inside_the_frame(scenes: dict) -> None:
    for labels in (*scenes["day"], *scenes["night"]):
        for label in labels:
            x, y, width, height = label.box_xywh
            assert all(isinstance(value, int) for value in label.box_xywh)
            assert 0 <= x < x + width <= 640
            assert 0 <= y < y + height <= 512


def test_a_label_that_another_hides_is_marked_as_occluded(scenes: dict) -> None:
    for labels in (*scenes["day"], *scenes["night"]):
        for label in labels:
            if hidden_share(label, labels) > 0.5:
                assert label.occlusion == 2


def test_cover_of_a_half_hidden_box() -> None:
    assert cover((0, 0, 10, 10), (5, 0, 10, 10)) == 0.5
    assert cover((0, 0, 10, 10), (20, 0, 10, 10)) == 0
    assert cover((0, 0, 10, 10), (5, 5, 0, 1)) == 0


def test_day_and_night_sets_are_told_apart_as_kaist_numbers_them() -> None:
    assert [is_day(f"set{number:02}/V000/I00001") for number in range(12)] == (
        [True] * 3 + [False] * 3
    ) * 2


def test_splits_take_the_videos_of_the_real_lists() -> None:
    train, test = (frames_of_split(split, 80, 0) for split in ("train", "test"))
    assert {frame.im_name[:5] for frame in train} == {f"set{number:02}" for number in range(6)}
    assert {frame.im_name[:5] for frame in test} == {f"set{number:02}" for number in range(6, 12)}
    assert sum(frame.night for frame in train) == 30
    assert len({frame.im_name for frame in train}) == 80
