"""Pictures of samples that may be broken in any way."""

import cv2
import numpy as np
import pytest
import torch

from d2pd.d2 import Boxes, Instances
from d2pd.reporting.camera_pictures import displayable
from d2pd.reporting.suspects import MOST_TILES, draw_suspects
from d2pd.training.culprits.sample_faults import find_faults

NAN, INF = float("nan"), float("inf")
GREEN, RED, MAGENTA = (90, 220, 61), (75, 75, 255), (255, 0, 255)  # BGR, as OpenCV reads


def sample(boxes, classes=None, image=None):
    instances = Instances((40, 60))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes or [0] * len(boxes), dtype=torch.int64)
    image = torch.zeros(3, 40, 60, dtype=torch.uint8) if image is None else image
    return {"file_name": "a.png", "row": 3, "image": image, "instances": instances}


def draw(samples, path):
    faults = find_faults(samples, num_classes=2)
    draw_suspects(samples, faults, ("person", "cyclist"), path, "BGR", "Heading")
    return cv2.imread(str(path))


def has(picture, colour):
    return bool((np.abs(picture.astype(int) - colour).sum(axis=2) < 40).sum() > 20)


def test_sound_boxes_are_green_and_none_is_red(tmp_path):
    picture = draw([sample([(5, 5, 30, 30)])], tmp_path / "p.png")
    assert has(picture, GREEN)
    assert not has(picture, RED)


@pytest.mark.parametrize(
    "box",
    [(5, 5, 5, 30), (NAN,) * 4, (5, 5, INF, 30), (-1e38, 5, 1e38, 30), (500, 500, 900, 900)],
)
def test_box_at_fault_is_red_wherever_it_is(tmp_path, box):
    picture = draw([sample([(5, 5, 30, 30), box], classes=[0, 1])], tmp_path / "p.png")
    assert has(picture, GREEN)
    assert has(picture, RED)


def test_class_out_of_range_is_red(tmp_path):
    assert has(draw([sample([(5, 5, 30, 30)], classes=[7])], tmp_path / "p.png"), RED)


def test_pixels_that_are_not_finite_are_magenta(tmp_path):
    image = torch.rand(3, 40, 60) * 255
    image[1, 10:20, 10:20] = NAN
    assert has(draw([sample([], image=image)], tmp_path / "p.png"), MAGENTA)


def test_large_batch_is_drawn_in_part(tmp_path):
    few = draw([sample([])] * MOST_TILES, tmp_path / "few.png")
    many = draw([sample([])] * (MOST_TILES + 9), tmp_path / "many.png")
    assert many.shape == few.shape


def test_8_bit_pixels_are_shown_as_they_are_with_channels_in_order():
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)
    assert displayable(image, "RGB")[0, 0].tolist() == [10, 20, 30]
    assert displayable(image, "BGR")[0, 0].tolist() == [30, 20, 10]
    assert displayable(image[:1], "BGR")[0, 0].tolist() == [10, 10, 10]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 0.5, 1.0], [0, 127, 255]),
        ([-2.0, 0.0, 2.0], [0, 127, 255]),
        ([-3e38, 0.0, 3e38], [0, 127, 255]),
        ([7.0, 7.0, 7.0], [7, 7, 7]),
        ([-7.0, -7.0, -7.0], [128, 128, 128]),
    ],
)
def test_float_pixels_of_any_range_fill_the_8_bits(values, shown):
    image = torch.tensor(values).view(1, 1, 3)
    assert displayable(image, "RGB")[0, :, 0].tolist() == shown


def test_picture_without_one_finite_pixel_is_magenta():
    image = torch.tensor([NAN, INF, -INF]).view(3, 1, 1)
    assert displayable(image, "RGB")[0, 0].tolist() == list(MAGENTA)
