import importlib.util
import sys

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from d2pd.data.augmentation import pixel_transforms
from d2pd.data.augmentation.pixel_transforms import PixelTransforms
from d2pd.data.modality import Channels
from d2pd.errors import ConfigError, MissingFileError

VISIBLE, LWIR, BOTH = Channels(3, 0), Channels(0, 3), Channels(3, 1)

needs_package = pytest.mark.skipif(
    not importlib.util.find_spec("albumentations"), reason="needs Albumentations"
)


def written(tmp_path, text: str) -> str:
    (tmp_path / "list.yaml").write_text(text)
    return str(tmp_path / "list.yaml")


def picture(channels: int) -> tv_tensors.Image:
    pixels = torch.arange(channels * 70 * 90).remainder(251).to(torch.uint8)
    return tv_tensors.Image(pixels.reshape(channels, 70, 90))


class Recorder:
    """Stands in for a pipeline: keeps what it gets, and adds the seed to the red channel."""

    def __init__(self):
        self.images = []

    def set_random_seed(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.images.append(image.copy())
        image = image.copy()
        image[..., 0] += np.uint8(self.seed % 50)
        return {"image": image}


@pytest.fixture
def recorder(monkeypatch):
    found = Recorder()
    monkeypatch.setattr(pixel_transforms, "load_pipeline", lambda path: found)
    return found


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_pipeline_gets_rgb_and_its_answer_keeps_the_order_of_channels(recorder, image_format):
    image = picture(3)
    out = PixelTransforms("", VISIBLE, image_format)(image)
    red = 0 if image_format == "RGB" else 2
    assert recorder.images[0].shape == (70, 90, 3)
    assert recorder.images[0].flags["C_CONTIGUOUS"]
    assert np.array_equal(recorder.images[0][..., 0], image[red].numpy())
    assert torch.equal(out[red], image[red] + recorder.seed % 50)
    assert torch.equal(out[1], image[1])
    assert isinstance(out, tv_tensors.Image)


def test_cameras_go_through_apart_and_thermal_channels_stay_equal(recorder):
    image = picture(4)
    out = PixelTransforms("", BOTH, "BGR")(image)
    visible, lwir = recorder.images
    assert np.array_equal(visible[..., 0], image[2].numpy())
    assert all(np.array_equal(lwir[..., channel], image[3].numpy()) for channel in range(3))
    assert out.shape == (4, 70, 90)
    # The mean of the three, one of which the seed was added to.
    added = lwir.astype(float)
    added[..., 0] = lwir[..., 0] + np.uint8(recorder.seed % 50)
    assert np.array_equal(out[3].numpy(), added.mean(axis=2).round())


def test_three_thermal_channels_are_equal_afterwards(recorder):
    image = tv_tensors.Image(picture(1).expand(3, -1, -1))
    out = PixelTransforms("", LWIR, "BGR")(image)
    assert out.shape == (3, 70, 90)
    assert torch.equal(out[0], out[1])
    assert torch.equal(out[0], out[2])


def test_package_that_is_not_there_is_one_line_with_the_cure(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(ConfigError, match="cannot be imported.*pip install albumentations") as said:
        PixelTransforms(written(tmp_path, "- Blur"), VISIBLE, "BGR")
    assert "\n" not in str(said.value)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.yaml: No such file.*GaussNoise"):
        PixelTransforms(tmp_path / "none.yaml", VISIBLE, "BGR")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it must hold a list such as '- GaussNoise"),
        ("Blur: {p: 1}", "it must hold a list"),
        ("- Blur: {p: 1}\n  Sharpen: {p: 1}", "is not a name with its arguments"),
        ("- Blur: 5", "is not a name with its arguments"),
        ("- [Blur]", "is not a name with its arguments"),
        ("- 3: {p: 1}", "is not a name with its arguments"),
        ("- !!python/object/apply:os.system ['true']", "not a YAML file of plain values"),
        ("- Blur: {p: 1", "not a YAML file of plain values"),
    ],
)
def test_file_that_is_no_list_of_transforms(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said) as error:
        PixelTransforms(written(tmp_path, text), VISIBLE, "BGR")
    assert "list.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


@needs_package
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- HorizontalFlip", "HorizontalFlip does more than change pixels"),
        ("- RandomCrop: {height: 5, width: 5}", "RandomCrop does more than change pixels"),
        ("- Lambda: {image: os.system}", "Lambda does more than change pixels"),
        ("- CoarseDropout", "CoarseDropout does more than change pixels"),
        ("- Blurr", "has no transform 'Blurr'"),
        ("- cv2", "has no transform 'cv2'"),
        ("- Compose: {transforms: []}", "has no transform 'Compose'"),
        ("- Blur: {blur_limit: large}", "Blur does not take {'blur_limit': 'large'}: "),
        ("- Blur: {strength: 3}", "Blur does not take {'strength': 3}: .*strength"),
        ("- Normalize: {p: 0.01}", r"Normalize makes \(64, 64, 3\) float32 of a"),
        ("- ImageOnlyTransform: {p: 0.01}", "ImageOnlyTransform fails on an image: "),
        ("- FDA: {p: 0.01}", "FDA "),
    ],
)
def test_what_is_no_transform_of_pixels_is_refused(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said) as error:
        PixelTransforms(written(tmp_path, text), VISIBLE, "BGR")
    assert "\n" not in str(error.value)


@needs_package
def test_same_seed_same_pixels_and_another_seed_others(tmp_path):
    path = written(tmp_path, "- GaussNoise: {p: 1}\n- RandomGamma\n- MotionBlur: {p: 0.5}\n")
    first, second = (PixelTransforms(path, BOTH, "BGR") for _ in range(2))
    image = picture(4)
    before = image.clone()

    def draw(transform, seed):
        torch.manual_seed(seed)
        return transform(image)

    forward = [draw(first, seed) for seed in range(6)]
    np.random.seed(3)
    backward = [draw(second, seed) for seed in reversed(range(6))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert one.shape == (4, 70, 90)
        assert one.dtype == torch.uint8
        assert torch.equal(one, other)
    assert len({tuple(one.flatten().tolist()) for one in forward}) == 6
    assert torch.equal(image, before)
