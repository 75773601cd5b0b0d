import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_anchors import PEDESTRIAN, PEDESTRIAN_MAPS, SSD300, SSD300_MAPS
from torchvision.ops import box_iou

from d2pd.data.annotations import read_kaist_json
from d2pd.data.cleaning import clean_records
from d2pd.modeling.anchor_fit import AnchorFit, best_iou, measure_anchor_fit
from d2pd.modeling.anchors import AnchorShapes, make_anchors


def drawn_boxes(number, image_size, seed):
    """Labels anywhere in the image and over its borders, thin and wide, small and large."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.exp(torch.rand(number, 2, generator=generator) * 5 + 1)
    far = torch.tensor([image_size[1], image_size[0]])
    centres = torch.rand(number, 2, generator=generator) * far
    return torch.cat((centres - sides / 2, centres + sides / 2), dim=1).double()


@pytest.mark.parametrize(
    ("shapes", "map_sizes", "image_size"),
    [
        (SSD300, SSD300_MAPS, (300, 300)),
        (PEDESTRIAN, PEDESTRIAN_MAPS, (512, 640)),
        (AnchorShapes([[20], [90]], [[1, 3], [2]]), [(7, 9), (2, 3)], (110, 170)),
    ],
    ids=["ssd300", "pedestrian", "uneven"],
)
def test_equals_the_comparison_with_every_anchor(shapes, map_sizes, image_size):
    boxes = drawn_boxes(150, image_size, seed=1)
    anchors = make_anchors(shapes, map_sizes, image_size).double()

    found = best_iou(boxes, shapes, map_sizes, image_size)

    torch.testing.assert_close(found, box_iou(boxes, anchors).amax(1).float())


@settings(deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    size=st.floats(1, 200),
    corner=st.tuples(st.integers(-20, 120), st.integers(-20, 120)),
    sides=st.tuples(st.integers(1, 100), st.integers(1, 100)),
)
def test_equals_the_comparison_with_every_anchor_of_any_grid(rows, columns, size, corner, sides):
    """Whole pixels on a canvas of 60 x 60: centres halfway between two positions are frequent."""
    shapes = AnchorShapes([[size]], [[1, 2]])
    x, y = corner
    box = torch.tensor([[x, y, x + sides[0], y + sides[1]]], dtype=torch.float64)
    anchors = make_anchors(shapes, [(rows, columns)], (60, 60)).double()

    found = best_iou(box, shapes, [(rows, columns)], (60, 60))

    torch.testing.assert_close(found, box_iou(box, anchors).amax(1).float())


def test_a_label_that_is_an_anchor_fits_wholly():
    anchors = make_anchors(SSD300, SSD300_MAPS, (300, 300))[::97].double()

    found = best_iou(anchors, SSD300, SSD300_MAPS, (300, 300))

    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-5)


def test_labels_are_measured_at_the_network_input_and_told_by_their_height_in_the_picture():
    """A 20 x 40 px label of a picture twice as large is 10 x 20 px, all of it in a 20 px square."""
    shapes = AnchorShapes([[20]], [[1]])

    fit = measure_anchor_fit(
        {
            (80, 40): torch.tensor([[10.0, 20, 30, 60]]),
            (20, 20): torch.tensor([[0.0, 0, 20, 20], [0, 0, 5, 20]]),
        },
        shapes,
        input_size=lambda size: (size[0] // 2, size[1] // 2) if size[0] > 20 else size,
        map_sizes=lambda size: [(2, 1)] if size[0] > 20 else [(1, 1)],
        iou_threshold=0.5,
    )

    assert fit.heights.tolist() == [40, 20, 20]
    # The squares of the first lie at y 0 to 20 and 20 to 40, the label at 10 to 30: half of it.
    assert fit.best_iou.tolist() == [pytest.approx(100 / 500), 1, pytest.approx(0.25)]
    assert fit.num_anchors == {(40, 20): 2, (20, 20): 1}


def test_bands_by_hand():
    heights = torch.tensor([44.9, 45, 54.9, 55, 114.9, 115, 300], dtype=torch.float64)
    ious = torch.tensor([0.2, 0.3, 0.5, 0.49, 0.7, 0.8, 0.9], dtype=torch.float64)

    bands = {band.name: band for band in AnchorFit(heights, ious, 0.5, {}).bands()}

    assert [band.num_labels for band in bands.values()] == [1, 2, 2, 2, 7]
    assert [band.missed for band in bands.values()] == [1, 0.5, 0.5, 0, pytest.approx(3 / 7)]
    assert bands["45 to 55 px"].median_iou == pytest.approx(0.4)
    assert bands["all"].median_iou == pytest.approx(0.5)


def test_the_table_by_hand():
    heights = torch.tensor([30.0, 40, 200], dtype=torch.float64)
    ious = torch.tensor([0.25, 0.75, 0.5], dtype=torch.float64)

    lines = AnchorFit(heights, ious, 0.6, {}).table().splitlines()

    assert [line.split() for line in lines[1:]] == [
        ["under", "45", "px", "2", "0.50", "50.0", "%"],
        ["45", "to", "55", "px", "0", "-", "-"],
        ["55", "to", "115", "px", "0", "-", "-"],
        ["115", "px", "and", "more", "1", "0.50", "100.0", "%"],
        ["all", "3", "0.50", "66.7", "%"],
    ]
    assert lines[0].endswith("under 0.6")
    assert len({len(line) for line in lines}) == 1


def test_without_labels_there_is_nothing_to_tell():
    fit = measure_anchor_fit(
        {(10, 10): torch.zeros(0, 4)},
        AnchorShapes([[20]], [[1]]),
        input_size=lambda size: size,
        map_sizes=lambda size: [(1, 1)],
        iou_threshold=0.5,
    )

    assert fit.bands()[-1].num_labels == 0
    assert math.isnan(fit.bands()[-1].missed)


def test_maps_without_a_list_are_refused():
    with pytest.raises(ValueError, match=r"1 maps of features, but MODEL\.ANCHOR_.*SIZES has 6"):
        best_iou(torch.zeros(0, 4), SSD300, [(38, 38)], (300, 300))


def test_no_anchor_of_ssd300_overlaps_a_person_of_23_x_55_px_by_more_than_39_percent():
    """At every place of a KAIST frame: why SSD300 misses people."""
    y, x = torch.meshgrid(torch.arange(0, 458, 3), torch.arange(0, 618, 3), indexing="ij")
    corners = torch.stack([x.flatten(), y.flatten()], dim=1).double()
    frame = {(512, 640): torch.cat((corners, corners + torch.tensor([23.0, 55])), dim=1)}

    fits = [
        measure_anchor_fit(
            frame,
            shapes,
            input_size=lambda _, size=size: size,
            map_sizes=lambda _, maps=maps: maps,
            iou_threshold=0.5,
        )
        for shapes, maps, size in (
            (SSD300, SSD300_MAPS, (300, 300)),
            (PEDESTRIAN, PEDESTRIAN_MAPS, (512, 640)),
        )
    ]

    # It lies wholly in an anchor of 21.2 x 42.4 px of the input, wherever it stands.
    inside = (23 * 300 / 640) * (55 * 300 / 512) / 900
    assert inside == pytest.approx(0.386, abs=5e-4)
    assert fits[0].best_iou.amin() == fits[0].best_iou.amax() == pytest.approx(inside)
    assert fits[1].best_iou.amin() > 0.64


@pytest.fixture(scope="module")
def kaist_labels(shared_data):
    records = read_kaist_json(shared_data / "kaist" / "train20.json", None).records
    cleaned, _ = clean_records(records, min_size=1.0)
    assert {(record["height"], record["width"]) for record in cleaned} == {(512, 640)}
    boxes = [a["bbox"] for r in cleaned for a in r["annotations"] if a["category_id"] == 0]
    return {(512, 640): torch.tensor(boxes, dtype=torch.float64)}


@pytest.mark.parametrize(
    ("shapes", "map_sizes", "image_size", "missed", "medians"),
    [
        (
            SSD300,
            SSD300_MAPS,
            (300, 300),
            [100, 99.60, 26.27, 10.18, 50.14],
            [0.195, 0.320, 0.575, 0.597, 0.500],
        ),
        (
            PEDESTRIAN,
            PEDESTRIAN_MAPS,
            (512, 640),
            [82.80, 0.10, 0.02, 0.35, 14.59],
            [0.400, 0.647, 0.779, 0.771, 0.736],
        ),
    ],
    ids=["ssd300", "pedestrian"],
)
def test_fit_on_all_kaist_training_labels(
    kaist_labels, shapes, map_sizes, image_size, missed, medians
):
    """As measured; every label with every anchor, in float32, gave the same to 2e-6."""
    bands = measure_anchor_fit(
        kaist_labels,
        shapes,
        input_size=lambda _: image_size,
        map_sizes=lambda _: map_sizes,
        iou_threshold=0.5,
    ).bands()

    assert [band.num_labels for band in bands] == [4057, 4210, 11458, 3428, 23153]
    assert [100 * band.missed for band in bands] == pytest.approx(missed, abs=0.006)
    assert [band.median_iou for band in bands] == pytest.approx(medians, abs=6e-4)


def test_real_labels_equal_the_comparison_with_every_anchor(kaist_labels):
    boxes = kaist_labels[512, 640][::150]
    anchors = make_anchors(PEDESTRIAN, PEDESTRIAN_MAPS, (512, 640)).double()

    found = best_iou(boxes, PEDESTRIAN, PEDESTRIAN_MAPS, (512, 640))

    assert len(boxes) == 155
    torch.testing.assert_close(found, box_iou(boxes, anchors).amax(1).float())
