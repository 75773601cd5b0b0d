"""Faster R-CNN R50-FPN: d2pd's engine against Detectron2's, where installed, and torchvision's.

Training steps (forward, backward, SGD) and detection on the same drawn pictures of 512 x 640, in
memory. Both engines get one state; torchvision's model is another one (it normalises and resizes
to the same size itself) with as many proposals.
"""

import argparse
import copy
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from drawn import drawn_config, make_parser
from measuring import Turn, compare, time_in_turn, wait_for
from report import OtherWork, report
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from d2pd.d2 import CfgNode, build_embedded_model
from d2pd.data.loader import build_train_dataset, first_samples

CONFIG = "configs/faster_rcnn_kaist.yaml"
OURS, AGAIN, THEIRS, TORCHVISION = "embedded", "embedded, once more", "Detectron2", "torchvision"
LAST = "embedded, channels-last"
TRAINING, DETECTION = "training step", "detection"
SIZE = (512, 640)  # px, of what the network gets

Sample = dict[str, Any]


def main() -> None:
    parser = make_parser(__doc__, repetitions=7, images=4)
    parser.set_defaults(config_file=CONFIG)
    parser.add_argument("--batch", type=int, default=1, help="images in a step")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("H", "W"))
    args = parser.parse_args()
    with drawn_config(args) as cfg, open_storages():
        cfg.INPUT.FIXED_SIZE, cfg.SOLVER.IMS_PER_BATCH = tuple(args.size), args.batch
        samples = first_samples(build_train_dataset(cfg), args.images)
        batches = [samples[at : at + args.batch] for at in range(0, args.images, args.batch)]
        measure(args, cfg, batches)


def measure(args: argparse.Namespace, cfg: CfgNode, batches: Sequence[list[Sample]]) -> None:
    models = build_models(cfg, batches[0])
    variants: dict[str, Turn] = {}
    for name, (model, as_its_own) in models.items():
        inputs = [as_its_own(batch) for batch in batches]
        variants[f"{name}: {TRAINING}"] = training(model, inputs)
        variants[f"{name}: {DETECTION}"] = detection(model, inputs)
    for work in (TRAINING, DETECTION):
        variants[f"{AGAIN}: {work}"] = variants[f"{OURS}: {work}"]
    other_work, wait = OtherWork(), wait_for(cfg.MODEL.DEVICE)
    turns = {"clock": args.clock, "settle": wait, "finish": wait}
    seconds = time_in_turn(variants, args.repetitions, warmup=1, **turns)
    pairs = [
        (f"{OURS}: {work}", f"{other}: {work}")
        for work in (TRAINING, DETECTION)
        for other in (THEIRS, TORCHVISION)
        if other in models
    ]
    pairs += [
        (f"{name}: {work}", f"{OURS}: {work}")
        for name in (LAST, AGAIN)
        for work in (TRAINING, DETECTION)
    ]
    height, width = args.size
    report(
        args,
        cfg,
        data=f"{args.images} drawn pictures of {height} x {width}, {args.batch} at a time, "
        "random weights",
        rows=compare(seconds, pairs, "s"),
        samples={"seconds": seconds},
        other_work=other_work,
    )


def open_storages() -> ExitStack:
    """Open a storage of each engine: each reports to its own."""
    from d2pd.embedded.events import EventStorage

    storages = ExitStack()
    storages.enter_context(EventStorage(0))
    if has_detectron2():
        from detectron2.utils.events import EventStorage as OfDetectron2

        storages.enter_context(OfDetectron2(0))
    return storages


def has_detectron2() -> bool:
    return importlib.util.find_spec("detectron2") is not None


def build_models(
    cfg: CfgNode, batch: list[Sample]
) -> dict[str, tuple[nn.Module, Callable[[list[Sample]], Any]]]:
    """Return models by name, with what makes their inputs of samples."""
    torch.manual_seed(cfg.SEED)
    ours = build_embedded_model(cfg)
    calibrate(ours, batch)
    models: dict[str, tuple[nn.Module, Callable[[list[Sample]], Any]]] = {
        OURS: (ours, as_embedded),
        LAST: (copy.deepcopy(ours).to(memory_format=torch.channels_last), as_embedded),
        TORCHVISION: (build_torchvision(cfg), lambda batch: as_torchvision(batch, cfg)),
    }
    if has_detectron2():
        from detectron2.modeling import build_model

        theirs = build_model(cfg)
        theirs.load_state_dict(ours.state_dict())
        models[THEIRS] = (theirs, as_detectron2)
    return models


@torch.no_grad()
def calibrate(model: nn.Module, batch: list[Sample]) -> None:
    """Give frozen norms the statistics of a batch: else random weights explode."""

    def take_over(norm: Any, inputs: Any) -> None:
        norm.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
        norm.running_var.copy_(inputs[0].var(dim=(0, 2, 3)))

    frozen = [each for each in model.modules() if type(each).__name__ == "FrozenBatchNorm2d"]
    hooks = [norm.register_forward_pre_hook(take_over) for norm in frozen]
    prepared: Any = model.preprocess_image
    model.backbone(prepared(as_embedded(batch)[0]).tensor)
    for hook in hooks:
        hook.remove()


def build_torchvision(cfg: CfgNode) -> nn.Module:
    """Build torchvision's model; it lays as many anchors and takes as many proposals."""
    height, width = cfg.INPUT.FIXED_SIZE
    rpn = cfg.MODEL.RPN
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=5 - cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    model: nn.Module = FasterRCNN(
        backbone,
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1,
        min_size=min(height, width),
        max_size=max(height, width),
        rpn_pre_nms_top_n_train=rpn.PRE_NMS_TOPK_TRAIN,
        rpn_pre_nms_top_n_test=rpn.PRE_NMS_TOPK_TEST,
        rpn_post_nms_top_n_train=rpn.POST_NMS_TOPK_TRAIN,
        rpn_post_nms_top_n_test=rpn.POST_NMS_TOPK_TEST,
        rpn_batch_size_per_image=rpn.BATCH_SIZE_PER_IMAGE,
        box_batch_size_per_image=cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE,
    )
    return model.to(cfg.MODEL.DEVICE)


def as_embedded(batch: list[Sample]) -> tuple[Any]:
    from d2pd.embedded.boxes import Boxes
    from d2pd.embedded.instances import Instances

    return (as_engine(batch, Boxes, Instances),)


def as_detectron2(batch: list[Sample]) -> tuple[Any]:
    from detectron2.structures import Boxes, Instances

    return (as_engine(batch, Boxes, Instances),)


def as_engine(batch: list[Sample], boxes: Any, instances: Any) -> list[Sample]:
    """Return samples with the labels as an engine writes them."""
    return [
        {
            **sample,
            "instances": instances(
                tuple(sample["image"].shape[1:]),
                gt_boxes=boxes(sample["instances"].gt_boxes.tensor.clone()),
                gt_classes=sample["instances"].gt_classes,
            ),
        }
        for sample in batch
    ]


def as_torchvision(
    batch: list[Sample], cfg: CfgNode
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return images in 0..1 and labels counted from 1."""
    device = cfg.MODEL.DEVICE
    images = [sample["image"].to(device, torch.float32) / 255 for sample in batch]
    targets = [
        {
            "boxes": sample["instances"].gt_boxes.tensor.to(device),
            "labels": sample["instances"].gt_classes.to(device) + 1,
        }
        for sample in batch
    ]
    return images, targets


def training(model: nn.Module, inputs: Sequence[tuple[Any, ...]]) -> Turn:
    """Return what makes a step, at a learning rate of 0, so that the weights stay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)

    def run(number: int) -> None:
        model.train()
        torch.manual_seed(number)
        optimizer.zero_grad()
        losses = model(*inputs[number % len(inputs)])
        sum(losses.values()).backward()
        optimizer.step()

    return run


def detection(model: nn.Module, inputs: Sequence[tuple[Any, ...]]) -> Turn:
    """Return what detects on the images of a batch."""

    def run(number: int) -> None:
        model.eval()
        with torch.no_grad():
            model(inputs[number % len(inputs)][0])

    return run


if __name__ == "__main__":
    main()
