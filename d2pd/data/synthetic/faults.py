"""Faults as real label files hold them, planted on purpose and listed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from d2pd.data.synthetic.frames import Frame
from d2pd.data.synthetic.layout import HEIGHT, WIDTH, Label

PERIOD = 4  # every so many frames one holds a fault
FAULTS = ("degenerate_box", "outside_image", "tiny_box", "reaches_outside")


def plant_faults(
    frames: Sequence[Frame], rng: np.random.Generator
) -> tuple[list[Frame], list[dict[str, Any]]]:
    """Plant one fault in every ``PERIOD``-th frame, the kinds of ``FAULTS`` in turn.

    A degenerate, tiny or outside box is one more person label that shows nothing; a box that
    reaches outside belongs to a person who is drawn there, cut off by the frame.

    Returns:
        The frames, and a list of ``{"im_name", "fault", "bbox"}`` with the box as XYWH.
    """
    faulty, planted = [], []
    for index, frame in enumerate(frames):
        if index % PERIOD == 0:
            fault = FAULTS[index // PERIOD % len(FAULTS)]
            label = _faulty_label(rng, fault)
            frame = replace(frame, labels=(*frame.labels, label))
            row = {"im_name": frame.im_name, "fault": fault, "bbox": list(label.box_xywh)}
            planted.append(row)
        faulty.append(frame)
    return faulty, planted


def _faulty_label(rng: np.random.Generator, fault: str) -> Label:
    x, y = int(rng.integers(20, WIDTH - 20)), int(rng.integers(200, 300))
    if fault == "degenerate_box":
        return Label((x, y, *((0, 1), (1, 0), (0, 0))[int(rng.integers(3))]), "person")
    if fault == "tiny_box":
        return Label((x, y, 0.5, 0.75), "person")
    if fault == "outside_image":
        side = ((WIDTH + 5, y), (-60, y), (x, HEIGHT + 3), (x, -90))[int(rng.integers(4))]
        return Label((*side, 25, 60), "person")
    height = int(rng.integers(60, 140))
    width = round(0.41 * height)
    left = -round(0.35 * width) if rng.uniform() < 0.5 else WIDTH - round(0.65 * width)
    return Label((left, 222, width, height), "person")
