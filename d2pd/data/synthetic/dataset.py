"""A KAIST-layout dataset of drawn scenes on disk."""

import json
import logging
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from d2pd.data.synthetic.faults import plant_faults
from d2pd.data.synthetic.frames import Frame, draw_frame, frames_of_labels, frames_of_split
from d2pd.data.synthetic.label_files import kaist_json, read_boxes, two_class_csv
from d2pd.data.synthetic.output_folder import Drawing, OutputFolder
from d2pd.errors import UserError

logger = logging.getLogger(__name__)

FORMATS = {"jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], "png": [cv2.IMWRITE_PNG_COMPRESSION, 1]}
FAULTS_STREAM = 2


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
        num_train: Pairs to train on; day and night in the shares of the real list.
        num_test: Held-out pairs; no place of the train pairs occurs in them.
        seed: Each pair depends on it, its split and its index alone.
        boxes: KAIST JSON to draw pairs for, as it is, instead of ``num_train`` and ``num_test``;
            each depends on ``seed``, its name and its labels alone. The file is copied into
            ``output``, which may also hold label files and the drawings for others.
        faults: Plant degenerate, tiny and outside boxes into the train labels, and list them in
            ``faults.json``.
        fmt: "jpg" or "png".

    Raises:
        UserError: If a count, the seed or ``fmt`` is out of range, or ``output`` holds other
            things, which are left as they are.
        AnnotationError: If ``boxes`` is not KAIST JSON of 640x512 frames.
        MissingFileError: If ``boxes`` does not exist.
    """
    _check_arguments(num_train, num_test, seed, boxes, faults, fmt)
    drawing: Drawing = {"seed": seed, "fmt": fmt}
    if boxes is None:
        drawing |= {"num_train": num_train, "num_test": num_test, "faults": faults}
        frames, files = _drawn_labels(num_train, num_test, seed, faults, fmt)
    else:
        frames, content = frames_of_labels(read_boxes(boxes), seed), boxes.read_bytes()
        drawing |= {"boxes": boxes.name, "crc32": zlib.crc32(content)}
        own = output / boxes.name
        files = {} if own.is_file() and own.read_bytes() == content else {boxes.name: content}
    folder = OutputFolder(output, drawing)
    if folder.is_complete:
        logger.info("%s holds this drawing already", output)
        return
    pictures = [f"images/{frame.path('visible', fmt)}" for frame in frames]
    folder.claim([*files, *pictures])
    _draw_pictures(folder, frames, fmt)
    for name, content in files.items():
        folder.write(name, content)
    folder.finish()
    logger.info("Drew %d pairs of pictures into %s", len(frames), output)


def _check_arguments(
    num_train: int, num_test: int, seed: int, boxes: Path | None, faults: bool, fmt: str
) -> None:
    if fmt not in FORMATS:
        raise UserError(f"The picture format is {fmt!r}; choose one of {', '.join(FORMATS)}")
    if seed < 0:
        raise UserError(f"The seed is {seed}; choose 0 or more")
    if boxes is not None and faults:
        raise UserError(f"{boxes} is drawn as it is: faults are planted into drawn labels only")
    for name, count in (("num_train", num_train), ("num_test", num_test)):
        if boxes is None and count <= 0:
            raise UserError(f"{name} is {count}; draw at least one pair, or name a boxes file")


def _drawn_labels(
    num_train: int, num_test: int, seed: int, faults: bool, fmt: str
) -> tuple[list[Frame], dict[str, bytes]]:
    """Lay out all pairs; returns them and the content of each label file."""
    train = frames_of_split("train", num_train, seed)
    test = frames_of_split("test", num_test, seed)
    files: dict[str, str] = {}
    if faults:
        train, planted = plant_faults(train, np.random.default_rng((seed, FAULTS_STREAM)))
        files["faults.json"] = json.dumps(planted, indent=1) + "\n"
    for split, frames in (("train", train), ("test", test)):
        files[f"{split}20.json"] = kaist_json(frames, with_occlusion=split == "test")
        files[f"{split}-all-20.txt"] = "".join(f"{frame.im_name}\n" for frame in frames)
        files[f"two_classes/{split}.csv"] = two_class_csv(frames, fmt)
    return train + test, {name: text.encode() for name, text in files.items()}


def _draw_pictures(folder: OutputFolder, frames: Sequence[Frame], fmt: str) -> None:
    """Draw the pairs on all processors: OpenCV and NumPy let threads run side by side."""

    def draw(frame: Frame) -> None:
        for modality, picture in zip(("visible", "lwir"), draw_frame(frame), strict=True):
            _, encoded = cv2.imencode(f".{fmt}", picture, FORMATS[fmt])
            folder.write(f"images/{frame.path(modality, fmt)}", encoded.tobytes())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(draw, frames)
        for _ in tqdm(drawn, total=len(frames), desc="Drawing", unit="pair", disable=None):
            pass
