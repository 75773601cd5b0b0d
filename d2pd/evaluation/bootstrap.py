"""How far a miss rate is to be trusted: intervals over images drawn again."""

import numpy as np

from d2pd.evaluation.arrays import DetectionArrays, LabelArrays
from d2pd.evaluation.miss_rate import STRICT
from d2pd.evaluation.subsets import Protocol
from d2pd.evaluation.tally import Rules, Tally, log_average, misses, tallies

PERCENTILES = (2.5, 97.5)

NUMBERS_AT_ONCE = 2**21
"""Resamples times images or detections that are held together: it bounds the memory."""


def intervals(
    labels: LabelArrays,
    detections: DetectionArrays,
    protocol: Protocol,
    rules: Rules = STRICT,
    iou_threshold: float = 0.5,
    *,
    repetitions: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Compute the 95 % percentile interval of every subset's miss rate.

    A resample draws as many images as the split has, with replacement; every setting of a split,
    and every detector, meets the same resamples. What one draw changes is the images: the
    interval says nothing of another training of the detector.

    Args:
        labels: As for ``miss_rates``.
        detections: As for ``miss_rates``.
        protocol: The subsets.
        rules: Which rules to follow.
        iou_threshold: In (0, 1].
        repetitions: Resamples, 1 or more.
        seed: Of the draws; equal seeds give equal intervals.

    Returns:
        ``setting/split`` -> low and high end in percent; NaN if there is no label to find.

    Raises:
        ConfigError: If the threshold is outside (0, 1].
        ValueError: If ``repetitions`` is less than 1.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if repetitions < 1:
        raise ValueError(f"repetitions must be 1 or more, got {repetitions}")
    found = tallies(labels, detections, protocol, iou_threshold)
    return {name: interval(tally, rules, repetitions, seed) for name, tally in found}


def resampled(tally: Tally, weights: np.ndarray, rules: Rules = STRICT) -> np.ndarray:
    """Compute the miss rate of resamples, in which each image counts as often as it was drawn.

    It is that of images which are there so many times, one beside the other; only detections of
    one image with equal scores stand in another order then.

    Args:
        tally: Of N images, N above 0.
        weights: (R, N) integers, every row adds up to N.
        rules: Which rules to follow.

    Returns:
        (R,) percent; NaN where the images drawn hold no label to find.
    """
    return log_average(misses(tally, weights, rules), rules)


def interval(tally: Tally, rules: Rules, repetitions: int, seed: int) -> tuple[float, float]:
    """Compute the interval of what one subset counts; see ``intervals``."""
    if not tally.num_labels.any():
        return np.nan, np.nan
    generator = np.random.default_rng(seed)
    num_images = tally.num_labels.size
    at_once = max(1, NUMBERS_AT_ONCE // max(num_images, tally.image.size))
    values = [
        resampled(tally, _draw(generator, min(at_once, repetitions - done), num_images), rules)
        for done in range(0, repetitions, at_once)
    ]
    low, high = np.nanpercentile(np.concatenate(values), PERCENTILES)
    return float(low), float(high)


def _draw(generator: np.random.Generator, count: int, num_images: int) -> np.ndarray:
    """Return (count, N) how often each image is drawn."""
    drawn = generator.integers(num_images, size=(count, num_images))
    drawn += np.arange(count)[:, None] * num_images
    counts = np.bincount(drawn.ravel(), minlength=count * num_images)
    return counts.reshape(count, num_images).astype(np.int32)
