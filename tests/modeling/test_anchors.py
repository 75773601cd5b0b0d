import math

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from d2pd.modeling.anchors import AnchorShapes, make_anchors

SSD300_SIZES = (30, 60, 112.5, 165, 217.5, 270)
SSD300 = AnchorShapes(
    sizes=[[size] for size in SSD300_SIZES],
    aspect_ratios=[[1, 2, 1 / 2], *[[1, 2, 1 / 2, 3, 1 / 3]] * 3, [1, 2, 1 / 2], [1, 2, 1 / 2]],
    extra_square_sizes=[
        [math.sqrt(size * following)]
        for size, following in zip(SSD300_SIZES, (*SSD300_SIZES[1:], 300), strict=True)
    ],
)
SSD300_MAPS = [(side, side) for side in (38, 19, 10, 5, 3, 1)]

PEDESTRIAN = AnchorShapes(
    sizes=[[base * 2 ** (k / 3) for k in range(3)] for base in (40, 80, 160, 200, 280, 360)],
    aspect_ratios=[[1, 2]] * 6,
)
PEDESTRIAN_MAPS = [(64, 80), (32, 40), (16, 20), (8, 10), (8, 10), (8, 10)]


def box_at(x: float, y: float, width: float, height: float) -> torch.Tensor:
    return torch.tensor([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def test_ssd300_has_8732_anchors():
    assert SSD300.num_per_position == [4, 6, 6, 6, 4, 4]
    assert make_anchors(SSD300, SSD300_MAPS, (300, 300)).shape == (8732, 4)


def test_the_pedestrian_anchors_are_41760():
    assert PEDESTRIAN.num_per_position == [6] * 6
    assert make_anchors(PEDESTRIAN, PEDESTRIAN_MAPS, (512, 640)).shape == (41760, 4)


@pytest.mark.parametrize(
    ("index", "x", "y", "width", "height"),
    [
        (0, 150 / 38, 150 / 38, 30, 30),  # conv4_3, top left
        (1, 150 / 38, 150 / 38, 30 / math.sqrt(2), 30 * math.sqrt(2)),  # upright: ratio 2
        (2, 150 / 38, 150 / 38, 30 * math.sqrt(2), 30 / math.sqrt(2)),
        (3, 150 / 38, 150 / 38, 42.42641, 42.42641),  # sqrt(30 * 60)
        (4, 450 / 38, 150 / 38, 30, 30),  # one column on
        (4 * 38, 150 / 38, 450 / 38, 30, 30),  # one row down
        (5776, 150 / 19, 150 / 19, 60, 60),  # 38 * 38 * 4: the first of conv7
        (5776 + 3, 150 / 19, 150 / 19, 60 / math.sqrt(3), 60 * math.sqrt(3)),
        (8731, 150, 150, 284.60499, 284.60499),  # sqrt(270 * 300)
    ],
)
def test_ssd300_boxes_at_chosen_places(index, x, y, width, height):
    anchors = make_anchors(SSD300, SSD300_MAPS, (300, 300))

    torch.testing.assert_close(anchors[index], box_at(x, y, width, height), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("index", "x", "y", "width", "height"),
    [
        (0, 4, 4, 40, 40),
        (1, 4, 4, 28.284271, 56.568542),  # w/h 1/2
        (4, 4, 4, 63.496042, 63.496042),  # 40 * 2^(2/3)
        (6, 12, 4, 40, 40),  # second column, 8 px on
        (6 * 80, 4, 12, 40, 40),  # second row
        (6 * (64 * 80 - 1), 636, 508, 40, 40),  # bottom right
        (6 * 64 * 80, 8, 8, 80, 80),  # 30720: the first of the second map
        (41759, 608, 480, 404.086341, 808.172683),  # 360 * 2^(2/3) at ratio 2
    ],
)
def test_pedestrian_boxes_at_chosen_places(index, x, y, width, height):
    anchors = make_anchors(PEDESTRIAN, PEDESTRIAN_MAPS, (512, 640))

    torch.testing.assert_close(anchors[index], box_at(x, y, width, height), rtol=0, atol=1e-3)


@pytest.mark.parametrize("image_size", [(300, 300), (256, 256)])
def test_equals_torchvision_where_the_image_is_square(image_size):
    """It has the extra square in the second place, and the wide anchor before the upright one."""
    ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    scales = [size / 300 for size in (*SSD300_SIZES, 300)]
    theirs = DefaultBoxGenerator(ratios, scales=scales, clip=False)(
        ImageList(torch.zeros(1, 3, *image_size), [image_size]),
        [torch.zeros(1, 1, rows, columns) for rows, columns in SSD300_MAPS],
    )[0]
    factor = image_size[0] / 300
    ours = AnchorShapes(
        [[size * factor for size in sizes] for sizes in SSD300.sizes],
        SSD300.aspect_ratios,
        [[size * factor for size in sizes] for sizes in SSD300.extra_square_sizes],
    )

    anchors = make_anchors(ours, SSD300_MAPS, image_size)

    start = 0
    for (rows, columns), number in zip(SSD300_MAPS, ours.num_per_position, strict=True):
        end = start + rows * columns * number
        order = {4: [0, 3, 2, 1], 6: [0, 3, 2, 5, 4, 1]}[number]
        expected = theirs[start:end].reshape(-1, number, 4)[:, order].reshape(-1, 4)
        torch.testing.assert_close(anchors[start:end], expected, rtol=0, atol=1e-3)
        start = end
    assert start == len(theirs) == len(anchors)


def test_area_is_the_square_of_the_size_and_the_ratio_is_height_to_width():
    shapes = AnchorShapes([[50, 70]], [[0.5, 1, 3]])

    widths, heights = shapes.of_maps[0].unbind(1)

    expected = torch.tensor([2500.0] * 3 + [4900.0] * 3, dtype=torch.float64)
    torch.testing.assert_close(widths * heights, expected)
    expected = torch.tensor([0.5, 1, 3] * 2, dtype=torch.float64)
    torch.testing.assert_close(heights / widths, expected)


def test_anchors_are_centred_where_the_map_side_does_not_divide_the_image_side():
    anchors = make_anchors(AnchorShapes([[10]], [[1]]), [(3, 4)], (100, 130))

    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    torch.testing.assert_close(centres[0], torch.tensor([130 / 8, 100 / 6]))
    torch.testing.assert_close(centres[-1], torch.tensor([130 * 7 / 8, 100 * 5 / 6]))


def test_a_map_may_have_squares_alone():
    shapes = AnchorShapes([[], [20]], [[], [1]], [[5, 6], []])

    assert shapes.num_per_position == [2, 1]
    anchors = make_anchors(shapes, [(1, 1), (1, 1)], (10, 10))
    assert anchors.tolist() == [[2.5, 2.5, 7.5, 7.5], [2, 2, 8, 8], [-5, -5, 15, 15]]


def test_lists_of_different_lengths_are_refused_with_their_keys():
    with pytest.raises(
        ValueError,
        match=r"2 in MODEL\.ANCHOR_GENERATOR\.SIZES, 1 in MODEL\.ANCHOR_GENERATOR\.ASPECT_RATIOS, "
        r"2 in MODEL\.SSD\.EXTRA_SQUARE_SIZES",
    ):
        AnchorShapes([[30], [60]], [[1]])
    with pytest.raises(ValueError, match=r"3 in MODEL\.SSD\.EXTRA_SQUARE_SIZES"):
        AnchorShapes([[30], [60]], [[1], [1]], [[5], [], []])


def test_maps_without_a_list_are_refused():
    with pytest.raises(ValueError, match=r"1 maps of features, but MODEL\.ANCHOR_.*SIZES has 6"):
        make_anchors(SSD300, [(38, 38)], (300, 300))


@pytest.mark.parametrize(
    "sizes", [[[0]], [[-3]], [[float("nan")]], [[1e300]], [["a"]], [[True]], [[None]]]
)
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ValueError, match=r"SIZES must be positive numbers of at most 1000000, got"):
        AnchorShapes(sizes, [[1]])


def test_a_map_without_anchors_is_refused():
    with pytest.raises(ValueError, match=r"map 1 has no anchor"):
        AnchorShapes([[30], []], [[1], [1]])
