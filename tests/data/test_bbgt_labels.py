"""The text labels in which KAIST was first published."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.annotations.bbgt import read_bbgt
from d2pd.data.annotations.label_tree import list_files
from d2pd.errors import AnnotationError, MissingFileError

HEADER = "% bbGt version=3\n"
NUMBERS = st.integers(-50, 700)


@pytest.fixture
def write(tmp_path):
    def write_label(text, name="set00/V000/I00000", content=None):
        path = tmp_path / "annotations" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if content is None else content)
        return path

    return write_label


def test_fields_become_boxes_classes_and_flags(write, tmp_path):
    write(
        f"{HEADER}person 10 20 30 40 1 0 0 0 0 0 0\n"
        "person? 1 2 3 4 2 1 2 3 1 0 0\npeople 5 6 7 8 0 0 0 0 0 1 90\n"
    )

    labels = read_bbgt(tmp_path / "annotations")

    assert labels.class_names == ("person", "people", "person?")  # as KAIST numbers them
    (record,) = labels.records
    assert (record["im_name"], record["height"], record["width"]) == ("set00/V000/I00000", 512, 640)
    person, unsure, people = record["annotations"]
    assert person["bbox"] == [10, 20, 40, 60]
    assert (person["category_id"], person["occlusion"], person["ignore"]) == (0, 1, 0)
    assert "extras" not in person
    assert (unsure["category_id"], unsure["occlusion"], unsure["row"]) == (2, 2, 3)
    assert unsure["extras"] == {"visible box": (1, 2, 4, 3)}
    assert (people["category_id"], people["ignore"], people["iscrowd"]) == (1, 1, 1)
    assert people["extras"] == {"angle": 90}


@given(boxes=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 2)), max_size=5))
def test_what_is_written_is_read(tmp_path_factory, boxes):
    path = tmp_path_factory.mktemp("labels") / "I00001.txt"
    lines = [f"person {x} {y} {w} {h} {occ} 0 0 0 0 0 0\r\n" for x, y, w, h, occ in boxes]
    path.write_bytes((HEADER + "".join(lines)).encode())

    (record,) = read_bbgt(path).records

    read = [(*each["bbox"], each["occlusion"]) for each in record["annotations"]]
    assert read == [(x, y, x + w, y + h, occ) for x, y, w, h, occ in boxes]
    assert [each["row"] for each in record["annotations"]] == list(range(2, len(boxes) + 2))


def test_frames_come_in_order_and_those_without_objects_stay(write, tmp_path):
    for name in ("set06/V000/I00002", "set00/V001/I00001", "set00/V000/I00005"):
        write(HEADER, name)
    write(HEADER, "set00/V000/._I00005")  # what macOS leaves in archives
    (tmp_path / "annotations/set00/V000/readme.md").write_text("no label")

    records = read_bbgt(tmp_path / "annotations").records

    names = [record["im_name"] for record in records]
    assert names == ["set00/V000/I00005", "set00/V001/I00001", "set06/V000/I00002"]
    assert [record["image_id"] for record in records] == [0, 1, 2]
    assert not any(record["annotations"] for record in records)


@pytest.mark.parametrize("part", ["", "set00", "set00/V000", "set00/V000/I00000.txt"])
def test_a_frame_has_its_name_wherever_the_reading_starts(write, tmp_path, part):
    write(HEADER)

    (record,) = read_bbgt(tmp_path / "annotations" / part).records

    assert record["im_name"] == "set00/V000/I00000"


def test_other_pictures_have_no_kaist_name_and_no_size(write, tmp_path):
    write(f"{HEADER}Car 1 2 3 4 0 0 0 0 0 0 0", "night/2015 ü_1.jpg")

    (record,) = read_bbgt(tmp_path / "annotations").records

    assert record["file_name"] == "night/2015 ü_1.jpg"
    assert not {"im_name", "height", "width"} & record.keys()


def test_classes_that_are_not_wanted_are_regions_and_the_word_is_kept(write, tmp_path):
    write(f"{HEADER}cyclist 1 2 3 4 0 0 0 0 0 0 0\nignore 1 2 3 4 0 0 0 0 0 0 0")

    labels = read_bbgt(tmp_path, class_names=["person"])

    cyclist, region = labels.records[0]["annotations"]
    assert (cyclist["category_id"], cyclist["ignore"], cyclist["extras"]) == (
        *(-1, 1),
        {"class": "cyclist"},
    )
    assert (region["category_id"], region["ignore"], "extras" in region) == (-1, 1, False)
    with pytest.raises(AnnotationError, match=r"class 'persn' is not a class .*\(cyclist\)"):
        read_bbgt(tmp_path, class_names=["persn"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person 1 2 3 4 0 0 0 0 0 0 0", "line 1: expected '% bbGt version=3', got 'person 1 2"),
        ("\ufeff", "line 1: expected '% bbGt version=3', got ''"),
        ("% bbGt version=2\n", "line 1: bbGt version 2; version 3 is"),
        (f"\n\n{HEADER}person 1 2 3", "line 4: expected 12 fields"),
        (f"{HEADER}\nperson 1 2 3", r"line 3: expected 12 fields \(lbl x .*\), got 4; .* cut off"),
        (f"{HEADER}person a 2 3 4 0 0 0 0 0 0 0", "line 2: x must be a number, got 'a'"),
        (f"{HEADER}person 1 2 3 4 3 0 0 0 0 0 0", "line 2: occ must be 0 .* got 3 and 0"),
        (f"{HEADER}person 1 2 3 4 0 0 0 0 0 2 0", "ign 0 or 1, got 0 and 2"),
        ("", "the file is empty"),
    ],
)
def test_a_fault_is_named_with_its_line(write, tmp_path, text, message):
    path = write(text)

    with pytest.raises(AnnotationError, match=message) as caught:
        read_bbgt(tmp_path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_encodings_in_one_file_are_named_with_line_and_byte(write, tmp_path):
    write("", content=HEADER.encode() + "é".encode() + b"\nperson\xe9 1")

    with pytest.raises(AnnotationError, match="line 3: byte 26 is not UTF-8 text"):
        read_bbgt(tmp_path)


def test_two_sets_of_labels_in_one_folder_are_refused(write, tmp_path):
    write(HEADER)
    write(HEADER, "improved/set00/V000/I00000")

    with pytest.raises(AnnotationError, match="set00/V000/I00000 is labelled in .* and in "):
        read_bbgt(tmp_path)


def test_a_loop_of_links_ends_and_links_to_sets_are_followed(write, tmp_path):
    write(HEADER)
    (tmp_path / "annotations/set00/again").symlink_to(tmp_path / "annotations")
    elsewhere = tmp_path / "linked"
    elsewhere.mkdir()
    (elsewhere / "set00").symlink_to(tmp_path / "annotations/set00")

    assert len(read_bbgt(tmp_path / "annotations").records) == 1
    assert len(read_bbgt(elsewhere).records) == 1


def test_what_is_not_there_is_said(write, tmp_path):
    write(HEADER)
    with pytest.raises(MissingFileError, match="no such folder of labels"):
        read_bbgt(tmp_path / "annotation")
    link = tmp_path / "annotations/set00/V000/I00001.txt"
    link.symlink_to(link)
    with pytest.raises(MissingFileError, match=re.escape(str(link))):
        read_bbgt(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match=r"there is no \.txt file in it; name the folder"):
        read_bbgt(tmp_path / "empty")


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may list any folder")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)

    with pytest.raises(MissingFileError, match="closed: cannot be listed"):
        list(list_files(tmp_path))


def test_a_version_of_more_digits_than_python_reads_is_told(write):
    path = write("% bbGt version=" + 5000 * "9" + "\n")
    with pytest.raises(AnnotationError, match="line 1: bbGt version 9{40};"):
        read_bbgt(path)
