"""Errors counted: each reason by height, occlusion, place in the image and split."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from d2pd.evaluation.arrays import UNKNOWN, LabelArrays, labels_to_find
from d2pd.evaluation.error_cases import REASONS, ErrorCase, is_at_border
from d2pd.evaluation.subsets import KAIST, Split, in_split

HEIGHT_BANDS = {
    "under 45 px": (0.0, 45.0),
    "45 to 55 px": (45.0, 55.0),
    "55 to 115 px": (55.0, 115.0),
    "115 px and over": (115.0, math.inf),
}
"""Lowest height, and the one that is too high: the edges of the KAIST settings."""
OCCLUSION_BANDS = {"none": 0, "partial": 1, "heavy": 2, "not stated": UNKNOWN}
ANY_REASON = "any reason"


class ErrorCount(NamedTuple):
    """How many cases of a kind have a reason and lie in a band.

    Attributes:
        kind: A key of ``REASONS``.
        reason: One of that kind's reasons, or ``ANY_REASON``.
        by: ``height``, ``occlusion``, ``place`` or ``split``.
        band: Such as ``55 to 115 px``, ``heavy``, ``at the border`` or ``night``.
        num_cases: Of that kind, reason and band.
        num_labels: For misses all labels to find in that band; None for others.
    """

    kind: str
    reason: str
    by: str
    band: str
    num_cases: int
    num_labels: int | None


class _Members(NamedTuple):
    """What bands go by, of M cases or labels."""

    image: np.ndarray
    height: np.ndarray
    occlusion: np.ndarray
    is_at_border: np.ndarray


def count_errors(
    cases: Sequence[ErrorCase],
    labels: LabelArrays,
    splits: Sequence[Split] = KAIST.splits,
    *,
    is_ignored: np.ndarray | None = None,
) -> list[ErrorCount]:
    """Count each reason by height, occlusion, place and split.

    The height and the place of a detection are its own. Occlusion is counted for misses alone: a
    detection has none. Bands but those of splits hold each case once.

    Args:
        cases: From ``find_errors``.
        labels: What it was given.
        splits: By image; the first is usually that of all images.
        is_ignored: What ``find_errors`` was given.

    Returns:
        One row for each kind, reason and band, those without a case too; in the order of
        ``REASONS``, in each kind after ``ANY_REASON``.
    """
    wanted = _members_of_labels(labels, labels_to_find(labels, is_ignored))
    num_labels = {
        (by, band): int(np.count_nonzero(is_in))
        for by, band, is_in in _bands(wanted, labels, splits)
    }
    rows = []
    for kind, reasons in REASONS.items():
        of_kind = [case for case in cases if case.kind == kind]
        bands = list(_bands(_members_of_cases(of_kind), labels, splits))
        if kind != "miss":
            bands = [band for band in bands if band[0] != "occlusion"]
        reason = np.array([reasons.index(case.reason) for case in of_kind], dtype=np.int64)
        for name in (ANY_REASON, *reasons):
            has_reason = reason == reasons.index(name) if name in reasons else reason >= 0
            for by, band, is_in in bands:
                num_cases = int(np.count_nonzero(has_reason & is_in))
                of_labels = num_labels[by, band] if kind == "miss" else None
                rows.append(ErrorCount(kind, name, by, band, num_cases, of_labels))
    return rows


def _members_of_labels(labels: LabelArrays, chosen: np.ndarray) -> _Members:
    boxes, image = labels.boxes_xywh[chosen], labels.image_index[chosen]
    return _Members(
        image=image,
        height=boxes[:, 3],
        occlusion=labels.occlusion[chosen],
        is_at_border=is_at_border(boxes, labels.image_sizes[image]),
    )


def _members_of_cases(cases: Sequence[ErrorCase]) -> _Members:
    return _Members(
        image=np.array([case.image for case in cases], dtype=np.int64),
        height=np.array([case.height for case in cases], dtype=np.float64),
        occlusion=np.array([case.occlusion for case in cases], dtype=np.int64),
        is_at_border=np.array([case.at_border for case in cases], dtype=bool),
    )


def _bands(
    members: _Members, labels: LabelArrays, splits: Sequence[Split]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield what a band goes by, its name and its members: (M,) bool."""
    for band, (low, high) in HEIGHT_BANDS.items():
        yield "height", band, (members.height >= low) & (members.height < high)
    for band, occlusion in OCCLUSION_BANDS.items():
        yield "occlusion", band, members.occlusion == occlusion
    yield "place", "at the border", members.is_at_border
    yield "place", "inside", ~members.is_at_border
    for split in splits:
        yield "split", split.name, in_split(labels, split)[members.image]
