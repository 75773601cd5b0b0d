"""A KAIST-layout dataset of drawn scenes on disk."""

import json
import logging
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from d2pd.data.synthetic.faults import plant_faults
from d2pd.data.synthetic.label_files import Frame, kaist_json, read_boxes, two_class_csv
from d2pd.data.synthetic.layout import draw_labels
from d2pd.data.synthetic.scene import draw_scene
from d2pd.errors import UserError

logger = logging.getLogger(__name__)

MARKER = "synthetic.json"  # tells a drawn folder from one that holds anything else
FORMATS = {"jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], "png": [cv2.IMWRITE_PNG_COMPRESSION, 1]}
SPLITS = {"train": 0, "test": 1}  # part of each picture's seed, so that splits share no place
BOXES_SPLIT = 2
LABELS, PICTURE, FAULTS = 0, 1, 2  # streams of chance
NIGHT_PHASES = (2, 5, 7)  # of 8 pictures: 3,341 of the 8,963 real train frames are night
VIDEOS = {  # the videos of the real lists: (set, number of videos)
    ("train", False): ((0, 9), (1, 6), (2, 5)),
    ("train", True): ((3, 2), (4, 2), (5, 1)),
    ("test", False): ((6, 5), (7, 3), (8, 3)),
    ("test", True): ((9, 1), (10, 2), (11, 2)),
}
FRAME_STEP = 20


def draw_dataset(
    output: Path,
    *,
    num_train: int = 0,
    num_test: int = 0,
    seed: int = 42,
    boxes: Path | None = None,
    faults: bool = False,
    fmt: str = "jpg",
) -> None:
    """Draw a dataset in the layout of KAIST; the same arguments give the same bytes.

    Written below ``output``: ``images/setXX/VYYY/{visible,lwir}/IZZZZZ.<fmt>``, ``train20.json``,
    ``test20.json`` (with occlusion), the image lists ``train-all-20.txt`` and
    ``test-all-20.txt``, ``two_classes/{train,test}.csv`` (thermal pictures, person and cyclist,
    names relative to ``images``), and ``synthetic.json``, which says how it was drawn. Drawing
    again with the same arguments completes an interrupted drawing and leaves a complete one.

    Args:
        output: Folder, new, empty or drawn by this function.
        num_train: Pictures pairs to train on; day and night as in the real lists.
        num_test: Held-out pairs; no place of the train pictures occurs in them.
        seed: Each picture depends on it, its split and its index alone.
        boxes: KAIST JSON to draw pictures for, as it is, instead of ``num_train`` and
            ``num_test``. It is copied into ``output``, where drawings of other files may lie.
        faults: Plant degenerate, tiny and outside boxes into the train labels, and list them in
            ``faults.json``.
        fmt: "jpg" or "png".

    Raises:
        UserError: If a count, the seed or ``fmt`` is out of range, or ``output`` holds other
            things, which are left as they are.
        AnnotationError: If ``boxes`` is not KAIST JSON.
        MissingFileError: If ``boxes`` does not exist.
    """
    if fmt not in FORMATS:
        raise UserError(f"The picture format is {fmt!r}; choose one of {', '.join(FORMATS)}")
    if seed < 0:
        raise UserError(f"The seed is {seed}; choose 0 or more")
    if boxes is not None:
        frames, files = _frames_of_file(boxes, seed)
        request: dict[str, Any] = {"boxes": boxes.name, "crc32": zlib.crc32(boxes.read_bytes())}
        request |= {"seed": seed, "fmt": fmt}
    else:
        _check_counts(num_train, num_test)
        frames, files = _drawn_frames(num_train, num_test, seed, faults, fmt)
        request = {"num_train": num_train, "num_test": num_test, "seed": seed}
        request |= {"faults": faults, "fmt": fmt}
    done = _claim(output, request)
    if done is None:
        logger.info("%s holds this drawing already", output)
        return
    _draw_frames(output / "images", frames, fmt)
    for name, content in files.items():
        _write(output / name, content)
    _write_marker(output, [*done, {**request, "complete": True}])
    logger.info("Drew %d pairs of pictures into %s", len(frames), output)


def frames_of_split(split: str, count: int, seed: int) -> list[Frame]:
    """Lay out ``count`` pairs of ``split`` ("train" or "test") without drawing them."""
    taken = {False: 0, True: 0}
    frames = []
    for index in range(count):
        night = index % 8 in NIGHT_PHASES
        videos = [
            f"set{number:02}/V{video:03}"
            for number, videos in VIDEOS[split, night]
            for video in range(videos)
        ]
        turn, place = divmod(taken[night], len(videos))
        taken[night] += 1
        name = f"{videos[place]}/I{FRAME_STEP * (turn + 1) - 1:05}"
        entropy = (seed, SPLITS[split], index)
        labels = draw_labels(np.random.default_rng((*entropy, LABELS)), night)
        frames.append(Frame(name, tuple(labels), entropy))
    return frames


def draw_frame(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Draw one pair: visible (512, 640, 3) uint8 BGR and thermal (512, 640) uint8."""
    rng = np.random.default_rng((*frame.entropy, PICTURE))
    return draw_scene(rng, list(frame.labels), frame.night)


def _check_counts(num_train: int, num_test: int) -> None:
    for name, count in (("num_train", num_train), ("num_test", num_test)):
        if count <= 0:
            raise UserError(f"{name} is {count}; draw at least one picture, or give a boxes file")


def _drawn_frames(
    num_train: int, num_test: int, seed: int, faults: bool, fmt: str
) -> tuple[list[Frame], dict[str, str]]:
    train, test = (
        frames_of_split("train", num_train, seed),
        frames_of_split("test", num_test, seed),
    )
    files = {}
    if faults:
        train, planted = plant_faults(train, np.random.default_rng((seed, FAULTS)))
        files["faults.json"] = json.dumps(planted, indent=1) + "\n"
    for split, frames in (("train", train), ("test", test)):
        files[f"{split}20.json"] = kaist_json(frames, with_occlusion=split == "test")
        files[f"{split}-all-20.txt"] = "".join(f"{frame.im_name}\n" for frame in frames)
        files[f"two_classes/{split}.csv"] = two_class_csv(frames, fmt)
    return train + test, files


def _frames_of_file(boxes: Path, seed: int) -> tuple[list[Frame], dict[str, str]]:
    """Lay out a pair per name; a name that is listed twice shows the labels of its first row."""
    frames: dict[str, Frame] = {}
    for name, labels in read_boxes(boxes):
        entropy = (seed, BOXES_SPLIT, zlib.crc32(name.encode()))
        frames.setdefault(name, Frame(name, labels, entropy))
    return list(frames.values()), {boxes.name: boxes.read_text(encoding="utf-8")}


def _claim(output: Path, request: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Mark ``output`` as being drawn.

    Returns:
        The other drawings the folder holds, or None if it holds this one complete.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; name a folder to draw into")
    drawings = _read_marker(output)
    if {**request, "complete": True} in drawings:
        return None
    others = [
        row for row in drawings if {**row, "complete": False} != {**request, "complete": False}
    ]
    if any("boxes" not in row or row["boxes"] == request.get("boxes") for row in others) or (
        others and "boxes" not in request
    ):
        raise UserError(
            f"{output} holds a drawing of other arguments (see {MARKER} there); "
            "name another folder or remove this one"
        )
    _write_marker(output, [*others, {**request, "complete": False}])
    return others


def _read_marker(output: Path) -> list[dict[str, Any]]:
    marker = output / MARKER
    if not marker.is_file():
        if output.is_dir() and any(output.iterdir()):
            raise UserError(
                f"{output} is not empty and was not drawn by d2pd; nothing was written. "
                "Name a new or empty folder"
            )
        return []
    try:
        drawings = json.loads(marker.read_text(encoding="utf-8"))["drawings"]
        return [dict(row) for row in drawings]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{marker} is damaged; remove the folder and draw again") from None


def _write_marker(output: Path, drawings: Sequence[dict[str, Any]]) -> None:
    _write(output / MARKER, json.dumps({"drawings": drawings}, indent=1) + "\n")


def _write(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".part")
        unfinished.write_text(content, encoding="utf-8", newline="\n")
        os.replace(unfinished, path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}") from error


def _draw_frames(images: Path, frames: Sequence[Frame], fmt: str) -> None:
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        pairs = pool.map(lambda frame: _save_frame(images, frame, fmt), frames)
        for _ in tqdm(pairs, total=len(frames), desc="Drawing", unit="pair"):
            pass


def _save_frame(images: Path, frame: Frame, fmt: str) -> None:
    for modality, picture in zip(("visible", "lwir"), draw_frame(frame), strict=True):
        path = images / frame.path(modality, fmt)
        _, encoded = cv2.imencode(f".{fmt}", picture, FORMATS[fmt])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded.tobytes())
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror or error}") from error
