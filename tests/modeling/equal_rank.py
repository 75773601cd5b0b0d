"""One of two processes whose gradients are to be those of one; see ``two_ranks``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

import torch
import torch.distributed as dist
from ssd_toys import make_model, sample
from torch import nn
from torchvision.ops import FrozenBatchNorm2d
from two_ranks import answer

from d2pd.d2 import Boxes, EventStorage, Instances, build_model, get_cfg
from d2pd.training.processes import in_step_with_others

LABELS = (
    ((10, 12, 40, 60), (50, 20, 62, 44)),
    ((52, 21, 64, 45),),
    (),
    ((5, 5, 30, 50), (31, 8, 44, 40), (60, 10, 70, 40)),
)
"""Those of each image of the batch; the processes take every other one, as the loader does."""


class Frozen(nn.Module):
    """A toy with norms that do not learn; its loss is the mean over images."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = FrozenBatchNorm2d(8)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)
        self.head = nn.Linear(8, 1)

    def forward(self, batch):
        images = torch.stack([each["image"] for each in batch]).double() / 255
        features = self.norm(self.conv(images)).relu().mean(dim=(2, 3))
        targets = images.new_tensor([len(each["instances"]) - 9.0 for each in batch])
        return {"loss_count": (self.head(features)[:, 0] - targets).square().mean()}


def make_frozen():
    torch.manual_seed(3)
    # In float32, sums over the pixels of one or of two images are rounded apart by more than 1e-6.
    return Frozen().double()


def make_ssd_seg():
    model = make_model(MODEL__BACKBONE__NAME="vgg_light").train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def make_faster_rcnn(most_regions=50):
    """Trains on every anchor and every proposal: nothing is sampled.

    All images have ``most_regions`` proposals where that is few; of many, not all have as many.
    """
    cfg = get_cfg()
    levels = ["res2", "res3", "res4", "res5"]
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
            *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
            *("MODEL.RESNETS.OUT_FEATURES", levels, "MODEL.FPN.IN_FEATURES", levels),
            *("MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.FPN.OUT_CHANNELS", 16),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128]]),
            *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"]),
            *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 5000, "MODEL.RPN.POSITIVE_FRACTION", 1.0),
            *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 200, "MODEL.RPN.POST_NMS_TOPK_TRAIN", most_regions),
            *("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.NUM_CLASSES", 2),
            *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
            *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 5000),
            *("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0),
            *("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", False),
            *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 1),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
        ]
    )
    torch.manual_seed(4)
    return build_model(cfg).train()


def make_unequal_faster_rcnn():
    return make_faster_rcnn(most_regions=1000)


MODELS = {
    "frozen": make_frozen,
    "ssd_seg": make_ssd_seg,
    "faster_rcnn": make_faster_rcnn,
    "unequal_faster_rcnn": make_unequal_faster_rcnn,
}


def batch_of(rank=0, world_size=1, like_toys=True):
    """The images ``rank``, ``rank + world_size``, ... of the global batch."""
    batch = []
    for number, boxes in enumerate(LABELS):
        torch.manual_seed(5 + number)
        classes = tuple(index % 2 for index in range(len(boxes)))
        batch.append(sample(boxes, classes) if like_toys else rgb(boxes, classes))
    return batch[rank::world_size]


def rgb(boxes, classes):
    labels = Instances((64, 96))
    labels.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    labels.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return {"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8), "instances": labels}


def step_of(name, wrap=lambda model: model, rank=0, world_size=1):
    """Gradients of a batch, and the weights after one step of SGD."""
    model = MODELS[name]()
    wrapped = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with EventStorage(0):
        losses = wrapped(batch_of(rank, world_size, like_toys=name == "ssd_seg"))
    sum(losses.values()).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    optimizer.step()
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    return {"gradients": gradients, "weights": weights}


def scenarios(folder):
    rank = dist.get_rank()
    for name in MODELS:
        torch.save(step_of(name, in_step_with_others, rank, 2), folder / f"{name}{rank}.pt")
    return {}


if __name__ == "__main__":
    answer(scenarios)
