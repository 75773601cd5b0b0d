"""The inference cores: equal to the models that they are read off, whatever the batch."""

import pytest
import torch

from d2pd.config import load_config
from d2pd.modeling.build import ListedCore, build_detector

TINY = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""]
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
        (RCNN, ["MODEL.RPN.PRE_NMS_TOPK_TEST", "20", "MODEL.RPN.POST_NMS_TOPK_TEST", "500"]),
        (SSD, []),
        (SSD, ["MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.SSD.NMS_TYPE", "soft_linear"]),
    ],
)
def test_core_detects_what_the_model_detects_to_the_bit(which, opts, shape):
    model, core = build(which, *opts)
    (image,) = pictures(1, shape, 3 if which is RCNN else 1)

    with torch.no_grad():
        expected = model([{"image": image}])[0]["instances"]
        boxes, scores, classes = core(image[None]).of_image(0)

    assert len(expected) > 0
    assert torch.equal(boxes, expected.pred_boxes.tensor)
    assert torch.equal(scores, expected.scores)
    assert torch.equal(classes, expected.pred_classes)


@pytest.mark.parametrize("which", [RCNN, SSD], ids=["rcnn", "ssd"])
def test_images_of_a_batch_do_not_see_one_another(which):
    _, core = build(which)
    batch = pictures(3, (96, 128), 3 if which is RCNN else 1)

    with torch.no_grad():
        together = core(batch)
        for index, image in enumerate(batch):
            alone = core(image[None])
            for ours, theirs in zip(together.of_image(index), alone.of_image(0), strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
    assert together.counts.min() > 0


def test_without_any_proposal_there_are_no_detections():
    _, core = build(RCNN, "MODEL.PROPOSAL_GENERATOR.MIN_SIZE", "10000")

    with torch.no_grad():
        found = core(pictures(2, (96, 128), 3))

    assert found.counts.tolist() == [0, 0]
    assert found.boxes.shape == (2, 100, 4)
    assert (found.classes == -1).all()


def test_a_model_that_only_has_lists_gives_the_same():
    model, core = build(RCNN)
    batch = pictures(2, (96, 128), 3)

    with torch.no_grad():
        listed, plain = ListedCore(model)(batch), core(batch)

    assert listed.counts.tolist() == plain.counts.tolist()
    for index in range(2):
        for ours, theirs in zip(listed.of_image(index), plain.of_image(index), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
