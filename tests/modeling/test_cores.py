"""The inference cores: equal to the models that they are read off, whatever the batch."""

import pytest
import torch
from torch import nn

from d2pd import d2
from d2pd.config import default_config, load_config
from d2pd.d2 import Boxes, Instances
from d2pd.errors import ConfigError
from d2pd.modeling.build import (
    ListedCore,
    build_detector,
    build_model,
    num_classes_of,
    score_floor_of,
)

TINY = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""]
CASCADE = (
    "configs/quick/cascade_rcnn_synthetic.yaml",
    ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05"],
)
RCNN = ("configs/quick/faster_rcnn_synthetic.yaml", ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05"])
SSD = ("configs/quick/ssd_seg_synthetic.yaml", ["MODEL.SSD.SCORE_THRESH_TEST", "0.3"])
SHAPES = [(96, 128), (64, 65), (131, 77)]


def build(which, *opts):
    torch.manual_seed(0)
    config, own = which
    return build_detector(load_config(config, [*TINY, *own, *opts]))


def pictures(count, shape, channels):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, *shape), dtype=torch.uint8, generator=generator)


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("which", "opts"),
    [
        (RCNN, []),
        (RCNN, ["MODEL.ROI_HEADS.NUM_CLASSES", "3"]),
        (
            RCNN,
            [
                *("MODEL.ROI_HEADS.NUM_CLASSES", "3"),
                *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
                *("MODEL.RPN.POST_NMS_TOPK_TEST", "40", "TEST.DETECTIONS_PER_IMAGE", "7"),
            ],
        ),
        (CASCADE, []),
        (CASCADE, ["MODEL.ROI_HEADS.NUM_CLASSES", "3"]),
        (RCNN, ["MODEL.RPN.PRE_NMS_TOPK_TEST", "20", "MODEL.RPN.POST_NMS_TOPK_TEST", "500"]),
        (SSD, []),
        (SSD, ["MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.SSD.NMS_TYPE", "soft_linear"]),
    ],
)
def test_core_detects_what_the_model_detects_to_the_bit(which, opts, shape):
    model, core = build(which, *opts)
    (image,) = pictures(1, shape, 1 if which is SSD else 3)

    with torch.no_grad():
        expected = model([{"image": image}])[0]["instances"]
        boxes, scores, classes = core(image[None]).of_image(0)

    assert len(expected) > 0
    assert torch.equal(boxes, expected.pred_boxes.tensor)
    assert torch.equal(scores, expected.scores)
    assert torch.equal(classes, expected.pred_classes)


@pytest.mark.parametrize("which", [RCNN, CASCADE, SSD], ids=["rcnn", "cascade", "ssd"])
def test_images_of_a_batch_do_not_see_one_another(which):
    _, core = build(which)
    batch = pictures(3, (96, 128), 1 if which is SSD else 3)

    with torch.no_grad():
        together = core(batch)
        for index, image in enumerate(batch):
            alone = core(image[None])
            for ours, theirs in zip(together.of_image(index), alone.of_image(0), strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
    assert together.counts.min() > 0


@pytest.mark.parametrize("which", [RCNN, CASCADE], ids=["rcnn", "cascade"])
def test_without_any_proposal_there_are_no_detections(which):
    _, core = build(which, "MODEL.PROPOSAL_GENERATOR.MIN_SIZE", "10000")

    with torch.no_grad():
        found = core(pictures(2, (96, 128), 3))

    assert found.counts.tolist() == [0, 0]
    assert found.boxes.shape == (2, 100, 4)
    assert (found.classes == -1).all()


def test_a_model_that_only_has_lists_gives_the_same():
    model, core = build(RCNN)
    batch = pictures(2, (96, 128), 3)

    with torch.no_grad():
        listed, plain = ListedCore(model, "")(batch), core(batch)

    assert listed.counts.tolist() == plain.counts.tolist()
    for index in range(2):
        for ours, theirs in zip(listed.of_image(index), plain.of_image(index), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


class Dense(nn.Module):
    """Gives detections as Detectron2's dense detectors do, which have a ``forward`` alone."""

    def forward(self, batched_inputs):
        found = []
        for number, each in enumerate(batched_inputs):
            instances = Instances(each["image"].shape[-2:])
            instances.pred_boxes = Boxes(torch.ones(number, 4))
            instances.scores = torch.full((number,), 0.5)
            instances.pred_classes = torch.full((number,), 2)
            found.append({"instances": instances})
        return found


def test_a_model_that_has_a_forward_alone_is_asked_image_by_image():
    found = ListedCore(Dense(), "")(pictures(3, (64, 64), 3))

    assert found.counts.tolist() == [0, 1, 2]
    assert found.classes.tolist() == [[-1, -1], [2, -1], [2, 2]]
    assert found.scores.tolist() == [[0, 0], [0.5, 0], [0.5, 0.5]]


def test_a_model_that_finds_no_objects_is_refused():
    class Segments(nn.Module):
        def forward(self, batched_inputs):
            return [{"sem_seg": None} for _ in batched_inputs]

    with pytest.raises(ConfigError, match=r"Segments detects no objects \(it gives sem_seg\)"):
        ListedCore(Segments(), "")(pictures(1, (64, 64), 3))


@pytest.mark.parametrize(
    "error", [KeyError("No object named 'Other' found"), AssertionError("must set\nDEPTH")]
)
def test_what_detectron2_refuses_to_build_is_told_in_one_line(monkeypatch, error):
    def build(cfg):
        raise error

    monkeypatch.setattr(d2, "build_model", build)
    with pytest.raises(ConfigError) as caught:
        build_model(default_config())
    assert str(caught.value).startswith(f"the model cannot be built ({type(error).__name__}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "count", "head", "floor"),
    [
        ("GeneralizedRCNN", 4, "ROI_HEADS", 0.1),
        ("RetinaNet", 5, "RETINANET", 0.2),
        ("SSDSeg", 4, "SSD", 0.3),
    ],
)
def test_classes_and_least_score_are_those_of_the_head_that_the_model_has(
    architecture, count, head, floor
):
    cfg = default_config()
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 4, 0.1
    cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 5, 0.2
    cfg.MODEL.SSD.SCORE_THRESH_TEST = 0.3
    assert num_classes_of(cfg) == count
    assert score_floor_of(cfg) == (f"MODEL.{head}.SCORE_THRESH_TEST", floor)


@pytest.mark.parametrize("which", [RCNN, SSD])
def test_channels_last_is_a_layout_of_the_same_numbers(which):
    layout = ["MODEL.CHANNELS_LAST", "True"]
    (plain, core), (other, other_core) = build(which), build(which, *layout)
    convs = [each for each in other.modules() if isinstance(each, nn.Conv2d)]
    assert all(each.weight.is_contiguous(memory_format=torch.channels_last) for each in convs)
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in plain.state_dict().items()
    )
    images = pictures(2, (96, 128), len(plain.pixel_mean)).float()
    with torch.no_grad():
        found, again = core(images), other_core(images)
    assert found.counts.min() > 0
    torch.testing.assert_close(again.scores, found.scores, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again.boxes, found.boxes, atol=1e-2, rtol=1e-4)
