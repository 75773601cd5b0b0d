"""A small SSDSeg and samples for it."""

from typing import Any

import torch

from d2pd.config import load_config
from d2pd.d2 import Boxes, CfgNode, Instances
from d2pd.modeling.build import build_model

SMALL = {
    "MODEL.META_ARCHITECTURE": "SSDSeg",
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "vgg_light",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.ROI_HEADS.NUM_CLASSES": 2,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16.0, 24.0], [40.0], [64.0]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[2.0, 1.0], [2.0], [1.0]],
    "MODEL.SSD.EXTRA_LAYERS": [[16, 32, 2, 1]],
    "MODEL.SSD.SEG.MAPS": [True, True, False],
}
"""Maps conv4_3 (4 anchors), conv7 (1) and conv8_2 (1)."""


def make_cfg(**overrides: Any) -> CfgNode:
    """The configuration of the small model; dots of keys are written as two underscores."""
    settings = SMALL | {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config("", [word for key, value in settings.items() for word in (key, str(value))])


def make_model(seed: int = 0, **overrides: Any) -> Any:
    torch.manual_seed(seed)
    return build_model(make_cfg(**overrides))


def sample(
    boxes=((10.0, 12.0, 40.0, 60.0),), classes=(1,), regions=None, size=(72, 96), channels=3
):
    """A sample in training; without ``boxes`` (None) one of inference."""
    made = {"image": torch.randint(0, 256, (channels, *size), dtype=torch.uint8)}
    if boxes is not None:
        instances = Instances(size)
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.gt_classes = torch.tensor(classes[: len(boxes)], dtype=torch.int64)
        made["instances"] = instances
    if regions is not None:
        made["ignore_boxes"] = torch.tensor(regions, dtype=torch.float32).reshape(-1, 4)
    return made
