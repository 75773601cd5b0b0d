"""The pairs of a dataset before they are drawn: names, labels and the seed of each."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from d2pd.data.synthetic.layout import Label, draw_labels
from d2pd.data.synthetic.scene import draw_scene

SPLITS = {"train": 0, "test": 1}  # part of each picture's seed, so that splits share no place
BOXES_SPLIT = 2
LABELS, PICTURE = 0, 1  # streams of chance of one frame
NIGHT_PHASES = (2, 5, 7)  # of 8 pictures: 3,341 of the 8,963 real train frames are night
VIDEOS = {  # the videos of the real lists: (set, number of videos)
    ("train", False): ((0, 9), (1, 6), (2, 5)),
    ("train", True): ((3, 2), (4, 2), (5, 1)),
    ("test", False): ((6, 5), (7, 3), (8, 3)),
    ("test", True): ((9, 1), (10, 2), (11, 2)),
}
FRAME_STEP = 20


@dataclass(frozen=True)
class Frame:
    """One pair of pictures to draw.

    Attributes:
        im_name: KAIST name without modality, such as ``set00/V000/I01217``.
        labels: What the pair shows.
        entropy: Seed of the picture; no two pictures of different splits share it.
    """

    im_name: str
    labels: tuple[Label, ...]
    entropy: tuple[int, ...]

    @property
    def night(self) -> bool:
        """Whether the set of this frame was taken at night, as KAIST numbers its sets."""
        return int(self.im_name[3:5]) % 6 >= 3

    def path(self, modality: str, fmt: str) -> str:
        """File of ``modality`` ("visible" or "lwir"), relative to the image folder."""
        folder, _, number = self.im_name.rpartition("/")
        return f"{folder}/{modality}/{number}.{fmt}"


def frames_of_split(split: str, count: int, seed: int) -> list[Frame]:
    """Lay out ``count`` pairs of ``split`` ("train" or "test") without drawing them.

    They go round the videos of the real lists, so that leaving out a video leaves out few pairs.
    """
    videos = {
        night: [
            f"set{number:02}/V{video:03}"
            for number, total in VIDEOS[split, night]
            for video in range(total)
        ]
        for night in (False, True)
    }
    taken = {False: 0, True: 0}
    frames = []
    for index in range(count):
        night = index % 8 in NIGHT_PHASES
        turn, place = divmod(taken[night], len(videos[night]))
        taken[night] += 1
        name = f"{videos[night][place]}/I{FRAME_STEP * (turn + 1) - 1:05}"
        entropy = (seed, SPLITS[split], index)
        labels = draw_labels(np.random.default_rng((*entropy, LABELS)), night)
        frames.append(Frame(name, tuple(labels), entropy))
    return frames


def frames_of_labels(rows: Iterable[tuple[str, tuple[Label, ...]]], seed: int) -> list[Frame]:
    """Lay out a pair per name; one that is listed twice shows the labels of its first row."""
    frames: dict[str, Frame] = {}
    for name, labels in rows:
        entropy = (seed, BOXES_SPLIT, zlib.crc32(name.encode()))
        frames.setdefault(name, Frame(name, labels, entropy))
    return list(frames.values())


def draw_frame(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Draw one pair: visible (512, 640, 3) uint8 BGR and thermal (512, 640) uint8."""
    rng = np.random.default_rng((*frame.entropy, PICTURE))
    return draw_scene(rng, list(frame.labels), frame.night)
