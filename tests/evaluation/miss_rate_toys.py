"""Small made-up datasets for the tests of the miss rate, and the plain reference."""

import importlib.util
import math
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, detection_arrays
from d2pd.evaluation.subsets import Protocol, Setting, Split

ROOT = Path(__file__).resolve().parent.parent.parent


def load_plain():
    path = ROOT / "benchmarks" / "plain_miss_rate.py"
    spec = importlib.util.spec_from_file_location("plain_miss_rate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain = load_plain()
first = itemgetter(0)

EVERY = Protocol((Setting("every"),), (Split("all"),))
"""One subset that every label is of."""

SMALL = Protocol(
    settings=(
        Setting("every"),
        Setting("tall", 8, math.inf, frozenset({0, 1}), (2, 2, 28, 30)),
        Setting("low", 3, 9, frozenset({0})),
        Setting("heavy", 0, math.inf, frozenset({2}), (0, 0, 30, 30)),
    ),
    splits=(Split("all"), Split("day", ("set00",)), Split("night", ("set03", "set04"))),
)
"""For boxes of ``cases``."""


@dataclass(frozen=True)
class Case:
    """Images by name, labels (image, x, y, w, h, ignore, occlusion), detections (..., score)."""

    names: list
    labels: list
    detections: list

    @property
    def arrays(self) -> tuple[LabelArrays, DetectionArrays]:
        return make_labels(self.names, self.labels), make_detections(self.detections)


def make_labels(names, rows) -> LabelArrays:
    rows = sorted(rows, key=first)
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return LabelArrays(
        image_ids=tuple(range(len(names))),
        image_names=tuple(names),
        image_sizes=np.full((len(names), 2), 512),
        image_index=table[:, 0].astype(np.int64),
        boxes_xywh=table[:, 1:5],
        classes=np.zeros(len(table), dtype=np.int64),
        is_ignore=table[:, 5] != 0,
        occlusion=table[:, 6].astype(np.int64),
        class_names=("person",),
    )


def make_detections(rows) -> DetectionArrays:
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    zeros = np.zeros(len(table), dtype=np.int64)
    return detection_arrays(table[:, 0].astype(np.int64), table[:, 1:5], table[:, 5], zeros)


FEW_SCORES = st.sampled_from([-211.0, 0.0, 0.25, 0.5, 0.75, 1.0])


def boxes():
    # Few values: boxes often touch, are equal, or have no area.
    place = st.integers(0, 20)
    size = st.sampled_from([0, 1, 4, 5, 8, 9, 10, 12])
    return st.tuples(place, place, size, size)


@st.composite
def cases(draw, scores=FEW_SCORES):
    """Draw images of which most are empty; few scores, so that many tie."""
    num_images = draw(st.sampled_from([1, 2, 5, 20, 101]))
    folders = ["set00", "set03", "set04", "set06"]
    names = [f"{folders[n % 4]}/V000/I{n:05d}" for n in range(num_images)]
    image = st.integers(0, min(num_images, 6) - 1)
    flag, occlusion = st.sampled_from([0, 0, 0, 1]), st.sampled_from([-1, 0, 0, 1, 2])
    labels = draw(st.lists(st.tuples(image, boxes(), flag, occlusion), max_size=12))
    found = draw(st.lists(st.tuples(image, boxes(), scores), max_size=25))
    return Case(
        names,
        sorted(
            ((i, *box, ignore, hidden) for i, box, ignore, hidden in labels), key=lambda r: r[0]
        ),
        [(i, *box, score) for i, box, score in found],
    )
