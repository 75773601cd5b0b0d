"""What the terminal shows, and what ``audit.json`` holds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from d2pd.data.audit.findings import Audit, Finding
from d2pd.data.audit.rules import RULES
from d2pd.data.audit.summary import MOST_LISTED, WIDTH, summarise
from d2pd.data.label_table.read import read_label_table
from d2pd.data.label_table.table import LabelTable
from d2pd.json_file import write_json


def table_of_images(names, heights) -> LabelTable:
    count = len(names)
    empty = np.zeros(0, dtype=np.int64)
    return LabelTable(
        path=Path("labels.json"),
        format="coco",
        box_format="xywh",
        image_names=names,
        image_ids=list(range(count)),
        image_rows=np.arange(count),
        heights=np.array(heights, dtype=np.float64),
        widths=np.array(heights, dtype=np.float64),
        box_images=empty,
        boxes_xyxy=np.zeros((0, 4)),
        box_rows=empty,
        categories=empty,
        class_names=("person",),
        category_words={},
        is_region=np.zeros(0, dtype=bool),
        occlusion=np.zeros(0, dtype=np.int8),
        malformed=[],
        repeated={},
    )


def box_finding(row: int, image: str = "a.jpg", is_region: bool = False) -> Finding:
    box = (1.0, 2.0, 1.0, float("inf"))
    return Finding("not_finite", image, row, box, "person", "is not finite", is_region)


@pytest.fixture
def audit() -> Audit:
    findings = [box_finding(row, is_region=row < 2) for row in range(12)]
    findings.append(Finding("no_object", "b.jpg", 1, None, None, "has no box"))
    conditions = {"images": None, "min_box_size": 1.0}
    return Audit(table_of_images(["a.jpg", "b.jpg"], [480, 0]), findings, conditions)


def test_the_table_names_rule_severity_count_and_what_it_does(audit):
    lines = summarise(audit, "all.json").splitlines()
    assert lines[0] == "labels.json (coco): 2 images, 0 boxes"
    assert any(line.split()[:3] == ["not_finite", "error", "12"] for line in lines)
    assert any(line.split()[:3] == ["no_object", "warning", "1"] for line in lines)
    told = " ".join(" ".join(lines).split())
    assert RULES["not_finite"].what + " (2 of them regions to ignore)" in told
    assert f"Faster R-CNN and SSD: {RULES['not_finite'].ssd}" in told


def test_models_that_suffer_differently_have_a_sentence_each():
    finding = Finding("degenerate_box", "a.jpg", 0, None, None, "has no area")
    told = summarise(Audit(table_of_images(["a.jpg"], [480]), [finding]), "")
    told = " ".join(told.split())
    assert f"Faster R-CNN: {RULES['degenerate_box'].faster_rcnn} SSD: " in told


def test_the_first_findings_are_shown_and_the_others_counted(audit):
    lines = summarise(audit, "all.json").splitlines()
    shown = [line for line in lines if line.startswith("  a.jpg")]
    assert len(shown) == MOST_LISTED
    assert shown[0] == ("  a.jpg, row 0: [1, 2, 1, inf] is not finite (a region to ignore)")
    assert "  and 2 more: all.json" in lines
    assert lines[-1] == "  b.jpg, row 1: has no box"


def test_what_was_not_looked_at_is_said(audit):
    told = " ".join(summarise(audit, "").split())
    assert "not looked at, which --images does: missing_image, unreadable_image" in told
    assert "1 image states no size" in told
    with_images = Audit(audit.table, audit.findings, {"images": "pictures"})
    told = summarise(with_images, "")
    assert "not looked at" not in told
    assert "missing_image" in told  # among those of which nothing was found


def test_a_clean_file_is_said_to_be():
    told = summarise(Audit(table_of_images(["a.jpg"], [480]), []), "")
    assert told.splitlines()[1] == "nothing found"


def test_names_cannot_break_lines_or_colour_the_terminal():
    evil = "a\n\x1b[31mb\u202ec\ud800.jpg"
    told = summarise(Audit(table_of_images([evil], [480]), [box_finding(0, evil)]), "")
    assert "a\\n\\x1b[31mb\\u202ec\\ud800.jpg, row 0" in told


def test_explanations_are_no_wider_than_a_terminal():
    findings = [Finding(rule, None, 0, None, None, "-") for rule in RULES]
    told = summarise(Audit(table_of_images(["a.jpg"], [0]), findings), "all.json")
    assert max(map(len, told.splitlines())) <= WIDTH


def test_the_json_holds_all_findings_the_rules_and_the_conditions(audit, tmp_path):
    write_json(tmp_path / "audit.json", audit.as_json())
    read = json.loads((tmp_path / "audit.json").read_text(), parse_constant=pytest.fail)
    assert (read["images"], read["boxes"], read["format"]) == (2, 0, "coco")
    assert read["annotations"] == "labels.json"
    assert list(read["counts"]) == list(read["rules"]) == list(RULES)
    assert read["counts"]["not_finite"] == 12
    assert read["counts"]["tiny_box"] == 0
    assert read["regions"] == {"not_finite": 2}
    assert read["rules"]["no_object"]["severity"] == "warning"
    assert {"what", "faster_rcnn", "ssd"} < set(read["rules"]["no_object"])
    assert len(read["findings"]) == 13
    assert read["findings"][0] == {
        "rule": "not_finite",
        "image": "a.jpg",
        "row": 0,
        "box": [1.0, 2.0, 1.0, "inf"],
        "category": "person",
        "is_region": True,
        "message": "is not finite",
    }
    assert read["conditions"] == {"images": None, "min_box_size": 1.0}


def test_boxes_are_counted_by_class_so_that_a_misspelt_one_shows(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("a.jpg,1,2,30,40,mask\na.jpg,5,6,30,40,mask\na.jpg,1,9,30,40,msk\n")
    table = read_label_table(path)
    told = " ".join(summarise(Audit(table, [], {"classes": None}), "").split())
    assert "boxes by class: mask 2, msk 1 " in told
    assert "--classes" in told
    assert "--classes" not in summarise(Audit(table, [], {"classes": ["mask", "msk"]}), "")


@pytest.mark.parametrize(
    ("format", "told"),
    [
        ("csv", "a row is a line of the file, from 1"),
        (
            "kaist",
            "a row counts the file's annotations for a box, its images for an image, from 0",
        ),
    ],
)
def test_what_a_row_counts_is_said(audit, format, told):
    audit = replace(audit, table=replace(audit.table, format=format))
    assert f"first findings; {told}" in summarise(audit, "all.json").splitlines()
    assert audit.as_json()["rows"] == told
