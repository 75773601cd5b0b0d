"""What one subset counts: labels to find, detections that found one, and those that did not."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from d2pd.evaluation.arrays import DetectionArrays, LabelArrays
from d2pd.evaluation.assignment import FALSE_POSITIVE, TRUE_POSITIVE, assign_each
from d2pd.evaluation.subsets import Protocol, ignored, in_split

REFERENCES = np.array([10 ** (-2 + k / 4) for k in range(9)])
"""False positives per image at which a miss rate is read."""

ROUNDED_REFERENCES = np.round(REFERENCES, 4)

MIN_MISS = 1e-10


@dataclass(frozen=True)
class Rules:
    """The four ways in which evaluations of one file differ; the defaults are those of ``STRICT``.

    Attributes:
        counts_empty_images: Labels on images without any detection are to be found too.
        rounds_references: The references have four decimals.
        takes_final_recall_where_none: Where no point of the curve lies at or below a reference,
            the recall of the whole curve counts, not 0.
        clamps: A miss of 0 counts as 1e-10; else one makes the whole miss rate 0.
    """

    counts_empty_images: bool = True
    rounds_references: bool = False
    takes_final_recall_where_none: bool = False
    clamps: bool = True

    @property
    def references(self) -> np.ndarray:
        """The nine false positives per image, ascending."""
        return ROUNDED_REFERENCES if self.rounds_references else REFERENCES


@dataclass(frozen=True)
class Tally:
    """The N images of a split and the P detections on them that a setting counts.

    Attributes:
        num_labels: (N,) int64, labels to find in each image.
        has_detections: (N,) bool, whether there is any detection, counted or not.
        image: (P,) int32, 0..N-1; by descending score, ties in the order of the images.
        is_true: (P,) bool, a label was found; else the detection is a false positive.
        scores: (P,) float64, descending.
    """

    num_labels: np.ndarray
    has_detections: np.ndarray
    image: np.ndarray
    is_true: np.ndarray
    scores: np.ndarray

    def num_labels_by(self, rules: Rules) -> np.ndarray:
        """Return (N,) the labels that count as to be found."""
        return self.num_labels * (self.has_detections | rules.counts_empty_images)


def tallies(
    labels: LabelArrays,
    detections: DetectionArrays,
    protocol: Protocol,
    iou_threshold: float = 0.5,
) -> Iterator[tuple[str, Tally]]:
    """Yield ``setting/split`` and its tally, in the order of the protocol; classes do not count.

    Raises:
        ConfigError: If the threshold is outside (0, 1].
    """
    order = np.argsort(-detections.scores, kind="stable")
    image, scores = detections.image_index[order], detections.scores[order]
    num_images = len(labels.image_ids)
    has_detections = np.bincount(detections.image_index, minlength=num_images) > 0
    splits = [(split.name, in_split(labels, split)) for split in protocol.splits]
    masks = [ignored(labels, setting) for setting in protocol.settings]
    assignments = assign_each(labels, detections, masks, iou_threshold)
    for setting, is_ignored, found in zip(protocol.settings, masks, assignments, strict=True):
        outcome = found.outcome[order]
        is_counted = (outcome == TRUE_POSITIVE) | (outcome == FALSE_POSITIVE)
        num_labels = np.bincount(labels.image_index[~is_ignored], minlength=num_images)
        for name, is_in in splits:
            chosen = np.flatnonzero(is_counted & is_in[image])
            position = (np.cumsum(is_in) - 1).astype(np.int32)
            yield (
                f"{setting.name}/{name}",
                Tally(
                    num_labels=num_labels[is_in],
                    has_detections=has_detections[is_in],
                    image=position[image[chosen]],
                    is_true=outcome[chosen] == TRUE_POSITIVE,
                    scores=scores[chosen],
                ),
            )


def misses(tally: Tally, weights: np.ndarray, rules: Rules) -> np.ndarray:
    """Return the miss at each reference, images counting as often as they are drawn.

    Args:
        tally: Of N images, N above 0.
        weights: (R, N) integers, how often each image counts; every row adds up to N.
        rules: Which rules to follow.

    Returns:
        (R, 9) in 0..1; NaN where the images drawn hold no label to find.
    """
    num_images = tally.num_labels.size
    # As many false positives as a reference allows, by the very division that makes an FPPI.
    steps = np.arange(num_images + 1) / num_images
    allowed = np.searchsorted(steps, rules.references, side="right") - 1
    false_at = np.flatnonzero(~tally.is_true)
    false = _running_sums(weights, tally.image[false_at], int(allowed[-1]))
    true = _running_sums(weights, tally.image[tally.is_true])
    true_before = np.append(false_at - np.arange(false_at.size), true.shape[1] - 1)
    # The curve's last point at or below a reference: just before the first false positive too many.
    last = np.stack([np.searchsorted(row, allowed, side="right") for row in false]) - 1
    found = np.take_along_axis(true, true_before[last], axis=1)
    if rules.takes_final_recall_where_none:
        has_no_point = (found == 0) & (allowed == 0)
        found = np.where(has_no_point, true[:, -1:], found)
    to_find = (weights @ tally.num_labels_by(rules))[:, None]
    has_labels = (weights @ tally.num_labels)[:, None] > 0
    return np.where(has_labels, 1 - found / np.maximum(to_find, 1), np.nan)


def log_average(misses: np.ndarray, rules: Rules) -> np.ndarray:
    """Return (R,) the geometric means in percent of (R, 9) misses in 0..1."""
    with np.errstate(divide="ignore"):  # not clamped, a miss of 0 makes the mean 0
        logarithms = np.log(np.maximum(misses, MIN_MISS if rules.clamps else 0))
    return 100 * np.exp(logarithms.mean(axis=1))


def _running_sums(weights: np.ndarray, image: np.ndarray, enough: int | None = None) -> np.ndarray:
    """Add up the weights of a sequence of images, starting at 0.

    Args:
        weights: (R, N).
        image: (S,) of 0..N-1.
        enough: The sequence may end once every row is above it: few of many false positives are
            of interest.

    Returns:
        (R, S + 1) or less.
    """
    size = image.size if enough is None else min(image.size, enough + enough // 4 + 64)
    while True:
        sums = np.zeros((len(weights), size + 1), dtype=weights.dtype)
        np.cumsum(np.take(weights, image[:size], axis=1), axis=1, out=sums[:, 1:])
        if size == image.size or (enough is not None and (sums[:, -1] > enough).all()):
            return sums
        size = min(2 * size, image.size)
