"""What forward and backward of SSDSeg cost at 512 x 640, against torchvision's SSD300.

torchvision's time is scaled by the arithmetic of the two networks, so that 1 means: as fast for
what there is to compute. Both do all of training but the optimizer: anchors, matching, losses.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from drawn import drawn_config, make_parser
from fvcore.nn import FlopCountAnalysis
from measuring import Samples, Turn, compare, time_in_turn, wait_for
from report import OtherWork, report
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16

from d2pd.d2 import CfgNode, EventStorage
from d2pd.data.loader import build_train_dataset, first_samples
from d2pd.modeling.build import build_model

CONFIG = "configs/ssd_seg_kaist.yaml"
LAST = "SSDSeg, channels-last"
OURS, PLAIN, AGAIN = "SSDSeg", "SSDSeg without infusion", "SSDSeg, once more"
THEIRS, SCALED = "torchvision ssd300_vgg16", "ssd300_vgg16, scaled by FLOPs"
PAIRS = [(OURS, SCALED), (PLAIN, SCALED), (OURS, PLAIN), (AGAIN, OURS), (OURS, THEIRS)]
PAIRS += [(LAST, OURS)]
SIDE = 300  # px, of torchvision's input


def main() -> None:
    parser = make_parser(__doc__, repetitions=5, images=4)
    parser.set_defaults(config_file=CONFIG)
    parser.add_argument("--batch", type=int, default=1, help="images in a step")
    args = parser.parse_args()
    # The same backbone on both sides, without batch norm; what the command line says comes last.
    args.opts = ["MODEL.BACKBONE.NAME", "vgg16", *args.opts]
    with drawn_config(args) as cfg, EventStorage(0):
        samples = first_samples(build_train_dataset(cfg), args.images)
        batches = [samples[at : at + args.batch] for at in range(0, args.images, args.batch)]
        measure(args, cfg, batches)


def measure(args: argparse.Namespace, cfg: CfgNode, batches: Sequence[Any]) -> None:
    other_work, wait = OtherWork(), wait_for(cfg.MODEL.DEVICE)
    plain = cfg.clone()
    plain.MODEL.SSD.SEG.MAPS = []
    last = cfg.clone()
    last.MODEL.CHANNELS_LAST = True
    ours, theirs = build_model(cfg).train(), build_theirs(cfg.MODEL.DEVICE)
    flops, of_theirs = flops_of_ours(ours, batches[0]), flops_of_theirs(theirs, len(batches[0]))
    step = training_step(ours, batches)
    variants = {
        OURS: step,
        PLAIN: training_step(build_model(plain).train(), batches),
        AGAIN: step,
        LAST: training_step(build_model(last).train(), batches),
        THEIRS: training_step(theirs, [as_theirs(each, cfg.MODEL.DEVICE) for each in batches]),
    }
    seconds = time_in_turn(
        variants, args.repetitions, warmup=1, clock=args.clock, settle=wait, finish=wait
    )
    seconds[SCALED] = [each * flops / of_theirs for each in seconds[THEIRS]]
    report(
        args,
        cfg,
        data=f"{args.images} drawn pictures, {args.batch} in a step; forward {flops / 1e9:.1f} "
        f"GFLOP (multiply-adds) of SSDSeg, {of_theirs / 1e9:.1f} of ssd300_vgg16",
        rows=compare(seconds, PAIRS, "s"),
        samples={"seconds": seconds, "GFLOP": flops_samples(flops, of_theirs)},
        other_work=other_work,
    )


def training_step(model: nn.Module, batches: Sequence[Any]) -> Turn:
    """Return what makes the forward and backward of a repetition."""

    def run(number: int) -> None:
        model.zero_grad()
        batch = batches[number % len(batches)]
        losses = model(*batch) if isinstance(batch, tuple) else model(batch)
        sum(losses.values()).backward()

    return run


def build_theirs(device: str) -> nn.Module:
    """Build torchvision's SSD300 for one class and background, all of it trained."""
    torch.manual_seed(0)
    model: nn.Module = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=2)
    return model.to(device).train()


def as_theirs(batch: Sequence[Any], device: str) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return samples as torchvision takes them: RGB in 0..1, here of the size it resizes to."""
    images, targets = [], []
    for sample in batch:
        height, width = sample["image"].shape[1:]
        image = sample["image"].to(device, torch.float32)[None] / 255
        image = nn.functional.interpolate(image, (SIDE, SIDE), mode="bilinear")[0]
        images.append(image[:1].expand(3, -1, -1).contiguous())
        scale = torch.tensor([SIDE / width, SIDE / height] * 2)
        boxes = (sample["instances"].gt_boxes.tensor * scale).to(device)
        labels = torch.ones(len(boxes), dtype=torch.int64, device=device)
        targets.append({"boxes": boxes, "labels": labels})
    return images, targets


def flops_of_ours(model: nn.Module, batch: Sequence[Any]) -> float:
    """Count what the network and the segmentation layers multiply and add in a forward pass."""
    preprocess: Callable[..., Any] = model.preprocess_image
    images = preprocess(batch).tensor
    features = dict(zip(model.network.map_channels, model.network(images).features, strict=True))
    heads = (count(head, features[name].detach()) for name, head in model.seg_heads.items())
    return count(model.network, images) + sum(heads)


def flops_of_theirs(model: nn.Module, batch_size: int) -> float:
    images = torch.zeros(batch_size, 3, SIDE, SIDE, device=next(model.parameters()).device)
    features = list(model.backbone(images).values())
    return count(model.backbone, images) + count(model.head, features)


def count(module: nn.Module, inputs: Any) -> float:
    counted = FlopCountAnalysis(module, (inputs,))
    counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return float(counted.total())


def flops_samples(ours: float, theirs: float) -> Samples:
    return {OURS: [ours / 1e9], THEIRS: [theirs / 1e9]}


if __name__ == "__main__":
    main()
