import copy
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.annotations import read_kaist_json
from d2pd.data.cleaning import CleaningReport, clean_records, drop_images_without_objects

WIDTH, HEIGHT = 640, 512

coordinates = st.one_of(
    st.floats(-200, 900), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 640.0, 512.0])
)
boxes = st.lists(coordinates, min_size=4, max_size=4)


def make_record(*bboxes, ignore=0, category_id=0, name="a.jpg"):
    annotations = [
        {
            "bbox": list(bbox),
            "bbox_mode": 0,
            "category_id": category_id,
            "iscrowd": ignore,
            "ignore": ignore,
            "row": row,
        }
        for row, bbox in enumerate(bboxes)
    ]
    return {
        "file_name": name,
        "image_id": 0,
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": annotations,
    }


@given(st.lists(boxes, max_size=6), st.floats(0.1, 20))
def test_what_is_left_lies_inside_the_image_and_has_the_minimum_size(bboxes, min_size):
    cleaned, report = clean_records([make_record(*bboxes)], min_size=min_size)
    for annotation in cleaned[0]["annotations"]:
        x1, y1, x2, y2 = annotation["bbox"]
        assert 0 <= x1 <= x2 <= WIDTH
        assert 0 <= y1 <= y2 <= HEIGHT
        assert min(x2 - x1, y2 - y1) >= min_size
    assert len(cleaned[0]["annotations"]) + len(report.drops) == len(bboxes)


@given(st.lists(boxes, max_size=6))
def test_cleaning_twice_changes_nothing_more(bboxes):
    once, _ = clean_records([make_record(*bboxes)])
    twice, report = clean_records(once)
    assert twice == once
    assert report == CleaningReport()


@given(st.lists(boxes, max_size=6))
def test_the_input_stays_as_it_is(bboxes):
    records = [make_record(*bboxes)]
    before = copy.deepcopy(records)
    cleaned, _ = clean_records(records)
    for annotation in cleaned[0]["annotations"]:
        annotation["bbox"][0] = -1.0
    assert repr(records) == repr(before)  # NaN equals nothing, its text does


@pytest.mark.parametrize(
    ("bbox", "rule", "reason"),
    [
        ([math.nan, 0, 9, 9], "not_finite", "[nan, 0, 9, 9] is not finite"),
        ([0, 0, math.inf, 9], "not_finite", "[0, 0, inf, 9] is not finite"),
        ([5, 5, 5, 9], "degenerate_box", "[5, 5, 5, 9] has no area (0 x 4)"),
        ([9, 5, 5, 9], "degenerate_box", "[9, 5, 5, 9] has no area (-4 x 4)"),
        ([640, 0, 650, 9], "outside_image", "[640, 0, 650, 9] lies wholly outside the image"),
        ([-9, -9, -1, 9], "outside_image", "[-9, -9, -1, 9] lies wholly outside the image"),
        ([5, 5, 5.5, 9], "tiny_box", "[5, 5, 5.5, 9] is 0.5 x 4 px, under 1"),
        (
            [639.25, 5, 700, 9],
            "tiny_box",
            "[639.25, 5, 700, 9] has 0.75 x 4 px inside the image, under 1",
        ),
    ],
)
def test_each_fault_has_its_rule_and_reason(bbox, rule, reason):
    cleaned, report = clean_records([make_record([1, 1, 30, 60], bbox)])
    assert [annotation["row"] for annotation in cleaned[0]["annotations"]] == [0]
    (drop,) = report.drops
    assert (drop.rule, drop.image, drop.index, drop.row) == (rule, "a.jpg", 0, 1)
    assert drop.message == f"a.jpg, row 1: {reason}"
    assert report.counts == {rule: 1}


def test_boxes_across_the_border_are_clipped():
    cleaned, report = clean_records([make_record([-3, 500, 10, 600], [1, 1, 640, 512])])
    assert [annotation["bbox"] for annotation in cleaned[0]["annotations"]] == [
        [0, 500, 10, 512],
        [1, 1, 640, 512],
    ]
    assert report.num_clipped == 1
    assert report.summary() == "clipped: 1 boxes reached outside their image"


def test_a_size_that_is_not_known_sets_no_border():
    record = make_record([-3, -3, 9000, 9000])
    del record["height"], record["width"]
    cleaned, report = clean_records([record])
    assert cleaned[0]["annotations"][0]["bbox"] == [0, 0, 9000, 9000]
    assert not report.drops


def test_the_minimum_size_itself_is_kept():
    cleaned, _ = clean_records([make_record([5, 5, 8, 8])], min_size=3)
    assert len(cleaned[0]["annotations"]) == 1
    cleaned, _ = clean_records([make_record([5, 5, 8, 8])], min_size=3.01)
    assert cleaned[0]["annotations"] == []


def test_images_that_hold_nothing_to_learn_are_left_out():
    records = [
        make_record([1, 1, 9, 9], name="person.jpg"),
        make_record(name="empty.jpg"),
        make_record([1, 1, 9, 9], [2, 2, 9, 9], ignore=1, name="crowd.jpg"),
        make_record([1, 1, 9, 9], category_id=-1, name="region.jpg"),
    ]
    kept, report = drop_images_without_objects(records)
    assert kept == records[:1]
    assert [drop.message for drop in report.drops] == [
        "empty.jpg: no box",
        "crowd.jpg: regions to ignore alone (2)",
        "region.jpg: regions to ignore alone (1)",
    ]
    assert report.counts == {"no_object": 3}


def test_images_named_twice_are_reported_and_kept():
    records = [make_record(name=name) for name in ("a.jpg", "b.jpg", "a.jpg", "a.jpg")]
    cleaned, report = clean_records(records)
    assert len(cleaned) == 4
    assert not report.drops
    assert report.counts == {"duplicate_image": 2}
    assert report.duplicates[1].message == "a.jpg: image 3 is image 0 again"


def test_reports_add_up_to_a_line_for_each_rule():
    first = clean_records([make_record([5, 5, 5, 9]), make_record([7, 7, 7, 7], ignore=1)])[1]
    second = drop_images_without_objects([make_record()])[1]
    assert (first + second).summary().splitlines() == [
        "degenerate_box: 2 dropped, 1 of them regions to ignore (the box has no area; its "
        "regression target is log(0)); first: a.jpg, row 0: [5, 5, 5, 9] has no area (0 x 4)",
        "no_object: 1 dropped (the image holds no object to learn from); first: a.jpg: no box",
        "duplicate_image: 1 reported (the file names the image more than once; all its rows are "
        "kept); first: a.jpg: image 1 is image 0 again",
    ]
    assert (first + second).counts == {"degenerate_box": 2, "no_object": 1, "duplicate_image": 1}


def test_nothing_to_say_is_an_empty_summary():
    assert clean_records([make_record([1, 1, 9, 9])])[1].summary() == ""
    assert clean_records([]) == ([], CleaningReport())


KNOWN_DEGENERATE = [
    (1009, "set00/V004/I01233", (620, 308, 620, 309)),
    (1475, "set00/V007/I00263", (167, 262, 167, 263)),
    (2371, "set01/V000/I02017", (434, 241, 434, 242)),
    (3093, "set01/V003/I00905", (164, 322, 164, 323)),
    (3093, "set01/V003/I00905", (151, 305, 151, 306)),
    (3093, "set01/V003/I00905", (149, 258, 149, 259)),
    (6522, "set03/V001/I01005", (497, 230, 497, 231)),
    (7615, "set04/V001/I01229", (529, 282, 529, 283)),
    (7616, "set04/V001/I01231", (529, 282, 529, 283)),
    (7617, "set04/V001/I01233", (529, 282, 529, 283)),
]


def test_the_real_train_labels_give_the_known_findings(shared_data):
    labels = read_kaist_json(shared_data / "kaist" / "train20.json", None)
    cleaned, report = clean_records(labels.records)
    kept, dropped = drop_images_without_objects(cleaned)
    assert (len(cleaned), len(kept), dropped.counts) == (8963, 8738, {"no_object": 225})
    assert report.counts == {"degenerate_box": 16, "duplicate_image": 2}
    assert report.num_clipped == 770
    assert [drop.image for drop in report.duplicates] == ["set00/V000/I01219", "set00/V000/I01239"]
    of_regions = [drop.bbox for drop in report.drops if drop.ignore]
    assert of_regions == [(0, 0, 0, 0)] * 6

    with_person, _ = drop_images_without_objects(labels.records)
    assert len(with_person) == 8738
    _, report = clean_records(with_person)
    found = [(drop.index, drop.image, drop.bbox) for drop in report.drops if not drop.ignore]
    assert found == KNOWN_DEGENERATE
