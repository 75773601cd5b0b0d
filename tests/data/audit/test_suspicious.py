"""Labels for a person to look through."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.audit.outliers import measure_outliers
from d2pd.data.audit.suspicious import (
    HEADER,
    MOST_IMAGES,
    Suspect,
    find_suspects,
    write_suspects,
)
from d2pd.data.label_table.table import LabelTable
from d2pd.errors import UserError


def label_table(boxes=(), num_images=1):
    """Boxes of one class in the first image; image ids are 100, 101, ... and rows 0, 1, ..."""
    boxes_xyxy = np.array(boxes, dtype=float).reshape(-1, 4)
    count = len(boxes_xyxy)
    return LabelTable(
        path=Path("labels.json"),
        format="coco",
        box_format="xywh",
        image_names=[f"{index}, é.jpg" for index in range(num_images)],
        image_ids=[100 + index for index in range(num_images)],
        image_rows=np.arange(num_images),
        heights=np.zeros(num_images),
        widths=np.zeros(num_images),
        box_images=np.zeros(count, dtype=np.int64),
        boxes_xyxy=boxes_xyxy,
        box_rows=np.arange(count) + 7,
        categories=np.zeros(count, dtype=np.int64),
        class_names=("cat",),
        category_words={},
        is_region=np.zeros(count, dtype=bool),
        occlusion=np.full(count, -1, dtype=np.int8),
        malformed=[],
        repeated={},
    )


def usual_boxes(count=60):
    """Boxes 40 to 50 px wide and twice as high."""
    return [[0, 0, 40 + index % 11, 2 * (40 + index % 11)] for index in range(count)]


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_farthest_box_comes_first_and_is_named_by_its_row(tmp_path):
    table = label_table([*usual_boxes(), [1.5, 2, 2001.5, 4002], [1, 2, 301, 602]])

    write_suspects(tmp_path / "suspicious.csv", find_suspects(table))

    first, second = read(tmp_path / "suspicious.csv")
    assert tuple(first) == HEADER
    assert [first[side] for side in ("x1", "y1", "x2", "y2")] == ["1.5", "2", "2001.5", "4002"]
    assert (first["image"], first["row"], first["category"]) == ("0, é.jpg", "67", "cat")
    assert first["reason"] == "outlier_area: area 8e+06, median 4050"
    assert (second["row"], second["reason"].split(":")[0]) == ("68", "outlier_area")
    outliers = measure_outliers(table)
    assert [float(first["how_far"]), float(second["how_far"])] == [
        pytest.approx(outlier.deviations, abs=0.005) for outlier in outliers
    ]


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=80))
def test_images_of_high_loss_fall_off_in_order_and_lie_above_the_median(values):
    table = label_table(num_images=len(values))

    suspects = find_suspects(table, dict(zip(table.image_ids, values, strict=True)))

    losses = [values[suspect.row] for suspect in suspects]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == min(MOST_IMAGES, sum(value > np.median(values) for value in values))
    assert all(suspect.how_far > 0 and suspect.box is None for suspect in suspects)


def test_how_far_a_loss_is_as_computed_by_hand():
    # Quartiles e, e^2, e^3: one robust deviation of the logarithm is 2 / 1.349.
    values = [1, math.e, math.e**2, math.e**3, math.e**4]
    table = label_table(num_images=5)

    suspects = find_suspects(table, dict(zip(table.image_ids, values, strict=True)))

    assert [suspect.row for suspect in suspects] == [4, 3]
    assert [suspect.how_far for suspect in suspects] == pytest.approx([1.349, 1.349 / 2])
    assert suspects[0].reason == "high_loss: 54.6, median 7.389"


def test_boxes_and_images_share_one_order():
    table = label_table([*usual_boxes(), [0, 0, 2000, 4000]], num_images=40)
    losses = {key: 1.0 + index / 100 for index, key in enumerate(table.image_ids)}
    losses[100 + 3] = 1e9

    suspects = find_suspects(table, losses)

    assert [suspect.reason.split(":")[0] for suspect in suspects][:3] == [
        *("high_loss", "outlier_area", "high_loss")
    ]
    assert suspects[0].image == "3, é.jpg"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_image_without_a_number_comes_first(tmp_path, bad):
    table = label_table(num_images=6)
    losses = {key: float(key) for key in table.image_ids} | {102: bad}

    write_suspects(tmp_path / "a.csv", find_suspects(table, losses))

    first = read(tmp_path / "a.csv")[0]
    assert (first["row"], first["how_far"], first["x1"]) == ("2", "inf", "")
    assert first["reason"].startswith(f"high_loss: {bad}")


def test_images_that_no_model_has_seen_are_not_listed():
    table = label_table(num_images=6)

    assert find_suspects(table, {}) == []
    assert [each.row for each in find_suspects(table, {101: 1.0, 104: 2.0})] == [4]


def test_nothing_suspicious_leaves_the_header_alone(tmp_path):
    write_suspects(tmp_path / "a.csv", find_suspects(label_table(usual_boxes())))

    assert (tmp_path / "a.csv").read_text() == ",".join(HEADER) + "\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "no").touch()
    with pytest.raises(UserError, match="cannot write .*no/a.csv"):
        write_suspects(tmp_path / "no/a.csv", [])


def test_names_are_no_formulas_in_a_spreadsheet(tmp_path):
    name = "=cmd|' /C calc'!A0.jpg"
    write_suspects(tmp_path / "a.csv", [Suspect(name, 1, (-5, 2, 3, 4), "-", "outlier_area", 9.0)])

    (line,) = read(tmp_path / "a.csv")

    assert (line["image"], line["category"], line["x1"]) == (f"'{name}", "'-", "-5")
