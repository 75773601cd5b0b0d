"""Filters for RGB images become filters for a thermal channel, or for both cameras."""

import pytest
import torch

from d2pd.training.weights.first_layer import AVERAGE, adapt_filters, is_first_layer

RGB = (64, 3, 7, 7)


@pytest.mark.parametrize(
    ("model_shape", "expected"),
    [
        ((64, 1, 7, 7), True),
        ((64, 4, 7, 7), True),
        ((64, 6, 7, 7), True),
        ((64, 3, 7, 7), False),  # nothing to do
        ((64, 2, 7, 7), False),  # no images have two channels
        ((32, 4, 7, 7), False),  # of another network
        ((64, 4, 3, 3), False),
        ((64, 4), False),
    ],
)
def test_filters_for_other_channels_are_told_by_their_shape(model_shape, expected):
    assert is_first_layer(RGB, model_shape) is expected


def test_only_filters_for_three_channels_are_adapted():
    assert not is_first_layer((64, 1, 7, 7), (64, 4, 7, 7))
    assert not is_first_layer((64, 6, 7, 7), (64, 4, 7, 7))


@pytest.mark.parametrize(("channels", "visible"), [(1, 0), (4, 3), (6, 3)])
def test_visible_channels_keep_theirs_and_thermal_ones_get_the_average(channels, visible):
    torch.manual_seed(0)
    filters = torch.rand(5, 3, 2, 2)
    adapted = adapt_filters(filters, channels, AVERAGE)
    assert adapted.shape == (5, channels, 2, 2)
    assert torch.equal(adapted[:, :visible], filters[:, :visible])
    for channel in range(visible, channels):
        torch.testing.assert_close(adapted[:, channel], filters.sum(dim=1) / 3)


def test_three_equal_thermal_channels_answer_as_a_grey_picture_did():
    torch.manual_seed(0)
    filters, grey = torch.rand(5, 3, 3, 3), torch.rand(1, 1, 6, 6).expand(-1, 3, -1, -1)
    adapted = adapt_filters(filters, 6, AVERAGE)
    found = torch.nn.functional.conv2d(torch.cat([0 * grey, grey], dim=1), adapted)
    torch.testing.assert_close(found, torch.nn.functional.conv2d(grey, filters))


def test_a_chosen_filter_is_taken_as_it_is():
    filters = torch.arange(12.0).view(1, 3, 2, 2)
    assert torch.equal(adapt_filters(filters, 1, (2,))[0, 0], filters[0, 2])
    assert torch.equal(adapt_filters(filters, 4, (0,))[0, 3], filters[0, 0])
