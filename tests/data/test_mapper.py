import copy
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from d2pd.data.augmentation import make_augmentation
from d2pd.data.augmentation.sizes import ShortestEdge
from d2pd.data.mapper import Mapper
from d2pd.data.modality import Channels
from d2pd.errors import AnnotationError, MissingFileError

UNCHANGED = make_augmentation(ShortestEdge([0], 1))
DRAWN = make_augmentation(
    ShortestEdge([40, 80], 200, "range"), flip="horizontal", crop=("relative", (0.8, 1))
)


def annotation(bbox, category_id=0, **more):
    return {
        "bbox": list(bbox),
        "bbox_mode": 0,
        "category_id": category_id,
        "iscrowd": 0,
        "ignore": 0,
        **more,
    }


@pytest.fixture
def record(tmp_path: Path) -> dict:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[10:30, 20:40] = (200, 100, 50)
    cv2.imwrite(str(tmp_path / "bild ä.png"), pixels)
    cv2.imwrite(str(tmp_path / "warm.png"), 255 - pixels[..., 0])
    return {
        "file_name": str(tmp_path / "bild ä.png"),
        "lwir_file_name": str(tmp_path / "warm.png"),
        "image_id": 7,
        "height": 60,
        "width": 80,
        "annotations": [
            annotation([20, 10, 40, 30], 2),
            annotation([0, 0, 15, 15], -1, ignore=1, iscrowd=1),
            annotation([50, 5, 90, 70], 1),
            annotation([3, 3, 3.5, 40], 0),
        ],
    }


def mapper(**changes) -> Mapper:
    values = {"channels": Channels(3, 0), "image_format": "BGR", "is_train": True, "seed": 3}
    return Mapper(**({"transforms": UNCHANGED} | values | changes))


def test_sample_k_does_not_depend_on_the_past(record):
    first, second = mapper(transforms=DRAWN), mapper(transforms=DRAWN)
    forward = [first(record, k) for k in range(6)]
    torch.rand(17)
    backward = [second(record, k) for k in reversed(range(6))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)
    assert len({sample["image"].shape for sample in forward}) > 1


def test_seeds_have_augmentations_of_their_own(record):
    shapes = {mapper(transforms=DRAWN, seed=seed)(record, 0)["image"].shape for seed in range(8)}
    assert len(shapes) > 3


def test_drawing_leaves_the_generator_of_the_process_alone(record):
    torch.manual_seed(5)
    mapper(transforms=DRAWN)(record, 0)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


def test_boxes_stay_on_what_they_are_around(record):
    brightest = 0
    for k in range(12):
        sample = mapper(transforms=DRAWN)(record, k)
        box = sample["instances"].gt_boxes.tensor[sample["instances"].gt_classes == 2][0]
        x1, y1, x2, y2 = (box + torch.tensor([2, 2, -2, -2])).round().int().tolist()
        inside = sample["image"][0, y1:y2, x1:x2]
        outside = sample["image"][0].clone()
        outside[max(0, y1 - 5) : y2 + 5, max(0, x1 - 5) : x2 + 5] = 0
        assert inside.min() > 150
        assert outside.max() < 30
        brightest = max(brightest, int(inside.max()))
    assert brightest == 200


def test_targets_by_hand(record):
    sample = mapper()(record, 0)
    assert sample["instances"].image_size == (60, 80)
    assert sample["instances"].gt_boxes.tensor.tolist() == [[20, 10, 40, 30], [50, 5, 80, 60]]
    assert sample["instances"].gt_boxes.tensor.dtype == torch.float32
    assert sample["instances"].gt_classes.tolist() == [2, 1]
    assert sample["instances"].gt_classes.dtype == torch.int64
    assert sample["ignore_boxes"].tolist() == [[0, 0, 15, 15]]
    assert (sample["height"], sample["width"], sample["image_id"], sample["k"]) == (60, 80, 7, 0)


def test_image_is_uint8_in_the_order_of_channels_asked_for(record):
    bgr = mapper()(record, 0)["image"]
    rgb = mapper(image_format="RGB")(record, 0)["image"]
    assert bgr.dtype == torch.uint8
    assert type(bgr) is torch.Tensor
    assert bgr.shape == (3, 60, 80)
    assert bgr[:, 20, 30].tolist() == [200, 100, 50]
    assert torch.equal(rgb, bgr.flip(0))


def test_thermal_image_has_three_equal_channels(record):
    sample = mapper(channels=Channels(0, 3))(record, 0)
    assert sample["file_name"] == record["lwir_file_name"]
    assert sample["image"][:, 20, 30].tolist() == [55, 55, 55]
    assert torch.equal(sample["image"][0], sample["image"][2])


@pytest.mark.parametrize(
    ("channels", "pixel"),
    [
        (Channels(0, 1), [55]),
        (Channels(3, 1), [50, 100, 200, 55]),
        (Channels(3, 3), [50, 100, 200, 55, 55, 55]),
    ],
)
def test_visible_channels_come_first_and_thermal_ones_are_one_or_three(record, channels, pixel):
    image = mapper(channels=channels, image_format="RGB")(record, 0)["image"]
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert image.shape == (channels.total, 60, 80)
    assert image[:, 20, 30].tolist() == pixel


def test_sample_of_a_pair_names_both_files(record):
    sample = mapper(channels=Channels(3, 1))(record, 0)
    assert sample["file_name"] == record["file_name"]
    assert sample["lwir_file_name"] == record["lwir_file_name"]
    assert "lwir_file_name" not in mapper(channels=Channels(0, 1))(record, 0)


def test_pair_goes_through_geometry_together(record):
    visible, lwir = mapper(), mapper(channels=Channels(0, 1))
    for k in range(4):
        both = mapper(transforms=DRAWN, channels=Channels(3, 1))(record, k)
        for one, part in ((visible, both["image"][:3]), (lwir, both["image"][3:])):
            one.transforms = DRAWN
            assert torch.equal(one(record, k)["image"], part)


def test_pair_of_two_sizes_is_an_error_that_names_both_files(tmp_path, record):
    cv2.imwrite(str(tmp_path / "warm.png"), np.zeros((30, 40), np.uint8))
    with pytest.raises(AnnotationError) as caught:
        mapper(channels=Channels(3, 3))(record, 0)
    assert f"{record['file_name']} is 80x60 pixels, {record['lwir_file_name']} is 40x30" in str(
        caught.value
    )
    assert "replace the one that is wrong" in str(caught.value)
    mapper()(record, 0)


def test_thermal_frame_in_the_place_of_a_visible_one_is_no_pair(record):
    record["file_name"] = record["lwir_file_name"]
    with pytest.raises(AnnotationError, match=r"no visible image, a thermal .* set INPUT.MOD"):
        mapper(channels=Channels(3, 1))(record, 0)
    mapper(channels=Channels(0, 1))(record, 0)


def test_min_box_size_counts_after_the_resize(record):
    enlarged = make_augmentation(ShortestEdge([240], 1000))
    assert len(mapper(transforms=enlarged)(record, 0)["instances"]) == 3
    assert len(mapper(min_box_size=21)(record, 0)["instances"]) == 1


def test_boxes_without_area_never_pass(record):
    record["annotations"] = [annotation([5, 5, 5, 9]), annotation([200, 5, 300, 9])]
    assert len(mapper(min_box_size=0)(record, 0)["instances"]) == 0


def test_every_box_stays_where_none_is_too_small(record):
    bboxes = [[5, 5, 5, 9], [200, 5, 300, 9], [3, 3, 3.5, 40]]
    bboxes += [[float("nan"), 1, 2, 3], [1, 1, float("inf"), 9]]
    record["annotations"] = [annotation([0, 0, 9, 9], -1, ignore=1), *map(annotation, bboxes)]
    boxes = mapper(min_box_size=None)(record, 0)["instances"].gt_boxes.tensor
    assert boxes[:3].tolist() == [[5, 5, 5, 9], [80, 5, 80, 9], [3, 3, 3.5, 40]]
    assert boxes[3].isnan().tolist() == [True, False, False, False]
    assert boxes[4].tolist() == bboxes[4]
    half = make_augmentation(ShortestEdge([30], 100))
    halved = mapper(min_box_size=None, transforms=half)(record, 0)["instances"].gt_boxes.tensor
    assert torch.equal(halved[:3], boxes[:3] / 2)


def test_image_without_objects(record):
    record["annotations"] = []
    sample = mapper(transforms=DRAWN)(record, 0)
    assert sample["instances"].gt_boxes.tensor.shape == (0, 4)
    assert sample["instances"].gt_classes.dtype == torch.int64
    assert sample["ignore_boxes"].shape == (0, 4)


def test_record_stays_as_it_is_and_testing_has_no_targets(record):
    before = copy.deepcopy(record)
    mapper(transforms=DRAWN)(record, 0)
    assert record == before
    sample = mapper(is_train=False)(record, 0)
    assert set(sample) == {"file_name", "image_id", "height", "width", "k", "image"}


def test_transforms_of_torchvision_fit_in(record):
    transforms = v2.Compose([v2.ColorJitter(brightness=0.5), v2.RandomIoUCrop(), UNCHANGED])
    sample = mapper(transforms=transforms)(record, 4)
    assert sample["image"].dtype == torch.uint8
    assert sample["instances"].image_size == tuple(sample["image"].shape[1:])


def test_exif_orientation_turns_the_image_as_the_labels_expect(tmp_path, record):
    from PIL import Image

    picture = Image.new("RGB", (80, 60), "red")
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "phone.jpg", exif=exif)
    record |= {"file_name": str(tmp_path / "phone.jpg"), "height": 80, "width": 60}
    assert mapper()(record, 0)["image"].shape == (3, 80, 60)


def test_errors_name_the_file_and_the_way_out(tmp_path, record):
    record["file_name"] = str(tmp_path / "gone.png")
    with pytest.raises(MissingFileError, match=r"gone\.png: No such file .*label file names this"):
        mapper()(record, 0)
    record["file_name"] = str(tmp_path / "broken.png")
    for content in (b"", b"not a picture"):
        Path(record["file_name"]).write_bytes(content)
        with pytest.raises(AnnotationError, match=r"broken\.png: not an image .*replace the file"):
            mapper()(record, 0)


def test_size_that_is_not_the_recorded_one_is_an_error(record):
    record["height"] = 61
    with pytest.raises(AnnotationError, match="80x60 pixels, its labels were made for 80x61"):
        mapper()(record, 0)


@pytest.mark.parametrize("channels", [Channels(0, 3), Channels(3, 1)])
def test_thermal_of_a_dataset_without_is_an_error(record, channels):
    del record["lwir_file_name"]
    with pytest.raises(AnnotationError, match=r"no thermal images; .*INPUT.MODALITY visible"):
        mapper(channels=channels)(record, 0)


@pytest.mark.skipif(not importlib.util.find_spec("detectron2"), reason="needs Detectron2")
def test_test_time_sample_is_detectron2s_within_two_levels(record):
    from detectron2.config import get_cfg
    from detectron2.data import DatasetMapper

    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = 120
    theirs = DatasetMapper(cfg, is_train=False)(copy.deepcopy(record))["image"]
    resize = make_augmentation(ShortestEdge([120], 1333))
    ours = mapper(transforms=resize, is_train=False)(record, 0)["image"]
    assert ours.shape == theirs.shape
    assert (ours.int() - theirs.int()).abs().max() <= 2
