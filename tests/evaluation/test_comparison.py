"""Several methods on the same labels: every number has its place, and every line fits."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from d2pd.evaluation.arrays import detection_arrays, label_arrays
from d2pd.evaluation.comparison import as_plain_data, compare, notes_on, with_images
from d2pd.evaluation.comparison_text import WIDTH, format_comparison
from d2pd.evaluation.subsets import KAIST, Split, build_protocol

BOX = [100.0, 100.0, 30.0, 80.0]
FAR_BOX = [400.0, 100.0, 30.0, 80.0]


def make_labels(names=("set06/V000/I1", "set07/V000/I1"), classes=("person",), **changes):
    """One label of the first class in each image."""
    x, y, width, height = BOX
    annotation = {"bbox": [x, y, x + width, y + height], "category_id": 0, "occlusion": 0} | changes
    record = {"height": 512, "width": 640, "annotations": [annotation]}
    records = [record | {"image_id": n, "file_name": name} for n, name in enumerate(names)]
    return label_arrays(records, classes)


def make_detections(*rows):
    """Rows of image, box and score."""
    images, boxes, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return detection_arrays(np.array(images, int), boxes, scores, np.zeros(len(rows), int))


PERFECT = make_detections((0, BOX, 0.9), (1, BOX, 0.8))
HALF = make_detections((0, BOX, 0.9))
WRONG = make_detections((0, FAR_BOX, 0.9), (1, FAR_BOX, 0.8))


def small(methods, labels=None, **options):
    return compare(labels or make_labels(), methods, KAIST, repetitions=20, **options)


def test_each_method_has_its_numbers_on_each_subset():
    comparison = small({"wrong": WRONG, "perfect": PERFECT})
    wrong, perfect = comparison.results
    assert (wrong.method, perfect.method) == ("wrong", "perfect")
    assert list(perfect.subsets)[:3] == ["reasonable/all", "reasonable/day", "near/all"]
    for result, value, recall in ((wrong, 100.0, 0.0), (perfect, 1e-8, 100.0)):
        part = result.subsets["reasonable/all"]
        assert part.rate.value == pytest.approx(value)
        assert part.interval == pytest.approx((value, value))
        assert part.rate.recall == recall
    assert perfect.num_detections == 2


def test_splits_without_images_are_left_out_and_told():
    comparison = small({"perfect": PERFECT})
    assert [split.name for split in comparison.protocol.splits] == ["all", "day"]
    assert comparison.notes == ("No image is in the split night: left out.",)
    assert [s.name for s in with_images(make_labels(["a.jpg", "b.jpg"]), KAIST).splits] == ["all"]


def test_prefixes_of_ones_own_that_match_nothing_are_told():
    own = replace(KAIST, splits=(Split("all"), Split("rain", ("set06", "set6"))))
    assert list(notes_on(make_labels(), own)) == ["No image of the split rain is under set6."]


def test_labels_without_occlusion_are_told():
    notes = small({"perfect": PERFECT}, make_labels(occlusion=None)).notes
    assert notes[0].startswith("Labels without an occlusion flag are judged on height and bounds")


def test_images_of_another_size_than_the_bounds_are_told():
    labels = make_labels()
    labels.image_sizes[:] = (416, 416)
    assert "416x416 px are judged by bounds made for KAIST's 640x512" in (
        " ".join(small({"perfect": PERFECT}, labels).notes)
    )
    labels.image_sizes[:] = 0
    assert "unknown size are judged" in " ".join(small({"perfect": PERFECT}, labels).notes)


def test_both_modes_and_the_reason_are_there_where_they_differ():
    for mode in ("strict", "compat"):
        part = small({"half": HALF}, mode=mode).results[0].subsets["reasonable/all"]
        assert part.values["strict"] == pytest.approx(50)
        assert part.values["compat"] == 0
        assert part.rate.value == part.values[mode]
        assert "does not count 1 of 2 labels" in part.difference
    assert not small({"wrong": WRONG}).results[0].subsets["reasonable/all"].difference


def test_each_class_is_measured_by_itself():
    labels = make_labels(classes=("person", "dog"))
    comparison = small({"perfect": PERFECT, "half": HALF}, labels)
    grouped = comparison.by_class()
    assert list(grouped) == ["person", "dog"]
    assert [result.method for result in grouped["dog"]] == ["perfect", "half"]
    assert grouped["person"][0].subsets["reasonable/all"].rate.recall == 100
    assert math.isnan(grouped["dog"][0].subsets["reasonable/all"].rate.value)
    assert grouped["dog"][0].num_detections == 0
    text = format_comparison(comparison)
    assert "=== class dog ===" in text
    assert "no label" in text
    assert "nan" not in text.lower()


def test_every_subset_is_reported_once():
    calls = []
    comparison = small({"a": HALF, "b": WRONG}, on_subset=lambda: calls.append(1))
    assert len(calls) == sum(len(result.subsets) for result in comparison.results) == 28


def test_plain_data_is_strict_json_and_the_same_each_time():
    labels = make_labels(classes=("person", "dog"))
    texts = [
        json.dumps(as_plain_data(small({"half": HALF}, labels)), allow_nan=False) for _ in range(2)
    ]
    assert texts[0] == texts[1]
    plain = json.loads(texts[0])
    assert set(plain) == {
        *("mode", "iou_threshold", "settings", "splits", "bootstrap", "fppi_references"),
        *("notes", "results"),
    }
    person, dog = plain["results"]
    assert set(person["subsets"]["reasonable/all"]) == {
        *("miss_rate", "interval", "recall", "num_images", "num_labels", "miss_at_references"),
        *("strict", "compat", "difference"),
    }
    assert person["subsets"]["reasonable/all"]["miss_at_references"] == [50.0] * 9
    assert dog["subsets"]["reasonable/all"]["miss_rate"] is None
    assert dog["subsets"]["reasonable/all"]["interval"] == [None, None]
    assert plain["settings"]["reasonable"] == {
        "height": [55.0, None],
        "occlusion": [0, 1],
        "bounds": [5.0, 5.0, 635.0, 507.0],
    }
    assert plain["bootstrap"] == {"repetitions": 20, "seed": 0, "percent": 95}


def test_a_table_that_is_too_wide_goes_on_below():
    comparison = small({f"method_{n}": (HALF, WRONG, PERFECT)[n % 3] for n in range(8)})
    lines = format_comparison(comparison).splitlines()
    assert max(map(len, lines)) <= WIDTH
    heads = [line for line in lines if "method_" in line and "differ" not in line]
    for n in range(8):  # once as a row of the first table, once above a column of the second
        assert sum(f"method_{n}" in line for line in heads) == 2
    # The first setting's rows are there for each part of the second table, with its labels.
    assert sum(line.startswith("reasonable/all") for line in lines) > 1


def test_long_names_are_shown_by_their_end_where_that_tells_them_apart():
    names = ["experiments/a/long/folder/name/first", "experiments/a/long/folder/name/second"]
    text = format_comparison(small(dict.fromkeys(names, WRONG)))
    assert text.count(f"...{names[1][-19:]} ") + text.count(f"...{names[1][-19:]}\n") == 2
    assert names[1] not in text
    alike = ["first" + "/name" * 9, "second" + "/name" * 9]
    assert alike[1] in format_comparison(small(dict.fromkeys(alike, WRONG)))


def test_the_text_says_which_rules_and_what_differs():
    text = format_comparison(small({"half": HALF}, mode="compat", iou_threshold=0.4))
    assert "(compat, IoU 0.4)" in text
    assert "Reasonable: 55 px high or more; occlusion 0, 1; inside 5, 5, 635, 507" in text
    assert "half: strict and compat differ" in text
    assert "reasonable/all: compat 0.00, strict 50.00" in text
    assert "differ" not in format_comparison(small({"wrong": WRONG}))


def test_ones_own_subsets_are_named_as_they_are():
    protocol = build_protocol({"mine": {"HEIGHT": [50, 90]}}, {"first": ["set06"]})
    comparison = compare(make_labels(), {"half": HALF}, protocol, repetitions=20)
    subsets = comparison.results[0].subsets
    assert subsets["mine/first"].rate.recall == 100
    assert subsets["mine/all"].rate.recall == 50
    assert "Mine: 50 to 90 px high; occlusion 0, 1, 2\n" in format_comparison(comparison)
