"""Videos that are drawn, and a detector that only pretends."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import torch

from d2pd.data.modality import channels_of
from d2pd.inference.detections import Detections
from d2pd.inference.predict.quiet import NO_MESSAGES

# FFmpeg reads it once, when these videos are written: before the command could set it.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", NO_MESSAGES)

WIDTH, HEIGHT = 64, 48


def frame_of(number: int) -> np.ndarray:
    """A grey frame; how bright it is tells its number, its stripe where it is."""
    image = np.full((HEIGHT, WIDTH, 3), 40 + number % 150, np.uint8)
    image[:, number % WIDTH] = 250
    return image


def write_video(path: Path, count: int, *, fps=30.0, size=(WIDTH, HEIGHT), codec="mp4v") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    assert writer.isOpened()
    for number in range(count):
        writer.write(cv2.resize(frame_of(number), size))
    writer.release()
    return path


def read_video(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (found := capture.read())[0]:
        frames.append(found[1])
    return frames


def picture(path: Path, shape=(48, 64), seed=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), image)
    return path


def damage(path: Path, start: float, length: int) -> None:
    """Put noise in place of some bytes, from a part of the file on."""
    content = bytearray(path.read_bytes())
    at = int(len(content) * start)
    content[at : at + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(content)


def noisy_video(path: Path, codec: str) -> Path:
    """Write 60 frames that compress badly, at 30 a second."""
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 30.0, (160, 120))
    for _ in range(60):
        writer.write(rng.integers(0, 90, (120, 160, 3), dtype=np.uint8))
    writer.release()
    return path


class Pretended:
    """A detector that finds one box in each image, whose score is the image's first value."""

    device = torch.device("cpu")
    score_floor = 0.0

    def __init__(self, modality="visible", class_names=("person",)):
        self.channels = channels_of(modality, 6 if modality == "both" else 3)
        self.class_names = class_names
        self.batches = []

    def prepare(self, image):
        return PretendedImage(image)

    def detect(self, prepared):
        self.batches.append(len(prepared))
        return [each.image[0, 0, 0] / 255 for each in prepared]

    def finish(self, of_batch, prepared, threshold):
        box = np.array([[1, 2, 11, 22]], np.float32)
        return [
            Detections(box, np.float32([score]), np.array([0]), self.class_names, each.image).above(
                threshold
            )
            for score, each in zip(of_batch, prepared, strict=True)
        ]


class PretendedImage:
    def __init__(self, image):
        self.image = image

    @property
    def batch_key(self):
        return self.image.shape


def results(folder="output/predict"):
    return json.loads(Path(folder, "detections.json").read_text())


def drawn(folder="output/predict"):
    """Relative paths of all files but those of detections."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [str(p.relative_to(folder)) for p in files if not p.name.startswith("detections.")]
