"""Tells a detector that fails from labels whose boxes mean something else.

Where AP is near 0, the best-scored detections are laid beside the labels: do they overlap a little,
are they larger by one factor, would they fit if the labels had been read another way?
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, labels_to_find

LOW_AP = 5.0
"""Percent; above it the labels fit well enough for a detector to be judged by them."""

FITTING_IOU = 0.5
"""Median IoU from which boxes count as fitting."""

MIN_GAIN = 0.15
"""By how much a cause has to raise the median IoU: a free shift raises any a little."""

PREFERENCE = 0.03
"""By how much a cause has to fit better than a simpler one, which stands before it."""

MIN_PAIRS = 10
"""Fewer pairs than that may fit by chance."""

MAX_DETECTIONS = 2000
"""As many are looked at: a convention is the same everywhere."""

NUM_ROUNDS = 5
"""Rounds of pairing boxes and estimating how they differ."""


@dataclass(frozen=True)
class BoxFit:
    """How the best-scored detections lie beside the nearest label; all but the shares medians.

    Attributes:
        num_pairs: Detections looked at.
        iou: IoU, 0..1.
        partial: Share of them with an IoU of .1 to .5.
        ratio: Width and height of the detection, in those of the label.
        offset: Centre of the detection right of and below that of the label, in widths and
            heights of the label.
    """

    num_pairs: int
    iou: float
    partial: float
    ratio: tuple[float, float]
    offset: tuple[float, float]


@dataclass(frozen=True)
class _Boxes:
    """Boxes XYWH of some images: (M, 4), (M,) image, (M, 2) width and height of the image."""

    xywh: np.ndarray
    image: np.ndarray
    image_sizes: np.ndarray


def explain_low_ap(
    labels: LabelArrays, detections: DetectionArrays, results: Mapping[str, float]
) -> str | None:
    """Say that the labels may follow another convention, and which, if that is why AP is near 0.

    Args:
        labels: The labels that AP was computed from; regions to ignore are left out.
        detections: On the same images.
        results: What ``coco.evaluate_boxes`` returned, percent.

    Returns:
        A text with the figures measured, or None: AP is not near 0, the detections miss the labels
        rather than overlap them, or there are too few to tell.
    """
    if not results["AP"] < LOW_AP:  # NaN has reasons of its own
        return None
    fit = measure_fit(labels, detections)
    if fit is None or fit.iou >= FITTING_IOU:
        return None
    cause, iou = _likely_cause(_best_scored(labels, detections), _objects(labels))
    is_cause_found = iou >= max(FITTING_IOU, fit.iou + MIN_GAIN)
    if not is_cause_found and fit.partial < 0.5:
        return None
    end = "No single cause fits; it may as well be a detector that does not locate well yet."
    if is_cause_found:
        end = f"Median IoU would be {iou:.2f} instead of {fit.iou:.2f} if {cause}."
    start = f"AP is {results['AP']:.1f}, but the labels may follow another convention:"
    return f"{start} {_figures(fit)} {end}"


def measure_fit(labels: LabelArrays, detections: DetectionArrays) -> BoxFit | None:
    """Measure how the best-scored detections lie beside the nearest label of their image.

    Classes are not looked at. Of D detections the best G count, G the number of objects, so that
    scores of any scale will do; 2,000 at most.

    Returns:
        The figures, or None if there are fewer than 10 pairs or no label has a size.
    """
    truth = _objects(labels)
    ours, theirs = _pairs(_best_scored(labels, detections), truth, truth)
    if len(ours) < MIN_PAIRS:
        return None
    iou = _iou(ours, theirs)
    has_size = (theirs[:, 2:] != 0).all(axis=1)
    if not has_size.any():
        return None
    ratio, offset = _ratio_and_offset(ours[has_size], theirs[has_size])
    return BoxFit(
        num_pairs=len(ours),
        iou=float(np.median(iou)),
        partial=float(np.mean((iou >= 0.1) & (iou < 0.5))),
        ratio=(float(ratio[0]), float(ratio[1])),
        offset=(float(offset[0]), float(offset[1])),
    )


def _figures(fit: BoxFit) -> str:
    return (
        f"{fit.partial:.0%} of the {fit.num_pairs} best-scored detections overlap the nearest "
        f"label at an IoU of .1 to .5; they are {fit.ratio[0]:.2f} times as wide and "
        f"{fit.ratio[1]:.2f} times as high, their centre {fit.offset[0]:+.2f} widths and "
        f"{fit.offset[1]:+.2f} heights off (medians)."
    )


def _likely_cause(found: _Boxes, truth: _Boxes) -> tuple[str, float]:
    """Return the reading of the labels that fits best, in words, and its median IoU."""
    best, best_iou = "", 0.0
    for cause, boxes, is_whole in _readings(found, truth):
        nearest = _nearest(found, boxes)
        paired = nearest >= 0
        paired[paired] = is_whole[nearest[paired]]
        if paired.sum() < max(MIN_PAIRS, 0.1 * len(nearest)):
            continue
        iou = float(np.median(_iou(found.xywh[paired], boxes.xywh[nearest[paired]])))
        if iou > best_iou + PREFERENCE:
            best, best_iou = cause, iou
    return best, best_iou


def _readings(found: _Boxes, truth: _Boxes) -> Iterator[tuple[str, _Boxes, np.ndarray]]:
    """Yield what may be the matter, the labels without it, and which of them say how wide they are.

    What has no free number comes first.
    """
    has_size = (truth.xywh[:, 2:] > 0).all(axis=1)
    # A corner that was taken for a size reaches out of the image, and cleaning cuts it there.
    ends = truth.xywh[:, :2] + truth.xywh[:, 2:]
    for cause, read in _KNOWN_READINGS.items():
        is_whole = (ends < truth.image_sizes).all(axis=1) | (read is not _as_corners)
        yield cause, _changed(truth, read(truth.xywh, truth.image_sizes)), is_whole
    sized = _Boxes(truth.xywh[has_size], truth.image[has_size], truth.image_sizes[has_size])
    if (_nearest(found, sized) >= 0).any():
        for fitted in (_shifted, _rescaled, _resized):
            cause, boxes = fitted(found, sized)
            yield cause, boxes, np.ones(len(boxes.xywh), dtype=bool)


def _as_corners(xywh: np.ndarray, _image_sizes: np.ndarray) -> np.ndarray:
    return np.hstack([xywh[:, :2], xywh[:, 2:] - xywh[:, :2]])


def _as_sizes(xywh: np.ndarray, _image_sizes: np.ndarray) -> np.ndarray:
    return np.hstack([xywh[:, :2], xywh[:, 2:] + xywh[:, :2]])


def _as_centres(xywh: np.ndarray, _image_sizes: np.ndarray) -> np.ndarray:
    return np.hstack([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, 2:]])


def _from_centres(xywh: np.ndarray, _image_sizes: np.ndarray) -> np.ndarray:
    return np.hstack([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]])


def _swapped(xywh: np.ndarray, _image_sizes: np.ndarray) -> np.ndarray:
    return xywh[:, [1, 0, 3, 2]]


def _fractions(xywh: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    return xywh * np.hstack([image_sizes, image_sizes])


_KNOWN_READINGS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "the labels' corners x1, y1, x2, y2 were read as x, y, width, height, "
    "or the detections' x, y, width, height as corners": _as_corners,
    "the labels' x, y, width, height were read as corners x1, y1, x2, y2, "
    "or the detections' corners as x, y, width, height": _as_sizes,
    "the labels' x and y are the centre of the box and were read as its upper left corner, "
    "or the detections' corner as the centre": _as_centres,
    "the labels' x and y are the upper left corner of the box and were read as its centre, "
    "or the detections' centre as the corner": _from_centres,
    "x and y are swapped in the labels or in the detections": _swapped,
    "the labels are fractions of the image's width and height, not pixels": _fractions,
}


def _shifted(found: _Boxes, truth: _Boxes) -> tuple[str, _Boxes]:
    boxes, shift = truth, np.zeros(2)
    for _ in range(NUM_ROUNDS):
        ours, theirs = _pairs(found, boxes, truth)
        shift = np.median(_centres(ours) - _centres(theirs), axis=0)
        boxes = _changed(truth, truth.xywh + np.array([*shift, 0, 0]))
    cause = f"the labels were shifted by {shift[0]:+.1f} px in x and {shift[1]:+.1f} px in y"
    return cause, boxes


def _rescaled(found: _Boxes, truth: _Boxes) -> tuple[str, _Boxes]:
    scale = np.median(found.xywh[:, 2:], axis=0) / np.median(truth.xywh[:, 2:], axis=0)
    for _ in range(NUM_ROUNDS):
        boxes = _changed(truth, truth.xywh * [*scale, *scale])
        ours, theirs = _pairs(found, boxes, truth)
        scale = np.median(_centres(ours) / np.maximum(_centres(theirs), 1e-9), axis=0)
    cause = (
        "the labels are of another resolution: made "
        f"{scale[0]:.3g} times as large in x and {scale[1]:.3g} times in y, from the image's corner"
    )
    return cause, _changed(truth, truth.xywh * [*scale, *scale])


def _resized(found: _Boxes, truth: _Boxes) -> tuple[str, _Boxes]:
    boxes = truth
    ratio, offset = np.ones(2), np.zeros(2)
    for _ in range(NUM_ROUNDS):
        ours, theirs = _pairs(found, boxes, truth)
        ratio, offset = _ratio_and_offset(ours, theirs)
        sizes = truth.xywh[:, 2:] * ratio
        centres = _centres(truth.xywh) + offset * truth.xywh[:, 2:]
        boxes = _changed(truth, np.hstack([centres - sizes / 2, sizes]))
    cause = (
        "the labels box another part or extent of the object, as faces do beside heads: made "
        f"{ratio[0]:.2f} times as wide and {ratio[1]:.2f} times as high, moved by "
        f"{offset[0]:+.2f} widths and {offset[1]:+.2f} heights"
    )
    return cause, boxes


def _objects(labels: LabelArrays) -> _Boxes:
    is_object = labels_to_find(labels)
    image = labels.image_index[is_object]
    return _Boxes(labels.boxes_xywh[is_object], image, labels.image_sizes[image][:, ::-1])


def _best_scored(labels: LabelArrays, detections: DetectionArrays) -> _Boxes:
    """Take the best G detections, G the number of objects, on images that hold one."""
    objects = labels.image_index[labels_to_find(labels)]
    candidates = np.flatnonzero(np.isin(detections.image_index, objects))
    order = np.argsort(-detections.scores[candidates], kind="stable")
    best = candidates[order[: min(len(objects), MAX_DETECTIONS)]]
    image = detections.image_index[best]
    return _Boxes(detections.boxes_xywh[best], image, labels.image_sizes[image][:, ::-1])


def _changed(boxes: _Boxes, xywh: np.ndarray) -> _Boxes:
    return _Boxes(xywh, boxes.image, boxes.image_sizes)


def _pairs(found: _Boxes, moved: _Boxes, truth: _Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Return detections and, as in ``truth``, the labels that are nearest where ``moved`` is."""
    nearest = _nearest(found, moved)
    return found.xywh[nearest >= 0], truth.xywh[nearest[nearest >= 0]]


def _nearest(found: _Boxes, truth: _Boxes) -> np.ndarray:
    """Return for each detection the label of its image with the nearest centre; -1 for none."""
    starts = np.searchsorted(truth.image, found.image, side="left")
    counts = np.searchsorted(truth.image, found.image, side="right") - starts
    detection = np.repeat(np.arange(len(counts)), counts)
    label = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
    away = _centres(found.xywh)[detection] - _centres(truth.xywh)[label]
    order = np.lexsort((np.hypot(away[:, 0], away[:, 1]), detection))
    owners, first = np.unique(detection[order], return_index=True)
    nearest = np.full(len(counts), -1)
    nearest[owners] = label[order[first]]
    return nearest


def _ratio_and_offset(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sizes = theirs[:, 2:]
    ratio = np.median(ours[:, 2:] / sizes, axis=0)
    return ratio, np.median((_centres(ours) - _centres(theirs)) / sizes, axis=0)


def _centres(xywh: np.ndarray) -> np.ndarray:
    return xywh[:, :2] + xywh[:, 2:] / 2


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the IoU of M boxes with M others, 0 where one has no area."""
    ends = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:])
    shared = np.clip(ends - np.maximum(one[:, :2], other[:, :2]), 0, None).prod(axis=1)
    areas = [np.clip(boxes[:, 2:], 0, None).prod(axis=1) for boxes in (one, other)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)
