import re
import time

import numpy as np
import pytest
import random_scenes
from hypothesis import given, settings
from hypothesis import strategies as st

from d2pd.data.annotations import read_kaist_json
from d2pd.evaluation.arrays import detection_arrays, label_arrays
from d2pd.evaluation.coco import evaluate_boxes
from d2pd.evaluation.label_convention import explain_low_ap, measure_fit

HEIGHT, WIDTH = 480, 640
LOW = {"AP": 0.4}


def labels_of(boxes, image, num_images, is_ignore=None):
    is_ignore = np.zeros(len(boxes), dtype=bool) if is_ignore is None else is_ignore
    rows = [(n, 0, flag, *box) for n, flag, box in zip(image, is_ignore, boxes, strict=True)]
    return random_scenes.labels_of(rows, num_images, ["person"], (HEIGHT, WIDTH))


def true_boxes(seed, num_images=40):
    """Objects apart from each other: one in each of three or so columns of an image."""
    rng = np.random.default_rng(seed)
    boxes, image = [], []
    for n in range(num_images):
        for column in rng.permutation(4)[: rng.integers(1, 4)]:
            width, height = rng.uniform(20, 60), rng.uniform(40, 140)
            boxes.append([160 * column + rng.uniform(0, 100), rng.uniform(0, 300), width, height])
            image.append(n)
    return np.array(boxes), np.array(image)


def detected(boxes, image, seed, noise=0.04):
    """Boxes as a good detector gives them, and as many with low scores that are nothing."""
    rng = np.random.default_rng(seed + 1)
    near = boxes + rng.normal(0, noise, boxes.shape) * boxes[:, [2, 3, 2, 3]]
    far = np.hstack([rng.uniform(0, 400, (len(boxes), 2)), rng.uniform(10, 90, (len(boxes), 2))])
    return detection_arrays(
        np.tile(image, 2),
        np.vstack([near, far]),
        np.concatenate([rng.uniform(0.6, 1, len(boxes)), rng.uniform(0, 0.5, len(boxes))]),
        np.zeros(2 * len(boxes)),
    )


def explain(written, boxes, image, seed=0):
    labels = labels_of(written, image, image.max() + 1)
    return explain_low_ap(labels, detected(boxes, image, seed), LOW)


def resized(boxes, ratio, offset=(0, 0)):
    sizes = boxes[:, 2:] * ratio
    centres = boxes[:, :2] + boxes[:, 2:] * (np.array(offset) + 0.5)
    return np.hstack([centres - sizes / 2, sizes])


def moved(boxes, widths, heights):
    return boxes + np.array([widths, heights, 0, 0]) * boxes[:, [2, 3, 2, 3]]


PLANTED = [
    # What is named, with the numbers named; what was done to the boxes.
    (
        "labels' corners x1, y1, x2, y2 were read as x, y, width, height",
        lambda b: np.hstack([b[:, :2], b[:, :2] + b[:, 2:]]),
    ),
    (
        "labels' x, y, width, height were read as corners x1, y1, x2, y2",
        lambda b: np.hstack([b[:, :2], b[:, 2:] - b[:, :2]]),
    ),
    ("labels' x and y are the centre of the box", lambda b: moved(b, 0.5, 0.5)),
    ("labels' x and y are the upper left corner of the box", lambda b: moved(b, -0.5, -0.5)),
    ("x and y are swapped", lambda b: b[:, [1, 0, 3, 2]]),
    ("fractions of the image's width and height", lambda b: b / [WIDTH, HEIGHT, WIDTH, HEIGHT]),
    ("shifted by -30 px in x and 25 px in y", lambda b: b + np.array([30, -25, 0, 0])),
    ("another resolution: made 2 times as large in x and 2 times in y", lambda b: b / 2),
    (
        "another resolution: made 0.67 times as large in x and 0.8 times in y",
        lambda b: b * [1.5, 1.25, 1.5, 1.25],
    ),
    (
        "faces do beside heads: made 1.5 times as wide and 1.5 times as high, "
        "moved by 0 widths and 0 heights",
        lambda b: resized(b, 1 / 1.5),
    ),
    (
        "faces do beside heads: made 0.6 times as wide and 0.6 times as high, "
        "moved by -0.03 widths and -0.18 heights",
        lambda b: resized(b, 1 / 0.6, (0.05, 0.3)),
    ),
]
NUMBER = re.compile(r"(?<![a-z\d])[-+]?\d+(?:\.\d+)?")


@pytest.mark.parametrize(("cause", "change"), PLANTED, ids=[cause for cause, _ in PLANTED])
@pytest.mark.parametrize("seed", range(3))
def test_planted_convention_is_named(cause, change, seed):
    boxes, image = true_boxes(seed)
    text = explain(change(boxes), boxes, image, seed)
    assert text.startswith("AP is 0.4, but the labels may follow another convention: ")
    text = text[text.index(" if ") :]
    assert NUMBER.sub("#", cause) in NUMBER.sub("#", text)
    measured = [float(number) for number in NUMBER.findall(text)]
    for number, expected in zip(measured, NUMBER.findall(cause), strict=True):
        assert number == pytest.approx(float(expected), rel=0.03, abs=0.02)


def test_corners_read_as_sizes_are_named_after_cleaning_cut_them_at_the_border():
    boxes, image = true_boxes(0)
    written = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    written[:, 2:] = np.minimum(written[:, 2:], [WIDTH, HEIGHT] - written[:, :2])
    assert "corners x1, y1, x2, y2 were read as x, y, width" in explain(written, boxes, image)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_random_detections_say_nothing(seed):
    boxes, image = true_boxes(seed)
    other, elsewhere = true_boxes(seed + 1)
    labels = labels_of(boxes, image, 40)
    assert explain_low_ap(labels, detected(other, elsewhere, seed), LOW) is None


@pytest.mark.parametrize("ap", [5.0, 60.0, float("nan")])
def test_nothing_is_said_where_ap_is_fine_or_could_not_be_computed(ap):
    boxes, image = true_boxes(0)
    labels = labels_of(boxes / 2, image, 40)
    assert explain_low_ap(labels, detected(boxes, image, 0), {"AP": ap}) is None


def test_nothing_is_said_where_the_boxes_fit():
    boxes, image = true_boxes(0)
    assert explain(boxes, boxes, image) is None


def test_nothing_is_said_of_a_shift_where_the_boxes_overlap_by_half_and_more():
    boxes, image = true_boxes(0)
    assert explain(moved(boxes, 0.1, 0.1), boxes, image) is None


def test_two_labels_that_another_reading_fits_by_chance_say_nothing():
    boxes, image = true_boxes(0)
    at_border = np.hstack([boxes[:, :2], [WIDTH, HEIGHT] - boxes[:, :2]])
    upper_left = np.flatnonzero((2 * boxes[:, :2] + boxes[:, 2:] < [WIDTH, HEIGHT]).all(axis=1))
    two = upper_left[:2]
    at_border[two, 2:] = boxes[two, :2] + boxes[two, 2:]
    assert explain(at_border, boxes, image) is None


def test_cause_that_gains_little_is_not_named():
    boxes, image = true_boxes(0)
    rng = np.random.default_rng(0)
    places = boxes[:, :2] + (0.15 + rng.normal(0, 0.18, (len(boxes), 2))) * boxes[:, 2:]
    written = np.hstack([places, boxes[:, 2:]])
    fit = measure_fit(labels_of(written, image, 40), detected(boxes, image, 0))
    assert 0.4 < fit.iou < 0.5
    moved_back = measure_fit(
        labels_of(moved(written, *fit.offset), image, 40), detected(boxes, image, 0)
    )
    assert 0.5 < moved_back.iou < fit.iou + 0.15
    assert "No single cause fits" in explain(written, boxes, image)


def test_nothing_is_said_of_few_boxes_or_none():
    boxes, image = true_boxes(0)
    few = labels_of(boxes[:9] / 2, image[:9], 40)
    assert explain_low_ap(few, detected(boxes, image, 0), LOW) is None
    none = labels_of([], [], 40)
    assert explain_low_ap(none, detected(boxes, image, 0), LOW) is None
    no_detections = detection_arrays(np.array([]), [], np.array([]), np.array([]))
    labels = labels_of(boxes, image, 40)
    assert explain_low_ap(labels, no_detections, LOW) is None
    assert measure_fit(labels, no_detections) is None


def test_partial_overlap_without_a_cause_is_told_with_its_figures():
    boxes, image = true_boxes(0)
    rng = np.random.default_rng(0)
    sides = rng.choice([-1, 1], (len(boxes), 2))
    scattered = np.hstack([boxes[:, :2] + 0.35 * sides * boxes[:, 2:], boxes[:, 2:]])
    text = explain(scattered, boxes, image)
    assert "No single cause fits" in text
    assert "best-scored detections overlap the nearest label at an IoU of .1 to .5" in text


def test_figures_by_hand():
    """Twelve images, a label of 40x100 each; detections twice as wide, 10 px to the right."""
    image = np.arange(12)
    labels = labels_of(np.tile([100.0, 100, 40, 100], (12, 1)), image, 12)
    boxes = np.tile([90.0, 100, 80, 100], (12, 1))
    fit = measure_fit(labels, detection_arrays(image, boxes, np.ones(12), np.zeros(12)))
    assert (fit.num_pairs, fit.ratio, fit.offset) == (12, (2.0, 1.0), (0.25, 0.0))
    assert fit.iou == pytest.approx(0.5)
    assert fit.partial == 0
    boxes[:7, 2] = 90
    fit = measure_fit(labels, detection_arrays(image, boxes, np.ones(12), np.zeros(12)))
    assert fit.iou == pytest.approx(4 / 9)
    assert fit.partial == pytest.approx(7 / 12)


def test_only_the_best_scores_and_no_regions_to_ignore_count():
    boxes, image = true_boxes(0)
    is_ignore = np.arange(len(boxes)) % 2 == 1
    labels = labels_of(boxes, image, 40, is_ignore)
    best = detection_arrays(
        np.tile(image, 2)[: 2 * len(boxes)],
        np.vstack([boxes, boxes + 300]),
        np.repeat([1.0, 0.5], len(boxes)) - np.tile(is_ignore, 2) * 0.6,
        np.zeros(2 * len(boxes)),
    )
    fit = measure_fit(labels, best)
    assert fit.num_pairs == (~is_ignore).sum()
    assert (fit.iou, fit.ratio) == (1.0, (1.0, 1.0))


def test_scale_and_order_of_scores_change_nothing():
    boxes, image = true_boxes(1)
    labels = labels_of(boxes * 1.5, image, 40)
    found = detected(boxes, image, 1)
    again = detection_arrays(
        found.image_index[::-1],
        found.boxes_xywh[::-1],
        found.scores[::-1] * 1000 - 300,
        found.classes[::-1],
    )
    assert explain_low_ap(labels, again, LOW) == explain_low_ap(labels, found, LOW)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda b: b / 2, "another resolution: made 2"),
        (lambda b: np.hstack([b[:, :2], b[:, :2] + b[:, 2:]]), "labels' corners x1, y1, x2, y2"),
        (lambda b: moved(b, 0.5, 0.5), "the centre of the box"),
        (lambda b: resized(b, 0.6), r"faces do beside heads: made 1\.[67]"),
        (lambda b: b, None),
    ],
)
def test_real_detections_on_real_labels_changed(shared_data, change, cause):
    records = read_kaist_json(shared_data / "kaist" / "test20.json", None).records
    for record in records:
        boxes = np.array([row["bbox"] for row in record["annotations"]]).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        boxes = change(boxes)
        boxes[:, 2:] += boxes[:, :2]
        for row, box in zip(record["annotations"], boxes.tolist(), strict=True):
            row["bbox"] = box
    rows = np.loadtxt(shared_data / "kaist/results/MLPD_result.txt", delimiter=",")
    image, boxes, scores = rows[:, 0].astype(int) - 1, rows[:, 1:5], rows[:, 5]
    predictions = [
        {"image_id": int(number), "category_id": 0, "bbox": box.tolist(), "score": float(score)}
        for number, box, score in zip(image, boxes, scores, strict=True)
    ]
    results = evaluate_boxes(records, predictions, ["person"])
    labels = label_arrays(records, ["person"])
    found = detection_arrays(image, boxes, scores, np.zeros(len(rows)))
    text = explain_low_ap(labels, found, results)
    assert (text is None) == (cause is None), (text, results)
    assert cause is None or re.search(cause, text), text


def test_a_million_detections_take_seconds():
    rng = np.random.default_rng(0)
    num_images = 5000
    image = np.sort(rng.integers(0, num_images, 20_000))
    boxes = np.hstack([rng.uniform(0, 500, (20_000, 2)), rng.uniform(20, 90, (20_000, 2))])
    labels = labels_of(boxes, image, num_images)
    found = detection_arrays(
        rng.integers(0, num_images, 1_000_000),
        np.hstack([rng.uniform(0, 500, (1_000_000, 2)), rng.uniform(20, 90, (1_000_000, 2))]),
        rng.random(1_000_000),
        np.zeros(1_000_000),
    )
    start = time.process_time()
    explain_low_ap(labels, found, LOW)
    assert time.process_time() - start < 5
