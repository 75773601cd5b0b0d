import importlib.util
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from d2pd.config_keys import default_config
from d2pd.d2 import CfgNode
from d2pd.data.augmentation import build_augmentation, least_visible_share, make_augmentation
from d2pd.data.augmentation.geometry import RandomCrop, Resize, Rotation
from d2pd.data.augmentation.photometry import PhotometricDistort
from d2pd.data.augmentation.sizes import FixedSize, Jittered, ShortestEdge, resized_shape
from d2pd.data.augmentation.window import Crop, IoUCrop, LookThrough, ResizedCrop, ZoomOut
from d2pd.errors import ConfigError, MissingFileError

SIDES = st.integers(1, 2000)


def sample(height: int, width: int, boxes: list[list[float]] = ()) -> dict[str, torch.Tensor]:
    pixels = torch.arange(3 * height * width, dtype=torch.int64).remainder(251)
    return {
        "image": tv_tensors.Image(pixels.to(torch.uint8).reshape(3, height, width)),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            format="XYXY",
            canvas_size=(height, width),
            clamping_mode=None,
        ),
        "is_region": torch.zeros(len(boxes), dtype=torch.bool),
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
    out = Resize(ShortestEdge([200], 1000))(sample(100, 150, [[10, 20, 30, 60]]))
    assert out["image"].shape == (3, 200, 300)
    assert out["boxes"].canvas_size == (200, 300)
    torch.testing.assert_close(
        out["boxes"].as_subclass(torch.Tensor), torch.tensor([[20.0, 40.0, 60.0, 120.0]])
    )


@pytest.mark.parametrize("size", [(64, 30), (40, 50), (1, 1), (21, 23), (113, 161)])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_channels_are_resized_as_they_would_be_alone(channels, size):
    image = torch.randint(0, 256, (channels, 40, 60), dtype=torch.uint8)[..., 3:53]
    out = Resize(FixedSize(*size))({"image": tv_tensors.Image(image)})["image"]
    assert isinstance(out, tv_tensors.Image)
    assert torch.equal(out, F.resize(image, list(size), antialias=True))
    for plane, alone in zip(out, image, strict=True):
        assert torch.equal(plane, F.resize(alone[None], list(size), antialias=True)[0])


def test_length_0_leaves_everything_as_it_is():
    given_sample = sample(30, 40, [[1, 2, 3, 4]])
    out = Resize(ShortestEdge([0], 10))(given_sample)
    assert torch.equal(out["image"], given_sample["image"])
    assert torch.equal(out["boxes"], given_sample["boxes"])


def test_range_draws_both_ends_and_nothing_else():
    resize = Resize(ShortestEdge([4, 6], 100, "range"))
    assert {resize(sample(10, 10))["image"].shape[1] for _ in range(60)} == {4, 5, 6}


def test_choice_draws_every_length_and_nothing_else():
    resize = Resize(ShortestEdge([4, 9], 100, "choice"))
    assert {resize(sample(10, 10))["image"].shape[1] for _ in range(40)} == {4, 9}


@pytest.mark.parametrize("size", [(800, 1000), (256, 320), (333, 416)])
def test_pixels_are_those_of_pillow_within_two_levels(size):
    image = smooth_image(512, 640)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    resize = Resize(ShortestEdge([min(size)], 2000))
    out = resize({"image": tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))})
    got = out["image"].permute(1, 2, 0).numpy()
    assert got.shape == expected.shape
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 0.001


def test_flip_mirrors_boxes_about_the_middle_of_the_image():
    flip = make_augmentation(ShortestEdge([0], 1), flip="horizontal")
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
    # The box around the whole image says where the crop lies in it.
    x1, y1, x2, y2 = (int(side) for side in out["boxes"][0])
    assert (x2 - x1, y2 - y1) == (width, height)
    shown = given_sample["image"][:, -y1 : new_height - y1, -x1 : new_width - x1]
    assert torch.equal(out["image"], shown)


def test_crop_sizes_by_hand():
    assert RandomCrop("relative", (0.5, 0.25)).draw_size((101, 200)) == (51, 50)
    assert RandomCrop("absolute", (300, 50)).draw_size((101, 200)) == (101, 50)
    assert RandomCrop("absolute_range", (300, 400)).draw_size((101, 200)) == (101, 200)
    heights = {RandomCrop("relative_range", (0.5, 0.5)).draw_size((10, 9))[0] for _ in range(200)}
    assert heights == {5, 6, 7, 8, 9, 10}


def test_crop_moves_boxes_and_clips_none():
    torch.manual_seed(0)
    crop = RandomCrop("absolute", (10, 10))
    rows = {tuple(crop(sample(10, 20, [[5, 0, 15, 10]]))["boxes"][0].tolist()) for _ in range(60)}
    assert len(rows) > 5
    assert rows <= {(5 - left, 0, 15 - left, 10) for left in range(11)}


def config(**changes: object) -> CfgNode:
    cfg = default_config()
    values = {"MIN_SIZE_TRAIN": (64, 96), "MAX_SIZE_TRAIN": 128}
    values |= {"MIN_SIZE_TEST": 80, "MAX_SIZE_TEST": 100}
    for name, value in (values | changes).items():
        group, _, key = name.rpartition(".")
        node = cfg.INPUT
        for part in group.split(".") if group else ():
            node = node[part]
        node[key] = value
    return cfg


CROPPED = {"CROP.ENABLED": True, "CROP.TYPE": "relative_range", "CROP.SIZE": [0.5, 0.5]}


def test_testing_only_resizes():
    cfg = config(**CROPPED, **EVERYTHING)
    out = build_augmentation(cfg, is_train=False)(sample(40, 50, [[0, 0, 50, 40]]))
    assert out["image"].shape == (3, 80, 100)
    assert out["boxes"].tolist() == [[0, 0, 100, 80]]


def test_training_crops_first_then_resizes():
    pipeline = build_augmentation(config(**CROPPED), is_train=True)
    shapes = {pipeline(sample(40, 50))["image"].shape for _ in range(30)}
    assert len(shapes) > 3
    assert all(min(shape[1:]) in (64, 96) or max(shape[1:]) == 128 for shape in shapes)


@pytest.mark.parametrize("is_cropped", [False, True])
def test_without_keys_below_aug_it_is_detectron2s_pipeline_bit_by_bit(is_cropped):
    """The same draws, the same torchvision functions, and nothing else."""
    cfg = config(**(CROPPED if is_cropped else {}))
    given_sample = sample(90, 120, [[10.3, 20.1, 50.7, 80.2], [0, 0, 120, 90]])
    for seed in range(12):
        torch.manual_seed(seed)
        out = build_augmentation(cfg, is_train=True)(given_sample)
        torch.manual_seed(seed)
        image, boxes = given_sample["image"], given_sample["boxes"]
        if is_cropped:
            height, width = (
                int(side * (0.5 + float(torch.rand(())) * 0.5) + 0.5) for side in (90, 120)
            )
            top = int(torch.randint(0, 90 - height + 1, ()))
            left = int(torch.randint(0, 120 - width + 1, ()))
            image, boxes = (F.crop(x, top, left, height, width) for x in (image, boxes))
        length = (64, 96)[int(torch.randint(0, 2, ()))]
        size = list(resized_shape(image.shape[1:], length, 128))
        image, boxes = (F.resize(x, size, antialias=True) for x in (image, boxes))
        if float(torch.rand(1)) < 0.5:
            image, boxes = F.horizontal_flip(image), F.horizontal_flip(boxes)
        assert torch.equal(out["image"], image)
        assert torch.equal(out["boxes"], boxes)


def test_fixed_size_takes_the_place_of_the_edges_in_training_and_testing():
    cfg = config(FIXED_SIZE=(30, 70), **CROPPED)
    for is_train in (True, False):
        out = build_augmentation(cfg, is_train)(sample(40, 50, [[0, 0, 50, 40]]))
        assert out["image"].shape == (3, 30, 70)


def test_jitter_is_of_training_alone_and_draws_every_size_between():
    cfg = config(FIXED_SIZE=(100, 200), **{"AUG.SCALE_JITTER": (0.5, 1.5)})
    pipeline = build_augmentation(cfg, is_train=True)
    heights = {pipeline(sample(8, 8))["image"].shape[1:] for _ in range(80)}
    assert min(height for height, _ in heights) < 60
    assert max(height for height, _ in heights) > 140
    assert all(abs(width - 2 * height) <= 1 for height, width in heights)
    assert build_augmentation(cfg, is_train=False)(sample(8, 8))["image"].shape[1:] == (100, 200)


EVERYTHING = {
    "AUG.PHOTOMETRIC": True,
    "AUG.ZOOM_OUT": 4.0,
    "AUG.IOU_CROP": True,
    "AUG.RESIZED_CROP_SCALE": (0.25, 4.0),
    "AUG.ROTATION": 5.0,
    "AUG.SCALE_JITTER": (0.8, 1.2),
}


def test_order_is_pixels_then_geometry_then_size_then_flip():
    steps = build_augmentation(config(**CROPPED, **EVERYTHING), is_train=True).transforms
    kinds = [PhotometricDistort, LookThrough, v2.RandomHorizontalFlip]
    assert [type(step) for step in steps] == kinds
    look = steps[1]
    assert [type(draw) for draw in look.draws] == [Crop, ZoomOut, IoUCrop, ResizedCrop]
    assert look.sizes == Jittered(ShortestEdge((64, 96), 128, "choice"), 0.8, 1.2)
    assert look.fill == look.rotation.fill == (104, 116, 124)


def test_what_is_filled_has_the_mean_whatever_the_photometry_did():
    keys = {"AUG.PHOTOMETRIC": True, "AUG.RESIZED_CROP_SCALE": (4.0, 4.0)}
    pipeline = build_augmentation(config(FIXED_SIZE=(60, 80), **keys), is_train=True)
    rims = set()
    for seed in range(8):
        torch.manual_seed(seed)
        image = pipeline(sample(60, 80))["image"]
        rims |= {tuple(image[:, y, x].tolist()) for y in (0, -1) for x in (0, -1)}
    assert (104, 116, 124) in rims


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, None),
        (CROPPED, None),
        ({"AUG.PHOTOMETRIC": True, "AUG.ZOOM_OUT": 3.0, "AUG.SCALE_JITTER": (0.5, 2.0)}, None),
        ({"AUG.IOU_CROP": True}, 0.25),
        ({"AUG.RESIZED_CROP_SCALE": (0.5, 2.0), "AUG.MIN_VISIBLE": 0.5}, 0.5),
        ({"AUG.ROTATION": 3.0}, 0.25),
    ],
)
def test_share_of_a_label_is_asked_for_where_a_transform_moves_boxes_out(changes, share):
    assert least_visible_share(config(**changes)) == share


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"RANDOM_FLIP": "both"}, "flip must be one of horizontal, vertical, none; got 'both'"),
        ({"MIN_SIZE_TRAIN": ()}, "INPUT.MIN_SIZE_.*lengths must be one or more sizes"),
        (
            {"MIN_SIZE_TRAIN": (9, 5), "MIN_SIZE_TRAIN_SAMPLING": "range"},
            r"range takes two lengths, low and high, got \(9, 5\)",
        ),
        ({**CROPPED, "CROP.SIZE": [0.5, 3]}, r"CROP cannot be used: .*fractions in \(0, 1\]"),
        ({**CROPPED, "CROP.TYPE": "round"}, "crop type must be one of relative_range"),
        ({"FIXED_SIZE": (512,)}, r"INPUT.FIXED_SIZE .*it takes \(height, width\), got \(512,\)"),
        ({"FIXED_SIZE": (512, 0)}, r"FIXED_SIZE .*in whole pixels, 1 to 20000, got \(512, 0\)"),
        ({"FIXED_SIZE": (5.5, 9)}, r"FIXED_SIZE .*in whole pixels, 1 to 20000, got \(5.5, 9\)"),
        ({"FIXED_SIZE": (True, 9)}, r"FIXED_SIZE .*in whole pixels, 1 to 20000, got \(True, 9\)"),
        ({"FIXED_SIZE": (10**6, 9)}, r"FIXED_SIZE .*in whole pixels, 1 to 20000, got \(1000000"),
        ({"AUG.SCALE_JITTER": (1.0, 1e300)}, r"INPUT.AUG.SCALE_JITTER .*1/1000 to 1000, got \(1"),
        ({"AUG.ZOOM_OUT": 1e300}, "INPUT.AUG.ZOOM_OUT .*must be a number from 1 to 1000, got 1e"),
        ({"AUG.SCALE_JITTER": (1.0,)}, r"INPUT.AUG.SCALE_JITTER .*it takes \(low, high\)"),
        ({"AUG.SCALE_JITTER": (1.2, 0.8)}, r"SCALE_JITTER .*0 < low <= high, .*got \(1.2, 0.8\)"),
        ({"AUG.SCALE_JITTER": ("a", "b")}, "INPUT.AUG.SCALE_JITTER cannot be used: "),
        ({"AUG.ZOOM_OUT": 0.5}, "INPUT.AUG.ZOOM_OUT .*must be a number from 1 to 1000, got 0.5"),
        ({"AUG.ZOOM_OUT": float("nan")}, "ZOOM_OUT .*must be a number from 1 to 1000, got nan"),
        ({"AUG.ROTATION": -5.0}, r"INPUT.AUG.ROTATION .*in \[0, 90\] degrees, got -5.0"),
        ({"AUG.RESIZED_CROP_SCALE": (0.5,)}, "RESIZED_CROP_SCALE .*scale takes two numbers"),
        (
            {"AUG.RESIZED_CROP_SCALE": (0.5, 1), "AUG.RESIZED_CROP_RATIO": (0, 1)},
            r"RESIZED_CROP_RATIO cannot be used: .*got \(0, 1\)",
        ),
        ({"AUG.MIN_VISIBLE": 25.0}, r"INPUT.AUG.MIN_VISIBLE is a share .*in \[0, 1\]; got 25.0"),
    ],
)
def test_values_that_cannot_be_used_are_config_errors(changes, text):
    with pytest.raises(ConfigError, match=text):
        build_augmentation(config(**changes), is_train=True)


def test_file_of_transforms_that_is_not_there_is_told_with_its_key():
    with pytest.raises(MissingFileError, match=r"^INPUT.AUG.ALBUMENTATIONS: /none.yaml: No such"):
        build_augmentation(config(**{"AUG.ALBUMENTATIONS": "/none.yaml"}), is_train=True)


@pytest.mark.skipif(not importlib.util.find_spec("detectron2"), reason="needs Detectron2")
@settings(deadline=None, max_examples=300)
@given(height=SIDES, width=SIDES, length=st.integers(1, 1000), max_size=st.integers(100, 1500))
def test_resized_shape_is_detectron2s(height, width, length, max_size):
    from detectron2.data.transforms import ResizeShortestEdge as Theirs

    theirs = Theirs.get_output_shape(height, width, length, max_size)
    assert resized_shape((height, width), length, max_size) == tuple(max(1, s) for s in theirs)


@pytest.mark.parametrize("angle", [0.0, 4.0, -7.5, 60.0, 90.0])
def test_rotation_is_torchvisions_on_a_canvas_that_holds_all(angle):
    given_sample = sample(50, 80, [[10, 5, 30, 45], [0, 0, 80, 50]])
    image = tv_tensors.Image(torch.from_numpy(smooth_image(50, 80)).permute(2, 0, 1).contiguous())
    rotation = Rotation(90.0, (5, 6, 7))
    params = {"angle": angle, "padding": (30, 20)}
    turned = rotation.transform(image, params)
    padded = torch.stack(
        [F.pad(plane[None], [20, 30], fill=5 + at)[0] for at, plane in enumerate(image)]
    )
    bilinear = v2.InterpolationMode.BILINEAR
    expected = F.rotate(padded, angle, interpolation=bilinear, fill=[5, 6, 7])
    difference = (turned.int() - expected.int()).abs()
    # Torchvision blends the rim with black, OpenCV with the fill.
    assert difference.float().mean() < 1.5
    assert (difference > 4).float().mean() < 0.03
    boxes = rotation.transform(given_sample["boxes"], params)
    assert boxes.canvas_size == (110, 120)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    for (x1, y1, x2, y2), got in zip(
        [[10, 5, 30, 45], [0, 0, 80, 50]], boxes.tolist(), strict=True
    ):
        corners = [
            (60 + (x - 40) * cosine + (y - 25) * sine, 55 - (x - 40) * sine + (y - 25) * cosine)
            for x in (x1, x2)
            for y in (y1, y2)
        ]
        xs, ys = zip(*corners, strict=True)
        assert got == pytest.approx([min(xs), min(ys), max(xs), max(ys)], abs=1e-3)


@pytest.mark.parametrize("size", [(50, 80), (80, 50), (33, 33)])
def test_canvas_of_a_rotation_holds_all_corners_and_little_more(size):
    height, width = size
    for seed in range(30):
        torch.manual_seed(seed)
        out = Rotation(90.0, (0, 0, 0))(sample(height, width, [[0, 0, width, height]]))
        new_height, new_width = out["image"].shape[1:]
        assert out["boxes"].canvas_size == (new_height, new_width)
        x1, y1, x2, y2 = out["boxes"][0].tolist()
        assert -1e-3 <= x1
        assert -1e-3 <= y1
        assert x2 <= new_width + 1e-3
        assert y2 <= new_height + 1e-3
        assert new_height - (y2 - y1) <= 2 or new_height == height
        assert new_width - (x2 - x1) <= 2 or new_width == width
