"""A tiny Faster R-CNN whose parameters and images follow from formulas.

Nothing is drawn at random, hence all that it gives is a property of the engine, whatever torch's
generator does.
"""

import math
import zlib
from typing import Any

import torch
from contract_toys import with_model
from torch import Tensor, nn

from d2pd.d2 import Boxes, CfgNode, Instances, build_model

TINY = {
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 300,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 200,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 60,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 30,
    "TEST.DETECTIONS_PER_IMAGE": 60,
}

# Enough places for all anchors and all proposals, so that none is drawn.
ALL_SAMPLED = {
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 100_000,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 1_000,
}


def waves(count: int, key: str) -> Tensor:
    """Return numbers in [-1, 1] that depend on the position and a name alone."""
    phase = zlib.crc32(key.encode()) % 1000
    return torch.sin(torch.arange(1, count + 1, dtype=torch.float64) * 12.9898 + phase)


# Boxes that stay near their anchors, and scores that are not 0 or 1.
SMALL = {"anchor_deltas": 0.03, "objectness_logits": 0.2, "bbox_pred": 0.2, "cls_score": 2.0}


def fill(model: nn.Module) -> None:
    """Set all parameters and buffers of a model by formula."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            numbers = waves(value.numel(), name).reshape(value.shape)
            if value.dim() > 1:
                numbers = numbers * math.sqrt(3.0 / value[0].numel())
                numbers = numbers * next((SMALL[key] for key in SMALL if key in name), 1.0)
            elif name.endswith("running_var"):
                numbers = 1 + 0.2 * numbers
            elif name.endswith("norm.weight"):
                numbers = 0.8 + 0.1 * numbers
            else:
                numbers = 0.05 * numbers
            value.copy_(numbers)


def tiny(cfg: CfgNode, **settings: Any) -> nn.Module:
    model = build_model(with_model(cfg, {**TINY, **settings}))
    fill(model)
    return model


def image(height: int, width: int, key: str) -> Tensor:
    """Return a smooth uint8 picture, (3, H, W)."""
    rows = torch.linspace(0, 3, height, dtype=torch.float64)[:, None]
    columns = torch.linspace(0, 5, width, dtype=torch.float64)
    phase = zlib.crc32(key.encode()) % 7
    layers = [torch.sin(rows * (c + 1) + phase) * torch.cos(columns * (c + 2)) for c in range(3)]
    return (127.5 + 127 * torch.stack(layers)).round().to(torch.uint8)


def inputs(*, labels: bool = True) -> list[dict[str, Any]]:
    """Return two images of different sizes, the second one without an object."""
    first = {"image": image(60, 90, "a"), "height": 120, "width": 180}
    second = {"image": image(64, 50, "b"), "height": 64, "width": 50}
    if labels:
        corners = [
            [10, 8, 26, 40],
            [40, 20, 72, 52],
            [5, 5, 13, 13],
            [60, 4, 76, 20],
            [0, 0, 64, 60],
        ]
        first["instances"] = Instances(
            (60, 90),
            gt_boxes=Boxes(torch.tensor(corners)),
            gt_classes=torch.tensor([0, 1, 0, 1, 0]),
        )
        second["instances"] = Instances(
            (64, 50), gt_boxes=Boxes([]), gt_classes=torch.zeros(0, dtype=torch.int64)
        )
    return [first, second]
