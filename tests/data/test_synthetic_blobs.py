"""A detector without learning must fail on the drawn scenes, or they would prove nothing."""

from collections.abc import Iterator
from itertools import product

import cv2
import numpy as np
import pytest

from d2pd.data.synthetic import Frame, draw_frame, frames_of_split

PICTURES = 44
SHAPES = ((0.2, 0.8, 0.2), (0.3, 0.6, 0.35))  # least and largest width / height, least fill
MIN_HEIGHT, MAX_HEIGHT = 18, 310


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Frame, np.ndarray, np.ndarray]]:
    return [(frame, *draw_frame(frame)) for frame in frames_of_split("test", PICTURES, seed=11)]


def masks(picture: np.ndarray) -> Iterator[tuple[tuple[str, float], np.ndarray]]:
    """Every threshold of both polarities: absolute, over the median, and over the surroundings."""
    half = cv2.resize(picture, (320, 256), interpolation=cv2.INTER_AREA).astype(np.float32)
    smooth = cv2.GaussianBlur(half, (0, 0), 0.8)
    median = float(np.median(smooth[100:200]))
    scale = float(smooth.std())
    around = cv2.blur(half, (25, 25))
    for level in (20, 30, 40, 50, 60, 70, 80, 95, 110, 130, 155, 180, 210):
        yield ("above", level), smooth > level
        yield ("below", level), smooth < level
    for level in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5):
        yield ("above median", level), smooth > median + level * scale
        yield ("below median", level), smooth < median - level * scale
    for level in (3, 5, 8, 12, 18, 28):
        yield ("above surroundings", level), smooth - around > level
        yield ("below surroundings", level), smooth - around < -level


def blobs(mask: np.ndarray) -> np.ndarray:
    """(N, 5) left, top, width, height, area of the components that are as tall as persons."""
    stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2][1:]
    stats = stats * np.array([2, 2, 2, 2, 4])  # the masks have half the resolution
    return stats[(stats[:, 3] >= MIN_HEIGHT) & (stats[:, 3] <= MAX_HEIGHT)]


def overlaps(boxes: np.ndarray, labels: np.ndarray, over_own_area: bool) -> np.ndarray:
    low = np.maximum(boxes[:, None, :2], labels[None, :, :2])
    high = np.minimum(
        boxes[:, None, :2] + boxes[:, None, 2:4], labels[None, :, :2] + labels[None, :, 2:4]
    )
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    own, theirs = np.prod(boxes[:, 2:4], axis=1)[:, None], np.prod(labels[:, 2:4], axis=1)[None]
    return common / (own if over_own_area else own + theirs - common)


def judge(boxes: np.ndarray, scores: np.ndarray, frame: Frame) -> list[tuple[float, bool]]:
    """(score, is true positive) of the detections of one picture that count."""
    persons = np.array([x.box_xywh for x in frame.labels if x.kind == "person"], float)
    regions = np.array([x.box_xywh for x in frame.labels if x.kind != "person"], float)
    order = np.argsort(-scores, kind="stable")
    iou = overlaps(boxes, persons.reshape(-1, 4), False)
    absorbed = (overlaps(boxes, regions.reshape(-1, 4), True) >= 0.5).any(axis=1)
    free, judged = np.ones(len(persons), bool), []
    for index in order:
        fits = np.where(free, iou[index], 0.0)
        if fits.size and fits.max() >= 0.5:
            free[fits.argmax()] = False
            judged.append((float(scores[index]), True))
        elif not absorbed[index]:
            judged.append((float(scores[index]), False))
    return judged


def average_precision(judged: list[tuple[float, bool]], persons: int) -> float:
    """Area under the precision envelope, 0..100."""
    hits = np.array([hit for _, hit in sorted(judged, key=lambda row: -row[0])], float)
    if not hits.size:
        return 0.0
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float((envelope * hits).sum()) / persons


def best_of_all_settings(pairs: list[tuple[Frame, np.ndarray]]) -> tuple[float, object]:
    judged: dict[object, list[tuple[float, bool]]] = {}
    for frame, picture in pairs:
        for setting, mask in masks(picture):
            found = blobs(mask).astype(float)
            for shape, rank in product(SHAPES, ("height", "fill", "typical")):
                aspect, fill = found[:, 2] / found[:, 3], found[:, 4] / (found[:, 2] * found[:, 3])
                kept = (aspect >= shape[0]) & (aspect <= shape[1]) & (fill >= shape[2])
                scores = {
                    "height": found[:, 3],
                    "fill": fill,
                    "typical": -np.abs(np.log(aspect / 0.41)),
                }[rank]
                rows = judge(found[kept, :4], scores[kept], frame)
                judged.setdefault((setting, shape, rank), []).extend(rows)
    persons = sum(label.kind == "person" for frame, _ in pairs for label in frame.labels)
    results = {setting: average_precision(rows, persons) for setting, rows in judged.items()}
    setting = max(results, key=lambda key: results[key])
    return results[setting], setting


def test_average_precision_of_a_perfect_and_of_a_useless_detector() -> None:
    assert average_precision([(0.9, True), (0.8, True)], 2) == 100
    assert average_precision([(0.9, False)], 2) == 0
    assert average_precision([(0.9, True), (0.8, False), (0.7, True)], 2) == pytest.approx(
        100 * (1 + 2 / 3) / 2
    )


def test_the_blob_detector_finds_persons_where_nothing_else_is_warm() -> None:
    frame = frames_of_split("test", 1, seed=11)[0]
    picture = np.full((512, 640), 40, np.uint8)
    for label in frame.labels:
        x, y, width, height = (int(value) for value in label.box_xywh)
        picture[y : y + height, x : x + width] = 90
    assert best_of_all_settings([(frame, picture)])[0] > 70


@pytest.mark.slow
def test_threshold_and_blob_fails_on_thermal(drawn: list) -> None:
    score, setting = best_of_all_settings([(frame, thermal) for frame, _, thermal in drawn])
    assert score < 30, setting


@pytest.mark.slow
def test_threshold_and_blob_fails_on_visible(drawn: list) -> None:
    pairs = [(frame, cv2.cvtColor(visible, cv2.COLOR_BGR2GRAY)) for frame, visible, _ in drawn]
    score, setting = best_of_all_settings(pairs)
    assert score < 10, setting
