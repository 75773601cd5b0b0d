"""Result files: both forms give the same detections, and no fault passes as a number."""

import json
import logging
import os
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.annotations.any_format import read_any_labels
from d2pd.errors import MissingFileError, ResultFileError
from d2pd.evaluation.arrays import LabelArrays, label_arrays
from d2pd.evaluation.result_files.result_file import count_repeated, read_result_file
from d2pd.evaluation.result_files.result_lines import _parse_fast, _parse_line_by_line

KAIST = {0: -1, 1: 0, 2: -1}
GOOD = "1,10,20,30,40,0.5"


def make_labels(ids=range(10), class_names=("person",)) -> LabelArrays:
    records = [
        {"image_id": n, "file_name": f"set06/V000/I{n}", "height": 512, "width": 640} for n in ids
    ]
    return label_arrays(records, class_names)


@pytest.fixture
def read(tmp_path):
    def read_content(content, name="model_result.txt", labels=None, category_ids=KAIST):
        path = tmp_path / name
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_result_file(path, labels or make_labels(), category_ids)

    return read_content


def row(**changes):
    whole = {"image_id": 0, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5} | changes
    return {key: value for key, value in whole.items() if value is not ...}


def assert_same(first, second):
    for field in ("image_index", "boxes_xywh", "scores", "classes"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


def test_a_txt_counts_images_from_one_and_a_json_as_the_labels_do(read):
    found = read("3,1.5,2,3,4,-211\n1,10,20,30,40,1e-3\n")
    assert found.image_index.tolist() == [0, 2]
    assert found.boxes_xywh.tolist() == [[10, 20, 30, 40], [1.5, 2, 3, 4]]
    assert found.scores.tolist() == [0.001, -211]
    assert found.classes.tolist() == [0, 0]
    rows = [row(image_id=2, bbox=[1.5, 2, 3, 4], score=-211), row(score=1e-3)]
    assert_same(found, read(rows, "model.json"))


def test_predictions_of_d2pd_name_their_classes(read):
    labels = make_labels(class_names=("person", "cyclist"))
    content = {
        "dataset": "mine",
        "class_names": ["cyclist", "person"],
        "predictions": [row(category_id=0, image_id=4), row(category_id=1)],
    }
    found = read(content, "predictions.json", labels, {1: 0, 2: 1})
    assert found.image_index.tolist() == [0, 4]
    assert found.classes.tolist() == [0, 1]


def test_one_class_against_one_class_needs_no_common_name(read, caplog):
    content = {"class_names": ["pedestrian"], "predictions": [row(category_id=0)]}
    assert read(content, "predictions.json").classes.tolist() == [0]
    assert "its only class, 'pedestrian', is taken for the labels' 'person'" in caplog.text
    caplog.clear()
    assert read([row(category_id=...)], "model.json").classes.tolist() == [0]
    read(content | {"class_names": ["person"]}, "predictions.json")
    assert caplog.text == ""


@pytest.mark.parametrize("category", [1, -1, "person"])
def test_the_only_class_of_predictions_has_number_0(read, category):
    rows = [row(category_id=0), row(category_id=category)]
    with pytest.raises(ResultFileError, match=r"detection 1 .* is not one of 0 person"):
        read({"class_names": ["person"], "predictions": rows}, "predictions.json")


def test_what_is_there_twice_in_a_json_is_refused(read):
    twice = '[{"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9, "score": 0.1}]'
    with pytest.raises(ResultFileError, match="an object has a key twice: '.*score, score'"):
        read(twice, "model.json")
    content = {"class_names": ["person", "person"], "predictions": [row(category_id=1)]}
    with pytest.raises(ResultFileError, match="class_names holds a name twice"):
        read(content, "predictions.json")


def test_a_line_without_end_is_refused_before_it_takes_memory(read):
    tracemalloc.start()
    with pytest.raises(ResultFileError, match="line 2: 3,000,001 columns".replace(",", "")):
        read(f"{GOOD}\n{',' * 3_000_000}")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 60e6


def test_ids_are_compared_with_those_of_labels_of_any_kind(read):
    with pytest.raises(ResultFileError, match="has no image at all"):
        read([row()], "model.json", make_labels([]))
    with pytest.raises(ResultFileError, match="made on another list of images"):
        read([row(image_id="0")], "model.json")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(MissingFileError, match="a pipe or device; save it to a file"):
        read_result_file(tmp_path / "pipe.txt", make_labels())


def test_image_ids_of_the_label_file_may_be_names(read):
    labels = make_labels(ids=["a", "b"])
    assert read([row(image_id="b")], "model.json", labels).image_index.tolist() == [1]
    with pytest.raises(ResultFileError, match="a .txt cannot name such images: write a .json"):
        read(GOOD, labels=labels)


@pytest.mark.parametrize(
    "content",
    [
        f"\n{GOOD}\n\n  \n",
        f"{GOOD}\r\n\r\n",
        f"\ufeff{GOOD}",
        "1, 10, 20,30 , 40,\t0.5",
        "1.0,1e1,20.0,+30,40.,.5",
    ],
)
def test_blank_lines_line_ends_and_spaces_do_no_harm(read, content):
    assert_same(read(content), read(GOOD))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1,2,3,4", "line 3: 5 columns, where image_id,x,y,w,h,score is expected: '1,1,2,3,4'"),
        ("1,1,2,3,4,.5,1", "line 3: 7 columns"),
        ("1,1,2,3,4,.5,", "line 3: 7 columns"),
        ("1 1 2 3 4 .5", "line 3: 1 columns, .*put commas in place of the spaces"),
        ("1\t1\t2\t3\t4\t.5", "line 3: 1 columns, .*put commas in place of the tabs"),
        ("1;1;2;3;4;.5", "line 3: 1 columns, .*in place of the semicolons"),
        ("image_id,x,y,w,h,score", "line 3: no number in .*if this is a header, remove it"),
        ('"1",1,2,3,4,.5', "line 3: image_id must be a number, got '\"1\"'; write it without quot"),
        ("1,1,2,3,4,high", "line 3: score must be a number, got 'high'"),
        ("1,1,2,3,,.5", "line 3: h must be a number, got ''"),
        ("1,1,2,1_0,4,.5", "line 3: w must be a number, got '1_0'"),
        ("1,1,2,3,4,٣", "line 3: score must be a number"),
        ("1,nan,2,3,4,.5", "line 3: x, y, w, h, score = nan, 2, 3, 4, 0.5 must be finite"),
        ("1,1,2,3,4,inf", "line 3: .*4, inf must be finite"),
        ("1,1,2,3,4,1e400", "line 3: .*4, inf must be finite"),
        ("1,1,2,-3,4,.5", "line 3: w, h of x, y, w, h, score = 1, 2, -3, 4, 0.5 must not be neg"),
        ("11,1,2,3,4,.5", "line 3: image_id 11 is not .* 10 images with ids 0 to 9, written 1 to"),
        ("0,1,2,3,4,.5", "line 3: image_id 0 is not .* count from 0: add 1 to every image_id"),
        ("1.5,1,2,3,4,.5", "line 3: image_id 1.5 is not in the label file"),
        ("1e300,1,2,3,4,.5", r"line 3: image_id 1e\+300 is not in the label file"),
        ("nan,1,2,3,4,.5", "line 3: image_id nan is not in the label file"),
    ],
)
def test_a_bad_line_is_named(read, line, message):
    with pytest.raises(ResultFileError, match=rf"model_result.txt, {message}") as caught:
        read(f"{GOOD}\n\n{line}\n2,10,20,30,40,0.5\n")
    assert "\n" not in str(caught.value)


def test_a_message_counts_the_lines_that_are_like_it(read):
    with pytest.raises(ResultFileError, match=r"line 2: .*\(3 of 4 are like it\); were the det"):
        read("1,1,2,3,4,.5\n" + "777,1,2,3,4,.5\n" * 3)


def test_ids_as_the_label_file_has_them_are_recognised_in_a_txt(read):
    labels = make_labels(ids=[5, 7, 9])
    with pytest.raises(ResultFileError, match="written 6 to 10 in a .txt.*a .txt needs them \\+ 1"):
        read("5,1,2,3,4,.5\n9,1,2,3,4,.5\n", labels=labels)
    assert read("6,1,2,3,4,.5", labels=labels).image_index.tolist() == [0]


def test_ids_of_a_txt_are_recognised_in_a_json(read):
    with pytest.raises(ResultFileError, match="detection 1 .*all would be known if 1 less"):
        read([row(image_id=1), row(image_id=10)], "model.json")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(score=...), "there is no score"),
        (row(bbox=...), "there is no bbox"),
        (row(image_id=...), "there is no image_id"),
        (row(score="0.5"), "score must be a number, got '0.5'"),
        (row(score=True), "score must be a number, got true"),
        (row(score=None), "score must be a number, got null"),
        (row(bbox=[1, 2, 3]), r"bbox must be four numbers .* got \[1, 2, 3\]"),
        (row(bbox="1234"), "bbox must be four numbers"),
        (row(bbox=[1, 2, "3", 4]), "bbox must be four numbers"),
        (row(bbox=[1, 2, 10**400, 4]), "bbox must be four numbers"),
        (row(bbox=[1, 2, float("nan"), 4]), "must be finite"),
        (row(score=float("inf")), "must be finite"),
        (row(bbox=[1, 2, 3, -4]), "must not be negative"),
        (row(bbox=[1, 2, 1e200, 1e200]), "must be pixels of an image"),
        (row(bbox=[-1e10, 2, 3, 4]), "must be pixels of an image"),
        (row(image_id=True), "image_id must be a whole number or a name, got true"),
        (row(image_id=None), "image_id must be a whole number or a name, got null"),
        (row(image_id=[1]), "image_id must be a whole number or a name"),
        (row(image_id=10), "image_id 10 is not in the label file"),
        (row(image_id="1"), "image_id '1' is not in the label file"),
        (row(category_id=[1]), "category_id must be a whole number or a name"),
        (row(category_id=7), "category_id 7 is not one of 1 person"),
        ([1, 2], r"got \[1, 2\]"),
        (None, "got null"),
    ],
)
def test_a_bad_detection_is_named(read, bad, message):
    with pytest.raises(ResultFileError, match=rf"model.json, detection 1 .*{message}") as caught:
        read([row(), bad, row()], "model.json")
    assert "\n" not in str(caught.value)


def test_numbers_beyond_all_bounds_in_a_json_are_refused(read):
    text = json.dumps([row()]).replace("0.5", "1e400")
    with pytest.raises(ResultFileError, match="must be finite"):
        read(text, "model.json")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "a.txt", "the file is empty"),
        (b" \n\r\n", "a.txt", "the file is empty"),
        (b"\xef\xbb\xbf\n", "a.txt", "the file is empty"),
        (b"", "a.json", "the file is empty"),
        (b"[]", "a.json", "the list of detections is empty"),
        (b'{"class_names": ["person"], "predictions": []}', "a.json", "detections is empty"),
        (b'[{"image_id": 0, "bb', "a.json", "line 1, column 18: not JSON .*may be cut off"),
        (b'[{"image_id": "\xff"}]', "a.json", "is not UTF-8 text"),
        (b"12", "a.json", "a list of .* is expected, got int"),
        (b'{"images": [], "annotations": []}', "a.json", "this looks like a label file"),
        (b'{"class_names": "person", "predictions": [1]}', "a.json", "with class_names and pred"),
        (b"[" * 100_000, "a.json", "cannot be read as JSON"),
        (b"1,1,2,3,4,.5\n1,1,2,3,4,\xff", "a.txt", "line 2: byte 23 is not UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "a.txt", "holds zero bytes"),
        ("1,1,2,3,4,5".encode("utf-16"), "a.txt", "UTF-16 text; save it as UTF-8"),
        (b"1,1,2,3,4,5", "a.mat", "ends in .txt or .json"),
        (b"PK\x03\x04", "a.txt", "line 1: 1 columns"),
    ],
)
def test_files_of_another_kind_are_refused(read, content, name, message):
    with pytest.raises(ResultFileError, match=message):
        read(content, name)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(MissingFileError, match="no such result file"):
        read_result_file(tmp_path / "a.txt", make_labels())
    with pytest.raises(ResultFileError, match="this is a folder"):
        read_result_file(tmp_path, make_labels())
    locked = tmp_path / "b.txt"
    locked.write_text(GOOD)
    locked.chmod(0)
    if not os.access(locked, os.R_OK):
        with pytest.raises(MissingFileError, match="cannot be read"):
            read_result_file(locked, make_labels())


def test_repeated_detections_count_and_are_told(read, caplog):
    with caplog.at_level(logging.WARNING):
        found = read(f"{GOOD}\n2,1,1,1,1,.5\n{GOOD}\n{GOOD}\n")
    assert len(found.scores) == 4
    assert count_repeated(found) == 2
    assert "2 detections are there more than once" in caplog.text


def test_boxes_without_area_are_told(read, caplog):
    assert len(read("1,1,2,0,4,.5\n1,1,2,3,0,.5\n1,1,2,3,4,.5").scores) == 3
    assert "2 detections have no width or no height" in caplog.text


def test_categories_that_are_not_to_be_found_are_left_out(read, caplog):
    found = read([row(), row(category_id=2), row(category_id=2)], "model.json")
    assert len(found.scores) == 1
    assert "2 of 3 detections are of a category that is not to be found" in caplog.text
    with pytest.raises(ResultFileError, match=r"1 of 1 .*category_id 0: 1\); to be found: 1 pers"):
        read([row(category_id=0)], "model.json")


def test_several_classes_need_a_category(read):
    labels = make_labels(class_names=("person", "cyclist"))
    with pytest.raises(ResultFileError, match=r"names no classes, .* 2 \(person, cyclist\)"):
        read(GOOD, labels=labels)
    with pytest.raises(ResultFileError, match="category_id None is not one of 1 person, 2 cyclist"):
        read([row(category_id=None), row()], "model.json", labels, {1: 0, 2: 1})
    content = [row(category_id=2), row(category_id=1, image_id=3)]
    assert read(content, "model.json", labels, {1: 0, 2: 1}).classes.tolist() == [1, 0]
    numbered = [row(category_id=1), row(category_id=0, image_id=3)]
    assert read(numbered, "model.json", labels, None).classes.tolist() == [1, 0]


def test_no_harmless_file_draws_a_warning(read, caplog):
    read(GOOD)
    read([row()], "model.json")
    assert caplog.text == ""


@pytest.mark.parametrize(("name", "wrong"), [("m.txt", 0), ("m.json", 1)])
def test_known_ids_that_are_off_by_one_are_suspected(read, caplog, name, wrong):
    records = [
        {"image_id": n, "file_name": f"{n}", "height": 99, "width": 9999}
        | {"annotations": [{"bbox": [50 * n, 5, 50 * n + 20, 45], "category_id": 0}]}
        for n in range(30)
    ]
    labels = label_arrays(records, ["person"])

    def read_with_ids_from(first):
        boxes = [[50 * n, 5, 20, 40] for n in range(29)]
        rows = [row(image_id=n + first, bbox=box) for n, box in enumerate(boxes)]
        lines = "".join(
            f"{n + first},{','.join(map(str, box))},.5\n" for n, box in enumerate(boxes)
        )
        lines = lines.removeprefix("0,0,5,20,40,.5\n")  # which would give it away
        read(lines if name.endswith("txt") else rows, name, labels)

    read_with_ids_from(1 - wrong)
    assert caplog.text == ""
    read_with_ids_from(wrong)
    more = "28 if every image_id were 1 more" if name == "m.txt" else "29 if every image_id were 1"
    assert f"overlap 0 of 30 labels, and would overlap {more}" in caplog.text


FIELDS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["", " 1", "1 ", "1e400", '"1"', "x", "1_0", "0x1", "NA", "True", "+.5", "-"]),
)


@given(
    st.lists(st.lists(FIELDS, min_size=5, max_size=7).map(",".join), min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]),
)
def test_the_fast_reading_never_differs_from_the_slow_one(lines, end):
    text = end.join(lines)
    fast = _parse_fast(text)
    if fast is not None:
        np.testing.assert_array_equal(fast, _parse_line_by_line(text, "file"))


@pytest.mark.parametrize("word", ["True", "true", "tRUE", "False"])
def test_a_column_of_truth_values_is_no_column_of_numbers(read, word):
    with pytest.raises(ResultFileError, match=f"line 1: score must be a number, got '{word}'"):
        read(f"1,5,5,20,40,{word}\n2,5,5,20,40,{word}\n")


def test_good_lines_are_read_the_fast_way():
    text = "1,503.0512,213.2522,18.0536,42.1411,0.12698865\n" * 3
    fast = _parse_fast(text)
    assert fast is not None
    np.testing.assert_array_equal(fast, _parse_line_by_line(text, "file"))


def test_a_hundred_thousand_lines_take_seconds_at_most(read):
    text = "".join(f"{n % 10 + 1},{n}.25,2,3,4,0.{n}\n" for n in range(100_000))
    start = time.perf_counter()
    assert len(read(text).scores) == 100_000
    assert time.perf_counter() - start < 5


def test_published_files_are_suspected_of_nothing(shared_data, caplog):
    known = read_any_labels(shared_data / "kaist" / "test20.json")
    labels = label_arrays(known.labels.records, known.labels.class_names)
    for name in ("MLPD", "MSDS-RCNN"):
        path = shared_data / "kaist" / "results" / f"{name}_result.txt"
        read_result_file(path, labels, known.category_ids)
    assert caplog.text == ""


def test_a_published_file_that_counts_from_zero_is_suspected(shared_data, tmp_path, caplog):
    known = read_any_labels(shared_data / "kaist" / "test20.json")
    labels = label_arrays(known.labels.records, known.labels.class_names)
    content = (shared_data / "kaist" / "results" / "MLPD_result.txt").read_text()
    lines = [line.split(",", 1) for line in content.splitlines()]
    path = tmp_path / "shifted.txt"
    path.write_text("".join(f"{int(n) - 1},{rest}\n" for n, rest in lines if n != "1"))
    read_result_file(path, labels, known.category_ids)
    assert "shifted.txt: the image ids seem to be off by one" in caplog.text


def test_published_files_are_read_whole_and_alike_in_both_forms(shared_data, read):
    known = read_any_labels(shared_data / "kaist" / "test20.json")
    labels = label_arrays(known.labels.records, known.labels.class_names)
    for name, count in (("MLPD", 5_939), ("MSDS-RCNN", 13_547)):
        path = shared_data / "kaist" / "results" / f"{name}_result.txt"
        found = read_result_file(path, labels, known.category_ids)
        assert len(found.scores) == count
        lines = [line.split(",") for line in path.read_text().splitlines()]
        rows = [
            row(image_id=int(i) - 1, bbox=[float(v) for v in box], score=float(score))
            for i, *box, score in lines
        ]
        assert_same(found, read(rows, "model.json", labels, known.category_ids))
