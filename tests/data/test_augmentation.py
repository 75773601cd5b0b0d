import importlib.util
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors

from d2pd.data.augmentation import (
    RandomCrop,
    ResizeShortestEdge,
    build_augmentation,
    make_augmentation,
    resized_shape,
)
from d2pd.errors import ConfigError

SIDES = st.integers(1, 2000)


def sample(height: int, width: int, boxes: list[list[float]] = ()) -> dict[str, torch.Tensor]:
    pixels = torch.arange(3 * height * width, dtype=torch.int64).remainder(251)
    return {
        "image": tv_tensors.Image(pixels.to(torch.uint8).reshape(3, height, width)),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            format="XYXY",
            canvas_size=(height, width),
        ),
    }


def smooth_image(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


@given(height=SIDES, width=SIDES, length=st.integers(1, 1000), max_size=st.integers(1, 1500))
def test_resized_shape_keeps_to_the_maximum_and_never_vanishes(height, width, length, max_size):
    new = resized_shape((height, width), length, max_size)
    assert min(new) >= 1
    assert max(new) <= max_size
    assert min(new) <= length
    if max(height, width) * length <= max_size * min(height, width):
        assert min(new) == length


@pytest.mark.parametrize(
    ("size", "length", "max_size", "expected"),
    [
        ((512, 640), 800, 1333, (800, 1000)),
        ((416, 416), 800, 1333, (800, 800)),
        ((480, 1280), 800, 1333, (500, 1333)),
        ((1280, 480), 800, 1333, (1333, 500)),
        ((427, 640), 800, 1333, (800, 1199)),
        ((3, 2000), 800, 1333, (2, 1333)),
    ],
)
def test_resized_shape_by_hand(size, length, max_size, expected):
    assert resized_shape(size, length, max_size) == expected


def test_boxes_scale_with_the_image():
    out = ResizeShortestEdge([200], 1000)(sample(100, 150, [[10, 20, 30, 60]]))
    assert out["image"].shape == (3, 200, 300)
    assert out["boxes"].canvas_size == (200, 300)
    torch.testing.assert_close(
        out["boxes"].as_subclass(torch.Tensor), torch.tensor([[20.0, 40.0, 60.0, 120.0]])
    )


def test_length_0_leaves_everything_as_it_is():
    given_sample = sample(30, 40, [[1, 2, 3, 4]])
    out = ResizeShortestEdge([0], 10)(given_sample)
    assert torch.equal(out["image"], given_sample["image"])
    assert torch.equal(out["boxes"], given_sample["boxes"])


def test_range_draws_both_ends_and_nothing_else():
    resize = ResizeShortestEdge([4, 6], 100, "range")
    assert {resize(sample(10, 10))["image"].shape[1] for _ in range(60)} == {4, 5, 6}


def test_choice_draws_every_length_and_nothing_else():
    resize = ResizeShortestEdge([4, 9], 100, "choice")
    assert {resize(sample(10, 10))["image"].shape[1] for _ in range(40)} == {4, 9}


@pytest.mark.parametrize("size", [(800, 1000), (256, 320), (333, 416)])
def test_pixels_are_those_of_pillow_within_two_levels(size):
    image = smooth_image(512, 640)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    resize = ResizeShortestEdge([min(size)], 2000)
    out = resize({"image": tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))})
    got = out["image"].permute(1, 2, 0).numpy()
    assert got.shape == expected.shape
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 0.001


def test_flip_mirrors_boxes_about_the_middle_of_the_image():
    flip = make_augmentation(lengths=[0], max_size=1, flip="horizontal")
    given_sample = sample(8, 20, [[2, 1, 5, 7]])
    seen = set()
    for _ in range(30):
        out = flip(given_sample)
        row = tuple(out["boxes"][0].tolist())
        mirrored = row == (15.0, 1.0, 18.0, 7.0)
        assert mirrored or row == (2.0, 1.0, 5.0, 7.0)
        expected = given_sample["image"].flip(-1) if mirrored else given_sample["image"]
        assert torch.equal(out["image"], expected)
        seen.add(mirrored)
    assert seen == {True, False}


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    kind=st.sampled_from(
        [
            ("relative", (0.5, 0.3)),
            ("relative_range", (0.2, 0.9)),
            ("absolute", (20, 30)),
            ("absolute_range", (5, 40)),
        ]
    ),
)
def test_crop_shows_a_part_of_the_image_and_boxes_keep_their_pixels(height, width, kind):
    given_sample = sample(height, width, [[0, 0, width, height]])
    out = RandomCrop(*kind)(given_sample)
    new_height, new_width = out["image"].shape[-2:]
    assert 1 <= new_height <= height
    assert 1 <= new_width <= width
    # A box around the whole image is, after the crop, one around the whole crop.
    assert out["boxes"].tolist() == [[0, 0, new_width, new_height]]


def test_crop_sizes_by_hand():
    assert RandomCrop("relative", (0.5, 0.25)).draw_size((101, 200)) == (51, 50)
    assert RandomCrop("absolute", (300, 50)).draw_size((101, 200)) == (101, 50)
    assert RandomCrop("absolute_range", (300, 400)).draw_size((101, 200)) == (101, 200)
    heights = {RandomCrop("relative_range", (0.5, 0.5)).draw_size((10, 9))[0] for _ in range(200)}
    assert heights == {5, 6, 7, 8, 9, 10}


def test_crop_moves_and_clips_boxes():
    torch.manual_seed(0)
    crop = RandomCrop("absolute", (10, 10))
    left_edges = set()
    for _ in range(40):
        out = crop(sample(10, 20, [[5, 0, 15, 10]]))
        x1, _, x2, _ = out["boxes"][0].tolist()
        left = 5 - x1 if x1 > 0 else 15 - x2
        assert (x1, x2) == (max(0, 5 - left), min(10, 15 - left))
        left_edges.add(left)
    assert len(left_edges) > 5


def config(**changes: object) -> SimpleNamespace:
    values = {
        "MIN_SIZE_TRAIN": (64, 96),
        "MIN_SIZE_TRAIN_SAMPLING": "choice",
        "MAX_SIZE_TRAIN": 128,
        "MIN_SIZE_TEST": 80,
        "MAX_SIZE_TEST": 100,
        "RANDOM_FLIP": "horizontal",
        "CROP": SimpleNamespace(ENABLED=True, TYPE="relative_range", SIZE=[0.5, 0.5]),
    }
    return SimpleNamespace(INPUT=SimpleNamespace(**(values | changes)))


def test_testing_only_resizes():
    out = build_augmentation(config(), is_train=False)(sample(40, 50, [[0, 0, 50, 40]]))
    assert out["image"].shape == (3, 80, 100)
    assert out["boxes"].tolist() == [[0, 0, 100, 80]]


def test_training_crops_first_then_resizes():
    shapes = {
        build_augmentation(config(), is_train=True)(sample(40, 50))["image"].shape
        for _ in range(30)
    }
    assert len(shapes) > 3
    assert all(min(shape[1:]) in (64, 96) or max(shape[1:]) == 128 for shape in shapes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"RANDOM_FLIP": "both"}, "flip must be one of horizontal, vertical, none; got 'both'"),
        ({"MIN_SIZE_TRAIN": ()}, "lengths must be one or more sizes"),
        (
            {"MIN_SIZE_TRAIN": (9, 5), "MIN_SIZE_TRAIN_SAMPLING": "range"},
            r"range takes two lengths, low and high, got \(9, 5\)",
        ),
        (
            {"CROP": SimpleNamespace(ENABLED=True, TYPE="relative", SIZE=[0.5, 3])},
            r"takes fractions in \(0, 1\]",
        ),
        (
            {"CROP": SimpleNamespace(ENABLED=True, TYPE="round", SIZE=[0.5, 3])},
            "crop type must be one of relative_range",
        ),
    ],
)
def test_values_that_cannot_be_used_are_config_errors(changes, text):
    with pytest.raises(ConfigError, match=text):
        build_augmentation(config(**changes), is_train=True)


@pytest.mark.skipif(not importlib.util.find_spec("detectron2"), reason="needs Detectron2")
@settings(deadline=None, max_examples=300)
@given(height=SIDES, width=SIDES, length=st.integers(1, 1000), max_size=st.integers(100, 1500))
def test_resized_shape_is_detectron2s(height, width, length, max_size):
    from detectron2.data.transforms import ResizeShortestEdge as Theirs

    theirs = Theirs.get_output_shape(height, width, length, max_size)
    assert resized_shape((height, width), length, max_size) == tuple(max(1, s) for s in theirs)
