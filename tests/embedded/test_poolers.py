import pytest
import torch

from d2pd.embedded.boxes import Boxes
from d2pd.embedded.poolers import ROIPooler, assign_boxes_to_levels, boxes_with_image_index
from d2pd.errors import ConfigError


def square(side):
    return [0.0, 0.0, side, side]


def test_levels_by_hand():
    sides = [1.0, 55.9, 56.1, 111.9, 112.1, 223.9, 224.1, 447.9, 448.1, 2000.0]
    boxes = Boxes([square(side) for side in sides])
    levels = assign_boxes_to_levels(boxes.tensor, 2, 5, 224, 4)
    assert (levels + 2).tolist() == [2, 2, 2, 2, 3, 3, 4, 4, 5, 5]


def test_a_box_without_area_goes_to_the_finest_level():
    assert assign_boxes_to_levels(torch.tensor([square(0.0)]), 2, 5, 224, 4).tolist() == [0]


def test_boxes_carry_the_index_of_their_image():
    boxes = [Boxes([square(1.0)]), Boxes([]), Boxes([square(2.0), square(3.0)])]
    assert boxes_with_image_index(boxes)[:, [0, 3]].tolist() == [[0, 1], [2, 2], [2, 3]]


def test_aligned_pooling_of_a_ramp_gives_the_ramp():
    # Feature x + 100 y at pixel centres .5, 1.5, ...: the bin centred on c gives c - .5.
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    feature = (x + 100 * y)[None, None]
    pooler = ROIPooler(2, [1.0], 0, "ROIAlignV2")
    pooled = pooler([feature], [Boxes([[2.0, 4.0, 6.0, 8.0]])])
    columns, rows = torch.tensor([2.5, 4.5]), torch.tensor([4.5, 6.5])
    torch.testing.assert_close(pooled[0, 0], columns + 100 * rows[:, None])


def test_old_pooling_is_shifted_by_half_a_pixel():
    feature = torch.arange(16.0).expand(1, 1, 16, 16)
    box = [Boxes([[2.0, 4.0, 6.0, 8.0]])]
    new = ROIPooler(2, [1.0], 0, "ROIAlignV2")([feature], box)
    old = ROIPooler(2, [1.0], 0, "ROIAlign")([feature], box)
    torch.testing.assert_close(old, new + 0.5)


def test_max_pooling_takes_the_largest_value():
    feature = torch.arange(64.0).view(1, 1, 8, 8)
    pooled = ROIPooler(1, [1.0], 0, "ROIPool")([feature], [Boxes([[0.0, 0.0, 3.0, 2.0]])])
    assert pooled.item() == 2 * 8 + 3


def test_every_box_is_pooled_from_its_level_and_image():
    levels = range(2, 6)
    maps = [
        torch.full((2, 1, 512 // 2**k, 512 // 2**k), float(k))
        + torch.tensor([0.0, 10.0]).view(2, 1, 1, 1)
        for k in levels
    ]
    boxes = [Boxes([square(300.0), square(30.0)]), Boxes([square(120.0)])]
    pooled = ROIPooler(7, [2.0**-k for k in levels], 0, "ROIAlignV2")(maps, boxes)
    assert pooled.shape == (3, 1, 7, 7)
    assert pooled.mean(dim=(1, 2, 3)).tolist() == [4.0, 2.0, 13.0]


def test_no_boxes_pool_to_nothing():
    maps = [torch.ones(1, 8, 16, 16), torch.ones(1, 8, 8, 8)]
    assert ROIPooler(7, [1 / 4, 1 / 8], 0, "ROIAlignV2")(maps, [Boxes([])]).shape == (0, 8, 7, 7)


@pytest.mark.parametrize("strides", [[4, 16], [4, 12], [3, 6]])
def test_strides_must_double(strides):
    with pytest.raises(ConfigError, match="powers of 2"):
        ROIPooler(7, [1 / stride for stride in strides], 0, "ROIAlignV2")


def test_unknown_type_lists_the_known():
    with pytest.raises(ConfigError, match="'Crop', allowed are .*ROIAlignV2"):
        ROIPooler(7, [1 / 4], 0, "Crop")


def test_half_precision_features_keep_exact_coordinates():
    feature = (torch.arange(512) % 8).to(torch.bfloat16).expand(1, 1, 4, 512)
    pooled = ROIPooler(1, [1.0], 1, "ROIAlignV2")([feature], [Boxes([[401.0, 0.0, 402.0, 1.0]])])
    # In bfloat16 the box would begin at 400.
    assert pooled.dtype == torch.bfloat16
    assert pooled.item() == 401 % 8
