import cv2
import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from d2pd.data.augmentation.photometry import PhotometricDistort, adjust, turn_hue
from d2pd.data.modality import Channels

VISIBLE = Channels(3, 0)


def picture(channels: int = 3, height: int = 40, width: int = 50) -> tv_tensors.Image:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.float32)
    stretched = ((smooth - smooth.mean()) * 4 + 120).clip(0, 255).astype(np.uint8)
    planes = torch.from_numpy(stretched).permute(2, 0, 1)
    return tv_tensors.Image(torch.cat([planes, planes.flip(0)])[:channels].contiguous())


@pytest.mark.parametrize("seed", range(40))
def test_visible_is_torchvisions_distortion_within_a_few_levels(seed):
    image = picture()
    torch.manual_seed(seed)
    theirs = v2.RandomPhotometricDistort()(image)
    torch.manual_seed(seed)
    ours = PhotometricDistort(VISIBLE, "RGB")(image)
    difference = (ours.int() - theirs.int()).abs()
    assert difference.max() <= 8
    assert difference.float().mean() < 1.5


def test_bgr_channels_are_distorted_as_the_same_rgb_ones():
    image = picture()
    for seed in range(20):
        torch.manual_seed(seed)
        rgb = PhotometricDistort(VISIBLE, "RGB")
        params = rgb.make_params([image])
        params["visible"]["channel_permutation"] = None
        one = rgb.transform(image, params)
        other = PhotometricDistort(VISIBLE, "BGR").transform(image.flip(0), params)
        assert torch.equal(one, other.flip(0))


@pytest.mark.parametrize("factor", [0.875, 1.0, 1.125])
def test_brightness_is_torchvisions_exactly(factor):
    image = picture()
    ours = adjust(image.permute(1, 2, 0).contiguous().numpy(), factor, None)
    assert torch.equal(torch.from_numpy(ours).permute(2, 0, 1), F.adjust_brightness(image, factor))


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_contrast_is_torchvisions_within_a_level(factor):
    image = picture()
    ours = adjust(image.permute(1, 2, 0).contiguous().numpy(), None, factor)
    theirs = F.adjust_contrast(image, factor)
    assert (torch.from_numpy(ours).permute(2, 0, 1).int() - theirs.int()).abs().max() <= 1


def test_hue_turns_red_into_what_lies_beside_it():
    red = np.full((1, 1, 3), (255, 0, 0), np.uint8)
    assert turn_hue(red, 0.0).ravel().tolist() == [255, 0, 0]
    # A third of the circle is green, a third back is blue, two steps of 256 wide.
    np.testing.assert_allclose(turn_hue(red, 1 / 3).ravel(), [0, 255, 0], atol=6)
    np.testing.assert_allclose(turn_hue(red, -1 / 3).ravel(), [0, 0, 255], atol=6)
    grey = np.full((1, 1, 3), 77, np.uint8)
    assert turn_hue(grey, 0.05).ravel().tolist() == [77, 77, 77]


def test_thermal_channels_stay_equal_and_keep_their_order_of_levels():
    image = tv_tensors.Image(torch.arange(0, 250, 5, dtype=torch.uint8).expand(3, 4, 50).clone())
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        out = PhotometricDistort(Channels(0, 3), "BGR")(image)
        assert torch.equal(out[0], out[1])
        assert torch.equal(out[0], out[2])
        row = out[0, 0].int()
        assert (row.diff() >= 0).all()
        seen.add(tuple(row.tolist()))
    assert len(seen) > 20
    assert tuple(range(0, 250, 5)) in seen  # a quarter of the pictures stays as it is


def test_one_and_three_thermal_channels_get_the_same():
    image = picture()[1:2].expand(3, -1, -1)
    for seed in range(10):
        torch.manual_seed(seed)
        three = PhotometricDistort(Channels(0, 3), "BGR")(tv_tensors.Image(image))
        torch.manual_seed(seed)
        one = PhotometricDistort(Channels(0, 1), "BGR")(tv_tensors.Image(image[:1]))
        assert one.shape == (1, 40, 50)
        assert torch.equal(three[:1], one)


@pytest.mark.parametrize("lwir", [1, 3])
def test_cameras_are_distorted_each_by_its_own(lwir):
    """The thermal level does not depend on the visible picture, nor the other way round."""
    image, other = picture(3 + lwir), picture(3 + lwir)
    image[3:], other[3:] = 60, 200
    differs = False
    for seed in range(20):
        torch.manual_seed(seed)
        one = PhotometricDistort(Channels(3, lwir), "RGB")(image)
        torch.manual_seed(seed)
        two = PhotometricDistort(Channels(3, lwir), "RGB")(other)
        assert one.shape == (3 + lwir, 40, 50)
        assert torch.equal(one[:3], two[:3])
        torch.manual_seed(seed)
        alone = PhotometricDistort(VISIBLE, "RGB")(tv_tensors.Image(image[:3]))
        assert torch.equal(one[:3], alone)
        assert len(one[3:].unique()) == 1  # even as it was
        differs |= bool((one[3:] != 60).any())
    assert differs


def test_boxes_flags_and_the_given_picture_stay_as_they_are():
    image = picture()
    before = image.clone()
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([[1.0, 2, 3, 4]]), format="XYXY", canvas_size=(40, 50), clamping_mode=None
    )
    flags = torch.tensor([True])
    torch.manual_seed(1)
    sample = {"image": image, "boxes": boxes, "is_region": flags}
    out = PhotometricDistort(VISIBLE, "BGR")(sample)
    assert torch.equal(image, before)
    assert not torch.equal(out["image"], before)
    assert torch.equal(out["boxes"], boxes)
    assert torch.equal(out["is_region"], flags)
