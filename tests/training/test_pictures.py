"""What the pictures of a run are made of."""

from pathlib import Path

import pytest
import torch

from d2pd.config import load_config
from d2pd.d2 import Boxes, EventStorage, Instances
from d2pd.modeling.build import build_model
from d2pd.modeling.segmentation import segmentation_losses
from d2pd.training.pictures import painted_masks

QUICK = Path(__file__).resolve().parents[2] / "configs/quick"


def sample(height, width):
    instances = Instances((height, width))
    boxes = [[20.0, 30, 60, 120], [100, 40, 108, 58]]
    instances.gt_boxes = Boxes(torch.tensor(boxes))
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return {
        "image": torch.zeros(1, height, width, dtype=torch.uint8),
        "instances": instances,
        "ignore_boxes": torch.tensor([[70.0, 10, 90, 60]]),
    }


@pytest.mark.parametrize("other_sizes", ["paint", "background", "ignore"])
def test_masks_are_those_that_the_model_learns(other_sizes, monkeypatch):
    learnt = []
    monkeypatch.setattr(
        "d2pd.modeling.ssd_seg.segmentation_losses",
        lambda logits, masks, *rest: (
            learnt.append(masks) or segmentation_losses(logits, masks, *rest)
        ),
    )
    opts = ["MODEL.DEVICE", "cpu", "MODEL.SSD.SEG.OTHER_SIZES", other_sizes]
    cfg = load_config(QUICK / "ssd_seg_synthetic.yaml", opts)
    samples = [sample(256, 320), sample(160, 200)]
    model = build_model(cfg)
    painted = painted_masks(cfg, samples)
    assert [mask.shape for mask in painted[0].values()] == [(32, 40), (16, 20)]
    for one, masks in zip(samples, painted, strict=True):
        with EventStorage(0):
            model.train()([one])
        assert list(masks) == list(learnt[-1])
        for name, mask in masks.items():
            assert torch.equal(torch.from_numpy(mask), learnt[-1][name][0])
            assert set(mask.ravel().tolist()) == {0, 1, 255}


def test_model_without_segmentation_layers_has_no_masks():
    cfg = load_config(QUICK / "ssd_seg_synthetic.yaml", ["MODEL.SSD.SEG.MAPS", "[]"])
    assert painted_masks(cfg, [sample(256, 320)]) == []
    assert painted_masks(load_config(QUICK / "faster_rcnn_synthetic.yaml"), [sample(9, 9)]) == []
