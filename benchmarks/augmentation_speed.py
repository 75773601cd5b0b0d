"""How fast training pictures are augmented, and what each transform takes of it.

Decoding is apart: the pictures are in memory. SSD's chain, less and less of it, and the same steps
as torchvision has them.
"""

import argparse
from collections.abc import Callable
from typing import Any

import cv2
import torch
from drawn import drawn_config, make_parser
from measuring import Turn, compare, time_in_turn
from report import OtherWork, report
from torchvision import tv_tensors
from torchvision.transforms import v2

from d2pd.d2 import CfgNode
from d2pd.data.augmentation import build_augmentation, least_visible_share
from d2pd.data.images import read_pictures, stack_pictures
from d2pd.data.modality import channels_of
from d2pd.data.records import Record, load_train_records
from d2pd.data.targets import is_region, make_targets

CHAIN = "SSD's chain"
SSD = {"PHOTOMETRIC": True, "ZOOM_OUT": 4.0, "IOU_CROP": True}
OFF = {"PHOTOMETRIC": False, "ZOOM_OUT": 1.0, "IOU_CROP": False}
OTHERS = {
    "rotation besides": {"ROTATION": 5.0},
    "resized crop besides": {"RESIZED_CROP_SCALE": (0.25, 4.0)},
    "scale jitter besides": {"SCALE_JITTER": (0.8, 1.2)},
}
READING, TORCHVISION = "reading and decoding", "torchvision's transforms"


def main() -> None:
    parser = make_parser(__doc__, repetitions=15, images=40)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 640), metavar=("H", "W"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with drawn_config(args) as cfg:
        cfg.INPUT.FIXED_SIZE = tuple(args.size)
        variants = build_variants(cfg, load_train_records(cfg))
        other_work = OtherWork()
        seconds = time_in_turn(variants, args.repetitions, warmup=1, clock=args.clock)
        per_image = {name: [s / args.images for s in seconds[name]] for name in seconds}
        print(f"{CHAIN}: {rates(per_image[CHAIN])}\n")
        report(
            args,
            cfg,
            data=describe(args, cfg),
            rows=compare(per_image, [(name, CHAIN) for name in variants if name != CHAIN], "s"),
            samples={"seconds per image": per_image},
            other_work=other_work,
        )


def build_variants(cfg: CfgNode, records: list[Record]) -> dict[str, Turn]:
    """Return what goes once over all pictures; they are as large as the network's input."""
    height, width = cfg.INPUT.FIXED_SIZE
    samples = [make_sample(cfg, record, (height, width)) for record in records]
    alone = {"flip": "RANDOM_FLIP", "zoom-out": "ZOOM_OUT", "IoU crop": "IOU_CROP"}
    alone |= {"photometric distortion": "PHOTOMETRIC"}
    variants = {CHAIN: turn(cfg, SSD, samples)}
    variants["resize alone"] = turn(cfg, {}, samples, flip="none")
    for name, key in alone.items():
        values = {key: SSD[key]} if key in SSD else {}
        variants[f"{name}, with resize"] = turn(
            cfg, values, samples, flip="none" if values else "horizontal"
        )
    for name, values in OTHERS.items():
        variants[name] = turn(cfg, SSD | values, samples)
    if len(cfg.MODEL.PIXEL_MEAN) == 3:  # torchvision's know no other images
        variants[TORCHVISION] = over(samples, torchvision_chain(cfg), share=None)
    variants[READING] = lambda _: [read_pictures(r, cfg.INPUT.MODALITY) for r in records]
    return variants


def turn(
    cfg: CfgNode, values: dict[str, Any], samples: list[dict[str, Any]], flip: str = "horizontal"
) -> Turn:
    """Return one pass of the pipeline that a configuration builds."""
    cfg = cfg.clone()
    cfg.INPUT.RANDOM_FLIP = flip
    for key, value in (OFF | values).items():
        cfg.INPUT.AUG[key] = value
    return over(samples, build_augmentation(cfg, is_train=True), least_visible_share(cfg))


def over(
    samples: list[dict[str, Any]], transforms: Callable[[Any], Any], share: float | None
) -> Turn:
    """Return one pass of transforms and targets, drawn from the number of the repetition."""

    def once(number: int) -> None:
        torch.manual_seed(number)
        for sample in samples:
            given = {name: sample[name] for name in ("image", "boxes", "is_region")}
            out = transforms(given)
            make_targets(out["image"], out["boxes"], sample["annotations"], 1.0, share)

    return once


def torchvision_chain(cfg: CfgNode) -> v2.Compose:
    """Return the same steps of torchvision, as its SSD reference has them, on a growing canvas."""
    fill = {tv_tensors.Image: list(cfg.MODEL.PIXEL_MEAN), "others": 0}
    return v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=fill, side_range=(1, 4)),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.Resize(list(cfg.INPUT.FIXED_SIZE)),
        ]
    )


def make_sample(cfg: CfgNode, record: Record, size: tuple[int, int]) -> dict[str, Any]:
    """Return a record's picture and boxes, scaled to a size."""
    channels = channels_of(cfg.INPUT.MODALITY, len(cfg.MODEL.PIXEL_MEAN))
    pictures = read_pictures(record, cfg.INPUT.MODALITY)
    height, width = pictures[0].shape[:2]
    scaled = [cv2.resize(picture, size[::-1]) for picture in pictures]
    factors = torch.tensor([size[1] / width, size[0] / height] * 2)
    boxes = torch.tensor([a["bbox"] for a in record["annotations"]]).reshape(-1, 4) * factors
    return {
        "image": tv_tensors.Image(stack_pictures(scaled, channels, cfg.INPUT.FORMAT)),
        "boxes": tv_tensors.BoundingBoxes(
            boxes, format="XYXY", canvas_size=size, clamping_mode=None
        ),
        "is_region": torch.tensor([is_region(a) for a in record["annotations"]], dtype=torch.bool),
        "annotations": record["annotations"],
    }


def rates(seconds: list[float]) -> str:
    """Say how many images a second that is: the median, the slowest and the fastest."""
    ordered = sorted(1 / second for second in seconds)
    middle = ordered[len(ordered) // 2]
    return f"{middle:.0f} images per second and core ({ordered[0]:.0f} to {ordered[-1]:.0f})"


def describe(args: argparse.Namespace, cfg: CfgNode) -> str:
    channels = f"{len(cfg.MODEL.PIXEL_MEAN)} channels ({cfg.INPUT.MODALITY})"
    return f"{args.images} drawn pictures of {args.size[0]} x {args.size[1]} px, {channels}"


if __name__ == "__main__":
    main()
