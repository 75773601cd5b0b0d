"""Whether an exported file detects what the predictor detects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from d2pd.errors import UserError
from d2pd.modeling.batch_detections import BatchDetections

BOX_TOLERANCE = 0.01
"""px of the network input, of every side."""

SCORE_TOLERANCE = 1e-4


class ExportMismatchError(UserError):
    """An exported file does not detect what the model detects; it is not kept."""


@dataclass(frozen=True)
class Agreement:
    """How well two sets of detections agree.

    Attributes:
        num_images: Images that both were asked about.
        num_detections: Detections that both have.
        box_difference: Largest between the sides of two boxes, px of the network input.
        score_difference: Largest between two scores.
    """

    num_images: int = 0
    num_detections: int = 0
    box_difference: float = 0.0
    score_difference: float = 0.0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.num_images + other.num_images,
            self.num_detections + other.num_detections,
            max(self.box_difference, other.box_difference),
            max(self.score_difference, other.score_difference),
        )

    def __str__(self) -> str:
        return (
            f"the same {self.num_detections} detections in {self.num_images} images: boxes within "
            f"{self.box_difference:.1g} px, scores within {self.score_difference:.1g}"
        )


def check_export(
    model: Callable[[Tensor], BatchDetections],
    exported: Callable[[Tensor], BatchDetections],
    pictures: Sequence[Tensor],
    *,
    score_floor: float,
    takes_batches: bool,
) -> Agreement:
    """Compare what a model and its exported file detect, each picture alone and in batches.

    Args:
        model: The core that was exported.
        exported: The file.
        pictures: (C, H, W) uint8 as the model takes them; of any sizes.
        score_floor: Scores of detections lie above it.
        takes_batches: Whether the file takes several images; each picture then goes in again
            beside its mirror image.

    Raises:
        ExportMismatchError: Saying where they differ. A detection that only one of them has is a
            difference unless its score lies within ``SCORE_TOLERANCE`` of the least that counts.
    """
    found = Agreement()
    for picture in tqdm(pictures, desc="comparing", unit="picture", leave=False, disable=None):
        batches = [picture[None]]
        if takes_batches:
            batches.append(torch.stack([picture, picture.flip(-1)]))
        for batch in batches:
            with torch.no_grad():
                ours, theirs = model(batch), exported(batch)
            for index in range(len(batch)):
                found += _compare(ours, theirs, index, score_floor)
    return found


def _compare(
    ours: BatchDetections, theirs: BatchDetections, index: int, score_floor: float
) -> Agreement:
    mine, other = (
        [part.double().numpy() for part in each.of_image(index)] for each in (ours, theirs)
    )
    pairs = match(mine, other)
    least = score_floor
    room = ours.scores.shape[1]
    if max(len(mine[1]), len(other[1])) == room:  # full: the next best had no place
        least = max(least, min(mine[1].min(), other[1].min()))
    alone = [
        *(score for row, score in enumerate(mine[1]) if row not in pairs),
        *(score for row, score in enumerate(other[1]) if row not in pairs.values()),
    ]
    worst = max(alone, default=0.0)
    if worst > least + SCORE_TOLERANCE:
        raise ExportMismatchError(
            f"the exported model does not detect the same: {len(alone)} of {len(mine[1])} and "
            f"{len(other[1])} detections of an image have no counterpart within {BOX_TOLERANCE} px "
            f"and {SCORE_TOLERANCE:g} of the score, one with a score of {worst:.4f}; nothing was "
            "written. Is this another version of torch, onnxscript or onnxruntime than the one "
            "that d2pd is tested with (constraints.txt)?"
        )
    rows, partners = list(pairs), list(pairs.values())
    return Agreement(
        1,
        len(pairs),
        float(np.abs(mine[0][rows] - other[0][partners]).max(initial=0)),
        float(np.abs(mine[1][rows] - other[1][partners]).max(initial=0)),
    )


def match(mine: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> dict[int, int]:
    """Pair the detections of an image by class, box and score; the best choose first.

    Args:
        mine: Boxes (N, 4), scores (N,), classes (N,).
        other: Likewise, of M.

    Returns:
        Rows of ``other`` by rows of ``mine``, of those within the tolerances; each at most once.
    """
    pairs: dict[int, int] = {}
    is_free = np.ones(len(other[1]), dtype=bool)
    for row, (box, score, number) in enumerate(zip(*mine, strict=True)):
        sides = np.abs(other[0] - box).max(axis=1, initial=0)
        fits = is_free & (other[2] == number) & (sides <= BOX_TOLERANCE)
        fits &= np.abs(other[1] - score) <= SCORE_TOLERANCE
        if fits.any():
            pairs[row] = int(np.where(fits, sides, np.inf).argmin())
            is_free[pairs[row]] = False
    return pairs
