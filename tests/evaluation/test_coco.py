import contextlib
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2pd.errors import AnnotationError
from d2pd.evaluation.coco import METRICS, evaluate_boxes, explain_nan


def annotation(bbox, category_id=0, ignore=0):
    return {
        "bbox": [float(v) for v in bbox],
        "bbox_mode": 0,
        "category_id": category_id,
        "ignore": ignore,
        "iscrowd": ignore,
    }


def record(image_id, *annotations):
    return {
        "file_name": f"{image_id}.jpg",
        "image_id": image_id,
        "height": 512,
        "width": 640,
        "annotations": list(annotations),
    }


def detection(image_id, xyxy, score=0.9, category_id=0):
    x1, y1, x2, y2 = xyxy
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": score,
    }


def random_scene(seed, classes, images=6):
    """Labels and detections that partly fit, with ties in the scores and ignore regions."""
    rng = np.random.default_rng(seed)
    records, predictions = [], []
    for image in range(images):
        rows = []
        for _ in range(rng.integers(0, 7)):
            corner = rng.uniform(0, 400, 2).round(rng.integers(0, 3))
            side = np.exp(rng.uniform(np.log(4), np.log(220), 2)).round(1)
            box = [*corner, *(corner + side)]
            ignore = int(rng.random() < 0.25)
            category = -1 if ignore and rng.random() < 0.5 else int(rng.integers(classes))
            rows.append(annotation(box, category, ignore))
            for _ in range(rng.integers(0, 4)):
                moved = np.array(box) + rng.normal(0, 0.12, 4) * [*side, *side]
                if (moved[2:] > moved[:2]).all():
                    label = int(rng.integers(classes)) if category == -1 else category
                    score = round(rng.random(), int(rng.choice([1, 9])))
                    predictions.append(detection(f"i{image}", moved.tolist(), score, label))
        records.append(record(f"i{image}", *rows))
    return records, predictions


def crowded_scene(seed, num_levels):
    """Four images: two crowded, one without labels, one without detections."""
    rng = np.random.default_rng(seed)
    records, predictions = [], []
    for image in range(4):
        sides = rng.choice([12.0, 32.0, 64.0, 96.0, 150.0], 40)
        corners = rng.integers(0, 400, (40, 2)).astype(float)
        categories, is_region = rng.integers(0, 2, 40), rng.random(40) < 0.1
        rows = [
            annotation([*corner, *(corner + side)], int(category), int(region))
            for corner, side, category, region in zip(
                corners, sides, categories, is_region, strict=True
            )
        ]
        records.append(record(image, *(rows if image != 2 else [])))
        for n in rng.integers(0, 40, 0 if image == 3 else 320):
            x, y = corners[n] + rng.normal(0, 0.1, 2) * sides[n]
            score = float(rng.integers(num_levels)) / num_levels
            box = [x, y, x + sides[n], y + sides[n]]
            predictions.append(detection(image, box, score, int(categories[n])))
    return records, predictions


def pycocotools_results(records, predictions, class_names):
    """The same question put to pycocotools, in a conversion of its own."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    number = {r["image_id"]: n for n, r in enumerate(records, 1)}
    rows = []
    for r in records:
        for a in r["annotations"]:
            x1, y1, x2, y2 = a["bbox"]
            for category in range(len(class_names)):
                if a["category_id"] in (-1, category):
                    rows.append(
                        {
                            "id": len(rows) + 1,
                            "image_id": number[r["image_id"]],
                            "category_id": category + 1,
                            "bbox": [x1, y1, x2 - x1, y2 - y1],
                            "area": (x2 - x1) * (y2 - y1),
                            "iscrowd": a["ignore"],
                        }
                    )
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": n} for n in number.values()],
        "annotations": rows,
        "categories": [{"id": n + 1} for n in range(len(class_names))],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(
            [
                p | {"image_id": number[p["image_id"]], "category_id": p["category_id"] + 1}
                for p in predictions
            ]
        )
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    results = dict(zip(METRICS, evaluation.stats[:6], strict=True))
    for index, name in enumerate(class_names):
        values = evaluation.eval["precision"][:, :, index, 0, -1]
        values = values[values > -1]
        results[f"AP-{name}"] = values.mean() if values.size else -1
    return {name: 100 * value if value >= 0 else math.nan for name, value in results.items()}


def assert_equal(results, expected):
    assert list(results) == list(expected)
    for name, value in expected.items():
        assert results[name] == pytest.approx(value, rel=0, abs=1e-12, nan_ok=True), name


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), classes=st.integers(1, 3))
def test_equal_to_pycocotools(seed, classes):
    pytest.importorskip("pycocotools")
    records, predictions = random_scene(seed, classes)
    if predictions:
        names = ["person", "cyclist", "car"][:classes]
        expected = pycocotools_results(records, predictions, names)
        assert_equal(evaluate_boxes(records, predictions, names), expected)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32), num_levels=st.sampled_from([1, 3, 1000]))
def test_equal_to_pycocotools_on_crowded_images(seed, num_levels):
    """Over 100 detections of a class on an image, most scores tied, sizes on the bounds."""
    pytest.importorskip("pycocotools")
    records, predictions = crowded_scene(seed, num_levels)
    names = ["person", "cyclist"]
    results = evaluate_boxes(records, predictions, names)
    assert_equal(results, pycocotools_results(records, predictions, names))
    assert 0 < results["AP"] < 100


def test_crowded_scene_is_what_it_is_said_to_be():
    records, predictions = crowded_scene(0, 3)
    first = [p for p in predictions if p["image_id"] == 0]
    for category in (0, 1):
        assert sum(p["category_id"] == category for p in first) > 100
    assert len({p["score"] for p in predictions}) == 3
    rows = [a for r in records for a in r["annotations"]]
    areas = {(a["bbox"][2] - a["bbox"][0]) * (a["bbox"][3] - a["bbox"][1]) for a in rows}
    assert {32.0**2, 96.0**2} < areas
    assert any(a["ignore"] for a in rows)
    assert not records[2]["annotations"]
    assert not any(p["image_id"] == 3 for p in predictions)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_order_of_images_changes_nothing(seed, data):
    records, predictions = random_scene(seed, 2)
    names = ["person", "cyclist"]
    shuffled = data.draw(st.permutations(records))
    one = evaluate_boxes(records, predictions, names)
    other = evaluate_boxes(shuffled, predictions, names)
    # Equal scores on different images are ranked by image order: leave those scenes out.
    scores = [p["score"] for p in predictions]
    if len(set(scores)) == len(scores):
        assert_equal(other, one)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_labels_as_detections_are_perfect(seed):
    records, _ = random_scene(seed, 2)
    predictions = [
        detection(r["image_id"], a["bbox"], 1.0, max(0, a["category_id"]))
        for r in records
        for a in r["annotations"]
    ]
    results = evaluate_boxes(records, predictions, ["person", "cyclist"])
    assert all(math.isnan(value) or value == pytest.approx(100) for value in results.values())


def test_average_precision_by_hand():
    labels = [annotation([0, 0, 50, 100]), annotation([200, 0, 250, 100])]
    records = [record("a", *labels)]
    predictions = [
        detection("a", [0, 0, 50, 100], 0.9),
        detection("a", [400, 0, 450, 100], 0.8),
        detection("a", [200, 0, 250, 100], 0.7),
    ]
    # Precision 1 up to recall .5 (51 of COCO's 101 recalls), 2/3 from there on.
    expected = 100 * (51 + 50 * 2 / 3) / 101
    results = evaluate_boxes(records, predictions, ["person"])
    assert results["AP"] == results["AP-person"] == pytest.approx(expected)
    assert results["APm"] == pytest.approx(expected)
    assert math.isnan(results["APs"])


def test_iou_thresholds_by_hand():
    records = [record("a", annotation([0, 0, 100, 100]))]
    # IoU .8: right for .50 .55 .60 .65 .70 .75 .80, wrong for .85 .90 .95.
    results = evaluate_boxes(records, [detection("a", [0, 0, 80, 100])], ["person"])
    assert results["AP"] == pytest.approx(70)
    assert (results["AP50"], results["AP75"]) == (pytest.approx(100), pytest.approx(100))


@pytest.mark.parametrize("category_id", [-1, 0])
def test_detection_on_an_ignore_region_does_not_count(category_id):
    person = annotation([0, 0, 50, 100])
    region = annotation([300, 0, 500, 200], category_id, ignore=1)
    on_person = detection("a", [0, 0, 50, 100], 0.5)
    in_region = [detection("a", [300 + 20 * n, 0, 330 + 20 * n, 90], 0.9) for n in range(4)]
    with_region = evaluate_boxes([record("a", person, region)], [on_person, *in_region], ["person"])
    without = evaluate_boxes([record("a", person)], [on_person, *in_region], ["person"])
    assert with_region["AP"] == pytest.approx(100)
    assert without["AP"] == pytest.approx(20)


def test_region_of_one_class_does_not_excuse_another():
    labels = [annotation([0, 0, 50, 100], 1), annotation([300, 0, 500, 200], 0, ignore=1)]
    predictions = [
        detection("a", [300, 0, 400, 100], 0.9, 1),
        detection("a", [0, 0, 50, 100], 0.5, 1),
    ]
    results = evaluate_boxes([record("a", *labels)], predictions, ["person", "cyclist"])
    assert results["AP-cyclist"] == pytest.approx(50)
    assert math.isnan(results["AP-person"])


def test_ignore_without_iscrowd_is_an_ignore_region_too():
    region = annotation([300, 0, 500, 200], 0, ignore=1) | {"iscrowd": 0}
    records = [record("a", annotation([0, 0, 50, 100]), region)]
    predictions = [detection("a", [300, 0, 400, 100]), detection("a", [0, 0, 50, 100], 0.5)]
    assert evaluate_boxes(records, predictions, ["person"])["AP"] == pytest.approx(100)


def test_nothing_detected_is_0_and_not_nan():
    records = [record("a", annotation([0, 0, 50, 100])), record(2)]
    results = evaluate_boxes(records, [], ["person"])
    assert (results["AP"], results["AP50"], results["APm"]) == (0, 0, 0)


def test_nan_has_a_reason():
    names = ["person", "cyclist"]
    records = [record("a", annotation([0, 0, 50, 100]), annotation([0, 0, 9, 9], -1, ignore=1))]
    results = evaluate_boxes(records, [detection("a", [0, 0, 50, 100])], names)
    assert explain_nan(results, records, names) == {
        "APs": "the labels hold no object under 32x32 px",
        "APl": "the labels hold no object over 96x96 px",
        "AP-cyclist": "the labels hold no cyclist",
    }
    empty = [record("a"), record("b")]
    reasons = explain_nan(evaluate_boxes(empty, [], names), empty, names)
    assert reasons["AP"] == "the labels of these 2 images hold no object"
    assert len(reasons) == 8


def test_reason_tells_of_regions_to_ignore():
    names = ["person", "cyclist"]
    person = annotation([0, 0, 50, 100])
    regions = [annotation([0, 0, 9, 9], 1, ignore=1), annotation([0, 0, 9, 9], -1, ignore=1)]
    records = [record("a", *regions)]
    reasons = explain_nan(evaluate_boxes(records, [], names), records, names)
    assert reasons["AP50"].endswith("1 images hold no object, only 2 regions to ignore")
    records = [record("a", *regions, person)]
    reasons = explain_nan(evaluate_boxes(records, [], names), records, names)
    assert reasons["AP-cyclist"] == "the labels hold no cyclist, only 1 region to ignore"


def test_object_too_large_to_count_is_a_reason_too():
    records = [record("a", annotation([0, 0, 2e5, 1e5]))]
    results = evaluate_boxes(records, [], ["person"])
    reasons = explain_nan(results, records, ["person"])
    assert reasons["AP"] == "the labels of these 1 images hold no object of up to 1e+10 square px"


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), classes=st.integers(1, 3), images=st.integers(0, 2))
def test_every_nan_has_a_reason_and_nothing_else_has(seed, classes, images):
    records, predictions = random_scene(seed, classes, images)
    names = ["person", "cyclist", "car"][:classes]
    results = evaluate_boxes(records, predictions, names)
    reasons = explain_nan(results, records, names)
    assert set(reasons) == {name for name, value in results.items() if math.isnan(value)}


def test_nothing_is_changed_and_nothing_printed(capfd):
    records, predictions = random_scene(3, 2)
    before = json.dumps([records, predictions])
    evaluate_boxes(records, predictions, ["person", "cyclist"])
    assert json.dumps([records, predictions]) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("records", "predictions", "text"),
    [
        ([record(1), record(1)], [], "image_id 1 is there 2 times"),
        ([record(1)], [detection(2, [0, 0, 1, 1])], "detection 0 is on image 2, .* of 1 images"),
        (
            [record(1)],
            [detection(1, [0, 0, 1, 1], 0.5, 4)],
            r"detection 0 \(image 1\) has class 4; the dataset has 1: person",
        ),
        (
            [record(1, annotation([0, 0, 9, 9], 3))],
            [],
            r"1\.jpg: a label has class 3; the dataset has 1: person",
        ),
        ([record(1, annotation([0, 0, 9, 9], -1))], [], r"1\.jpg: a label has class -1"),
        (
            [record(1, annotation([10, 0, 5, 9]))],
            [],
            r"1\.jpg: a label has the corners 10, 0, 5, 9; .* right of and below the first",
        ),
        ([record(1, annotation([0, 0, math.nan, 9]))], [], "corners 0, 0, nan, 9; .* finite"),
        ([record(1)], [detection(1, [0, 0, 1, 1], math.nan)], r"detection 0 \(.*\) is not finite"),
        ([record(1)], [detection(1, [0, 0, math.inf, 1])], r"detection 0 \(.*\) is not finite"),
    ],
)
def test_errors_name_what_does_not_fit(records, predictions, text):
    with pytest.raises(AnnotationError, match=text):
        evaluate_boxes(records, predictions, ["person"])
