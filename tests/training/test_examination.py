"""What is found in hand-made records, with losses that are given."""

import math

import pytest
import torch

from d2pd.errors import AnnotationError
from d2pd.training.diagnosis.examination import examine, label_sample
from d2pd.training.validation import ImageLosses

NAN, INF = math.nan, math.inf


def record(*bboxes, regions=(), category=0, name="a"):
    """An image of 30 x 20 pixels; regions to ignore stand before the labels."""
    labels = [{"bbox": list(b), "category_id": -1, "ignore": 1, "row": 70} for b in regions]
    labels += [
        {"bbox": list(bbox), "category_id": category, "ignore": 0, "row": 80 + at}
        for at, bbox in enumerate(bboxes)
    ]
    return {"file_name": f"{name}.png", "width": 30, "height": 20, "annotations": labels}


def look(*records, items=None, measure=None, min_box_size=1.0):
    if items is None:
        items = [label_sample(one, row) for row, one in enumerate(records)]
    return list(examine(records, items, num_classes=1, min_box_size=min_box_size, measure=measure))


def of(*totals):
    """Give these totals, one sample after the other; a word is a refusal."""
    left = iter(totals)

    def measure(sample):
        value = next(left)
        if isinstance(value, str):
            return ImageLosses(0, "", refusal=value)
        return ImageLosses(0, "", {"total_loss": value, "loss_cls": value, "loss_box_reg": 0.5})

    return measure


@pytest.mark.parametrize(
    ("bbox", "rule", "dropped_as"),
    [
        ((5, 5, 5, 9), "box_without_area", "degenerate_box"),
        ((5, 9, 9, 5), "box_without_area", "degenerate_box"),
        ((31, 5, 40, 9), "box_without_area", "outside_image"),
        ((-9, -9, 0, 3), "box_without_area", "outside_image"),
        ((5, 5, NAN, 9), "box_not_finite", "not_finite"),
        ((5, 5, INF, 9), "box_not_finite", "not_finite"),
    ],
)
def test_bad_box_is_found_as_the_file_has_it_and_as_cleaning_drops_it(bbox, rule, dropped_as):
    bad = record((1, 1, 9, 9), bbox, regions=[(0, 0, 9, 9)], name="set00/bad")
    _, found = look(record((1, 1, 9, 9)), bad)
    (finding,) = found.findings
    assert (found.row, found.image, found.losses) == (1, "set00/bad.png", {})
    assert (finding.row, finding.image) == (1, "set00/bad.png")
    assert (finding.rule, finding.dropped_as) == (rule, dropped_as)
    assert (finding.box, finding.label_row) == (2, 81)
    assert finding.bbox_xyxy == pytest.approx(bbox, nan_ok=True)
    assert finding.message.startswith("set00/bad.png, row 81: [")


@pytest.mark.parametrize(
    "bbox",
    [(-5, -5, 9, 9), (20, 10, 40, 40), (0, 0, 30, 20), (3, 3, 3.25, 9), (29.9, 5, 60, 9)],
    ids=["reaches out", "reaches out below", "whole image", "narrow", "all but a rim outside"],
)
def test_box_with_an_area_inside_the_image_is_no_finding(bbox):
    assert look(record(bbox))[0].findings == ()


def test_regions_to_ignore_are_no_targets():
    placeholders = [(0, 0, 0, 0), (99, 99, 120, 120), (NAN, 0, 5, 5)]
    assert look(record((1, 1, 9, 9), regions=placeholders))[0].findings == ()


def test_every_box_of_an_image_is_a_finding_of_its_own():
    (found,) = look(record((5, 5, 5, 9), (1, 1, 9, 9), (7, 5, 7, 9)))
    assert [(finding.box, finding.label_row) for finding in found.findings] == [(0, 80), (2, 82)]


def test_class_out_of_range_is_found_and_its_loss_left_alone():
    def measure(sample):
        raise RuntimeError("CUDA error: device-side assert triggered")

    (found,) = look(record((1, 1, 9, 9), category=1), measure=measure)
    assert [finding.rule for finding in found.findings] == ["class_out_of_range"]
    assert "class 1, but the model has 1 classes" in found.findings[0].message
    assert found.findings[0].dropped_as is None
    assert found.losses == {}


def test_loss_that_is_not_finite_names_its_parts_and_the_others_are_kept():
    good = record((1, 1, 9, 9))
    results = look(good, good, good, measure=of(1.0, INF, 2.0))
    assert [len(one.findings) for one in results] == [0, 1, 0]
    (finding,) = results[1].findings
    assert (finding.rule, finding.box) == ("loss_not_finite", None)
    assert finding.message == "total_loss inf, loss_cls inf"
    assert [one.total_loss for one in results] == [1.0, INF, 2.0]


def test_model_that_refuses_an_image_is_a_loss_that_is_not_finite():
    (found,) = look(record((1, 1, 9, 9)), measure=of("boxes are NaN (rpn.py:7)"))
    assert found.findings[0].rule == "loss_not_finite"
    assert found.findings[0].message == "boxes are NaN (rpn.py:7)"
    assert math.isnan(found.total_loss)


def test_image_that_cannot_be_read_is_listed_with_the_faults_of_its_labels_and_gone_past():
    good, bad = record((1, 1, 9, 9)), record((5, 5, 5, 9), name="b")
    items = [label_sample(good, 0), AnnotationError("b.png: not an image"), label_sample(good, 2)]
    results = look(good, bad, good, items=items, measure=of(1.0, 3.0))
    assert [one.total_loss for one in results if one.losses] == [1.0, 3.0]
    rules = [finding.rule for finding in results[1].findings]
    assert rules == ["box_without_area", "unreadable_image"]
    assert results[1].findings[1].message == "b.png: not an image"


def test_pixels_that_are_not_finite_are_found():
    good = record((1, 1, 9, 9))
    sample = label_sample(good, 0) | {"image": torch.full((3, 20, 30), INF)}
    (found,) = look(good, items=[sample])
    assert [(finding.rule, finding.box) for finding in found.findings] == [
        ("pixels_not_finite", None)
    ]


def test_sample_without_its_picture_has_its_size_and_takes_no_room():
    big = record((1, 1, 9, 9)) | {"width": 40_000, "height": 30_000}
    sample = label_sample(big, 3)
    assert sample["image"].shape == (3, 30_000, 40_000)
    assert sample["image"].untyped_storage().nbytes() == 1
    assert sample["row"] == 3


def test_number_of_items_must_be_that_of_the_records():
    with pytest.raises(ValueError, match="shorter"):
        look(record((1, 1, 9, 9)), record((1, 1, 9, 9)), items=[label_sample(record(), 0)])
