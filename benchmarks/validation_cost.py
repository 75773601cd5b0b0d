"""What the validation loss costs beside detection, on the same images.

Validation loss and detection are two passes over the model, and each reads the pictures. Measured
besides, for Faster R-CNN: what d2pd does not do, one pass whose features serve both.
"""

import argparse
from typing import Any

import torch
from drawn import drawn_config, make_parser
from measuring import Samples, Turn, compare, time_in_turn, wait_for
from report import OtherWork, report

from d2pd.d2 import CfgNode, EventStorage
from d2pd.data.loader import build_test_loader, build_validation_loader
from d2pd.modeling.build import build_model
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.validation import validation_losses

LOSS, DETECTION = "validation loss", "detection"
READ_LOSS, READ_DETECTION = "reading for the loss", "reading for detection"
BOTH, BOTH_READ, DETECTION_READ = "both", "both, with reading", "detection, with reading"
SHARED = "both, features shared"
PAIRS = [(LOSS, DETECTION), (BOTH, DETECTION), (BOTH_READ, DETECTION_READ)]
PAIRS += [(SHARED, BOTH), (SHARED, DETECTION)]


def main() -> None:
    parser = make_parser(__doc__, repetitions=15, images=20)
    parser.add_argument("--weights", default="", help="checkpoint; random weights without one")
    args = parser.parse_args()
    with drawn_config(args) as cfg:
        torch.manual_seed(cfg.SEED)
        model = build_model(cfg).train()
        Checkpointer(model).load(args.weights)
        other_work, wait = OtherWork(), wait_for(cfg.MODEL.DEVICE)
        variants = build_variants(cfg, model)
        turns = {"clock": args.clock, "settle": wait, "finish": wait}
        seconds = time_in_turn(variants, args.repetitions, warmup=1, **turns)
        per_image = add_up({name: [s / args.images for s in seconds[name]] for name in seconds})
        report(
            args,
            cfg,
            data=describe(args, cfg),
            rows=compare(per_image, [pair for pair in PAIRS if pair[0] in per_image], "s"),
            samples={"seconds per image": per_image},
            other_work=other_work,
        )


def build_variants(cfg: CfgNode, model: torch.nn.Module) -> dict[str, Turn]:
    """Return what goes once over all images; the passes find them in memory."""
    name = cfg.DATASETS.TEST[0]
    for_loss, for_detection = build_validation_loader(cfg, name), build_test_loader(cfg, name)
    with_targets, without = list(for_loss), list(for_detection)

    def detect(_: int) -> None:
        model.eval()
        with torch.no_grad():
            for batch in without:
                model(batch)
        model.train()

    shared = {SHARED: lambda _: [lose_and_detect(model, batch) for batch in with_targets]}
    return (shared if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN" else {}) | {
        LOSS: lambda _: validation_losses(model, with_targets, seed=cfg.SEED),
        DETECTION: detect,
        READ_LOSS: lambda _: list(for_loss),
        READ_DETECTION: lambda _: list(for_detection),
    }


@torch.no_grad()
def lose_and_detect(model: Any, batch: list[dict[str, Any]]) -> tuple[dict[str, Any], Any]:
    """Return losses and detections of images that go through the backbone once."""
    model.eval()
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    targets = [sample["instances"].to(model.device) for sample in batch]
    heads = (model.proposal_generator, model.roi_heads)
    for head in heads:
        head.train()
    with EventStorage(0):
        proposals, losses = model.proposal_generator(images, features, targets)
        losses |= model.roi_heads(images, features, proposals, targets)[1]
    for head in heads:
        head.eval()
    proposals, _ = model.proposal_generator(images, features, None)
    found, _ = model.roi_heads(images, features, proposals, None)
    model.train()
    return losses, found


def add_up(seconds: Samples) -> Samples:
    """Add what an evaluation with and without the validation loss consists of."""

    def total(*names: str) -> list[float]:
        return [sum(parts) for parts in zip(*(seconds[name] for name in names), strict=True)]

    return seconds | {
        BOTH: total(LOSS, DETECTION),
        BOTH_READ: total(LOSS, READ_LOSS, DETECTION, READ_DETECTION),
        DETECTION_READ: total(DETECTION, READ_DETECTION),
    }


def describe(args: argparse.Namespace, cfg: CfgNode) -> str:
    sample = next(iter(build_test_loader(cfg, cfg.DATASETS.TEST[0])))[0]
    size = " x ".join(str(n) for n in sample["image"].shape[1:])
    weights = f"weights of {args.weights}" if args.weights else "random weights"
    return f"{args.images} drawn pictures of {size}, {weights}"


if __name__ == "__main__":
    main()
