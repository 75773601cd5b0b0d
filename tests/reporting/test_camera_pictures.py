"""One picture for each camera of an image."""

import pytest
import torch

from d2pd.reporting.camera_pictures import camera_pictures, sample_tiles, short_path
from d2pd.reporting.sheet import LABEL, Mark

PIXEL = torch.tensor([10, 20, 30, 70, 70, 70], dtype=torch.uint8).view(6, 1, 1)


@pytest.mark.parametrize(
    ("channels", "pixels"),
    [
        (slice(3, 4), [[70, 70, 70]]),
        (slice(3, 6), [[70, 70, 70]]),
        (slice(0, 3), [[30, 20, 10]]),
        (slice(0, 4), [[30, 20, 10], [70, 70, 70]]),
        (slice(0, 6), [[30, 20, 10], [70, 70, 70]]),
    ],
)
def test_each_camera_has_a_picture_of_its_own_in_true_colours(channels, pixels):
    pictures = camera_pictures(PIXEL[channels].expand(-1, 4, 5), "BGR")
    assert [picture[0, 0].tolist() for picture in pictures] == pixels
    assert all(picture.shape == (4, 5, 3) for picture in pictures)
    in_rgb = camera_pictures(PIXEL[channels].expand(-1, 4, 5), "RGB")
    assert [picture[0, 0].tolist() for picture in in_rgb] == [
        pixel if pixel[0] == 70 else pixel[::-1] for pixel in pixels
    ]


def test_number_that_is_not_finite_in_one_camera_leaves_the_other_as_it_is():
    image = PIXEL[:4].float().expand(-1, 4, 5).clone()
    image[3, 0, 0] = torch.nan
    visible, lwir = camera_pictures(image, "RGB")
    assert visible[0, 0].tolist() == [10, 20, 30]
    assert lwir[0, 0].tolist() == [255, 0, 255]


@pytest.mark.parametrize("count", [2, 5, 7])
def test_other_numbers_of_channels_are_no_image(count):
    with pytest.raises(ValueError, match=f"1, 3, 4 or 6 channels, got {count}"):
        camera_pictures(torch.zeros(count, 4, 5), "RGB")


def test_both_tiles_of_a_pair_have_the_marks_and_the_name_of_their_file():
    sample = {"image": PIXEL.expand(-1, 4, 5), "lwir_file_name": "/d/set00/V000/lwir/I1.png"}
    mark = Mark([0, 0, 2, 2], LABEL)
    first, second = sample_tiles(sample, "RGB", "row 3", [mark])
    assert (first.caption, second.caption) == ("row 3", "lwir  set00/V000/lwir/I1.png")
    assert first.marks == second.marks == [mark]
    (alone,) = sample_tiles({"image": PIXEL[:3].expand(-1, 4, 5)}, "RGB", "row 3", [])
    assert alone.caption == "row 3"


def test_path_keeps_its_last_four_parts():
    assert short_path("/a/b/set00/V000/lwir/I1.png") == "set00/V000/lwir/I1.png"
    assert short_path("I1.png") == "I1.png"
