"""How fast training samples are read: d2pd's mapper against Detectron2's, or a plain one.

The same transforms (read, shortest edge, flip) on the same pictures, JPEG and PNG, on one core.
Without Detectron2 a mapper of Pillow's decoding, resize and flip stands in its place.
"""

import argparse
import copy
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from drawn import ROOT  # makes d2pd importable
from measuring import CLOCKS, Turn, compare, time_in_turn
from PIL import Image
from report import OtherWork, report

from d2pd.config import default_config
from d2pd.data.augmentation import make_augmentation
from d2pd.data.augmentation.sizes import ShortestEdge, resized_shape
from d2pd.data.images import decode_image, read_encoded
from d2pd.data.mapper import Mapper
from d2pd.data.modality import Channels
from d2pd.data.synthetic import draw_frame, frames_of_split

SHARED = ROOT.parent / "shared/data"
SOURCES = {
    "KAIST 640 x 512": "kaist/images/*/*/visible/*",
    "face mask 416 x 416": "face_mask/train/*.jpg",
}
SUFFIXES = ("jpg", "png")
LONGEST = 1333  # px
BOX = {"bbox": [10.0, 20.0, 60.0, 120.0], "bbox_mode": 0, "category_id": 0, "iscrowd": 0}

Make = Callable[[dict[str, Any], int], Any]


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    ours, (other, theirs) = build_ours(args.edge), build_theirs(args.edge)
    with tempfile.TemporaryDirectory() as name:
        turns: dict[str, Turn] = {}
        for what, records in write_pictures(args, Path(name)).items():
            turns[f"{what}: d2pd"] = over(records, ours)
            turns[f"{what}: {other}"] = over(records, theirs)
            turns[f"{what}: decoding alone"] = over(records, decode)
            turns[f"{what}: decoding by Pillow"] = over(records, decode_by_pillow)
        other_work = OtherWork()
        seconds = time_in_turn(turns, args.repetitions, warmup=1, clock=args.clock)
    per_image = {name: [s / args.images for s in seconds[name]] for name in seconds}
    kinds = [name.removesuffix(": d2pd") for name in turns if name.endswith(": d2pd")]
    pairs = [("d2pd", other), ("d2pd", "decoding alone"), ("decoding alone", "decoding by Pillow")]
    cfg = default_config()
    cfg.MODEL.DEVICE = "cpu"
    report(
        args,
        cfg,
        data=f"{args.images} pictures, 3 boxes each; shortest edge {args.edge} px, then a flip",
        rows=compare(
            per_image,
            [(f"{kind}: {one}", f"{kind}: {two}") for kind in kinds for one, two in pairs],
            "s",
        ),
        samples={"seconds per image": per_image},
        other_work=other_work,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--images", type=int, default=40, help="samples of a turn")
    parser.add_argument("--edge", type=int, default=768, help="px, of the shorter side")
    parser.add_argument("--data", default=str(SHARED), help="empty: drawn pictures in its place")
    parser.add_argument("--json", help="also write everything measured to this file")
    return parser.parse_args()


def write_pictures(args: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Write pictures in both formats; return as many records as samples are wanted."""
    records = {}
    for what, pictures in load_pictures(args).items():
        for suffix in SUFFIXES:
            written = [
                write(folder / f"{what} {number}.{suffix}", picture)
                for number, picture in enumerate(pictures)
            ]
            of_turn = [written[number % len(written)] for number in range(args.images)]
            records[f"{what} {suffix.upper()}"] = of_turn
    return records


def load_pictures(args: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    if not args.data:
        frames = frames_of_split("test", 4, 0)
        return {"drawn": [cv2.resize(draw_frame(frame)[0], (640, 512)) for frame in frames]}
    files = {what: sorted(Path(args.data).glob(pattern)) for what, pattern in SOURCES.items()}
    return {what: [cv2.imread(str(file)) for file in each[:20]] for what, each in files.items()}


def write(file: Path, picture: np.ndarray) -> dict[str, Any]:
    """Write a picture and return its record."""
    cv2.imwrite(str(file), picture)
    height, width = picture.shape[:2]
    size = {"file_name": str(file), "height": height, "width": width}
    return {**size, "image_id": 0, "annotations": [BOX] * 3}


def over(records: list[dict[str, Any]], make: Make) -> Turn:
    """Return what makes a sample of every record."""

    def run(number: int) -> None:
        for k, record in enumerate(records, start=number * len(records)):
            make(record, k)

    return run


def build_ours(edge: int) -> Make:
    return Mapper(
        channels=Channels(3, 0),
        image_format="BGR",
        transforms=make_augmentation(ShortestEdge([edge], LONGEST), flip="horizontal"),
        is_train=True,
        seed=0,
    )


def build_theirs(edge: int) -> tuple[str, Make]:
    """Return what is compared with: its name, and what makes a sample."""
    if not importlib.util.find_spec("detectron2"):
        return "Pillow", lambda record, _: plain(record, edge)
    from detectron2.data import DatasetMapper, transforms

    steps = [transforms.ResizeShortestEdge([edge], LONGEST, "choice"), transforms.RandomFlip()]
    mapper = DatasetMapper(is_train=True, augmentations=steps, image_format="BGR")
    return "Detectron2", lambda record, _: mapper(record)


def plain(record: dict[str, Any], edge: int) -> dict[str, Any]:
    """Make a sample with Pillow and numpy."""
    sample = copy.deepcopy(record)
    height, width = resized_shape((record["height"], record["width"]), edge, LONGEST)
    with Image.open(record["file_name"]) as file:
        resized = file.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized)[..., ::-1]
    boxes = np.array([each["bbox"] for each in record["annotations"]])
    boxes *= np.array([width / record["width"], height / record["height"]] * 2)
    if np.random.rand() < 0.5:
        pixels = pixels[:, ::-1]
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    sample["image"] = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    sample["boxes"] = torch.from_numpy(boxes)
    return sample


def decode(record: dict[str, Any], _: int) -> np.ndarray:
    file = record["file_name"]
    return decode_image(read_encoded(file), file, "visible")


def decode_by_pillow(record: dict[str, Any], _: int) -> np.ndarray:
    with Image.open(record["file_name"]) as file:
        return np.asarray(file.convert("RGB"))


if __name__ == "__main__":
    main()
