"""A clean copy has none of the mended faults, and all else of the file as it was."""

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2pd.data.audit.audit import audit_table
from d2pd.data.audit.clean_copy import check_target, write_clean_copy
from d2pd.data.audit.findings import Finding
from d2pd.data.audit.rules import CLEANED
from d2pd.data.label_table.read import read_label_table
from d2pd.errors import AnnotationError, ConfigError, UserError

SLOW_START = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def clean(path: Path, target: Path, more=(), *, force=False, min_box_size=1.0, **how):
    """Audit a file and write its clean copy; ``more`` findings are of pictures."""
    table = read_label_table(path, **how)
    audit = audit_table(table, min_box_size=min_box_size, of_pictures=more)
    return write_clean_copy(table, audit.findings, target, force=force, min_box_size=min_box_size)


def faults(path: Path, **how) -> dict[str, int]:
    counts = audit_table(read_label_table(path, **how)).counts
    return {rule: counts[rule] for rule in CLEANED if counts[rule]}


def as_text(content: str):
    """JSON with every number as the file spells it."""
    return json.loads(content, parse_int=str, parse_float=str, parse_constant=str)


COCO = """{"images": [
 {"id": 1, "file_name": "a.jpg", "height": 50, "width": 100},
 {"id": 2, "file_name": "b.jpg", "height": 50, "width": 100},
 {"id": 3, "file_name": "./a.jpg", "height": 50, "width": 100},
 {"id": 4, "height": 50},
 {"id": 5, "file_name": "c.jpg"}],
"annotations": [
 {"image_id": 1, "category_id": 7, "bbox": [1, 2.0, 30, 4e1]},
 {"image_id": 1, "category_id": 7, "bbox": [1.0, 2, 30.0, 40]},
 {"image_id": 1, "category_id": 8, "bbox": [1, 2, 30, 40]},
 {"image_id": 1, "category_id": 7, "bbox": [85.10, 2, 20, 40], "area": 800, "height": 40},
 {"image_id": 1, "category_id": 7, "bbox": [85.10, 2, 22, 40]},
 {"image_id": 2, "category_id": 7, "bbox": [99.5, 2, 0.9, 40]},
 {"image_id": 2, "category_id": 7, "bbox": [5, 5, 0, 0], "iscrowd": 1},
 {"image_id": 2, "category_id": 7, "bbox": [5, NaN, 1, 1]},
 {"image_id": 2, "category_id": 9, "bbox": [5, 5, 9, 9]},
 {"image_id": 2, "category_id": 7, "bbox": [5, 5, 0.5, 9]},
 {"image_id": 2, "category_id": 7, "bbox": [95, 5, 50, 9]},
 {"image_id": 3, "category_id": 7, "bbox": [5, 5, 9, 9]},
 {"image_id": 4, "category_id": 7, "bbox": [5, 5, 9, 9]},
 {"image_id": 5, "category_id": 7, "bbox": [-5, 500, 19, 9]},
 {"image_id": 5, "category_id": 7, "bbox": [5, 5, 9]}],
"categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}]}
"""

CLEAN_COCO = """{"images": [
 {"id": 1, "file_name": "a.jpg", "height": 50, "width": 100},
 {"id": 2, "file_name": "b.jpg", "height": 50, "width": 100},
 {"id": 5, "file_name": "c.jpg"}],
"annotations": [
 {"image_id": 1, "category_id": 7, "bbox": [1, 2.0, 30, 4e1]},
 {"image_id": 1, "category_id": 8, "bbox": [1, 2, 30, 40]},
 {"image_id": 1, "category_id": 7, "bbox": [85.10, 2, 14.9, 40], "area": 596, "height": 40},
 {"image_id": 5, "category_id": 7, "bbox": [0, 500, 14, 9]}],
"categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}]}
"""

COCO_CHANGES = [
    ("image", "2", "./a.jpg", "duplicate_image", "removed"),
    ("image", "3", "", "malformed_row", "removed"),
    ("annotation", "1", "a.jpg", "duplicate_box", "removed"),
    ("annotation", "3", "a.jpg", "outside_image", "changed"),
    ("annotation", "4", "a.jpg", "duplicate_box", "removed"),
    ("annotation", "5", "b.jpg", "tiny_box", "removed"),
    ("annotation", "6", "b.jpg", "degenerate_box", "removed"),
    ("annotation", "7", "b.jpg", "not_finite", "removed"),
    ("annotation", "8", "b.jpg", "unknown_category", "removed"),
    ("annotation", "9", "b.jpg", "tiny_box", "removed"),
    ("annotation", "10", "b.jpg", "centre_outside_image", "removed"),
    ("annotation", "11", "./a.jpg", "duplicate_image", "removed"),
    ("annotation", "12", "", "malformed_row", "removed"),
    ("annotation", "13", "c.jpg", "outside_image", "changed"),
    ("annotation", "14", "c.jpg", "malformed_row", "removed"),
]


def test_coco_is_mended_in_its_text_alone(tmp_path):
    (tmp_path / "coco.json").write_text(COCO)
    copy = clean(tmp_path / "coco.json", tmp_path / "clean.json")
    assert copy.path.read_text() == CLEAN_COCO
    assert (tmp_path / "coco.json").read_text() == COCO
    assert faults(copy.path) == {}


def test_every_change_is_listed_with_the_row_before_and_after(tmp_path):
    (tmp_path / "coco.json").write_text(COCO)
    copy = clean(tmp_path / "coco.json", tmp_path / "clean.json")
    assert copy.changes_path == tmp_path / "clean.json.changes.csv"
    with copy.changes_path.open(newline="") as file:
        listed = list(csv.DictReader(file))
    told = [tuple(one[k] for k in ("place", "row", "image", "rule", "action")) for one in listed]
    assert told == COCO_CHANGES
    before = '{"image_id": 1, "category_id": 7, "bbox": [85.10, 2, 20, 40], "area": 800, '
    assert listed[3]["before"] == before + '"height": 40}'
    assert listed[3]["after"] == before.replace("20,", "14.9,").replace("800", "596") + (
        '"height": 40}'
    )
    assert listed[4]["after"] == ""
    assert copy.summary() == (
        f"written: {tmp_path}/clean.json (2 annotations changed, 11 annotations removed, "
        f"2 images removed), {tmp_path}/clean.json.changes.csv"
    )


CSV = """\
image;xmin;ymin;xmax;ymax;label;width;height\r
"a\r
b.jpg"; 1.50;2;30;"40";cat;100;50\r
c.jpg;-1;2;"30.0";40;dog;100;50\r
c.jpg;0;2;30;40;dog;100;50\r
\r
d.jpg;5;5;5;9;cat;;\r
d.jpg;;;;;;;\r
d.jpg;7;5;5;9;dog;;\r
e.jpg;;;;;;;\r
e.jpg;one;2;3;4;cat;;\r
f.jpg;1;2;3;4;cat;;"""

CLEAN_CSV = """\
image;xmin;ymin;xmax;ymax;label;width;height\r
"a\r
b.jpg"; 1.50;2;30;"40";cat;100;50\r
c.jpg;0;2;"30.0";40;dog;100;50\r
\r
d.jpg;;;;;;;\r
e.jpg;;;;;;;\r
f.jpg;1;2;3;4;cat;;"""

CSV_CHANGES = [
    (4, "c.jpg", "outside_image", "changed"),
    (5, "c.jpg", "duplicate_box", "removed"),
    (7, "d.jpg", "degenerate_box", "changed"),
    (8, "d.jpg", "duplicate_image", "removed"),
    (9, "d.jpg", "degenerate_box", "removed"),
    (11, "e.jpg", "malformed_row", "removed"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_is_mended_line_by_line_and_keeps_ends_and_encoding(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes(CSV.encode(encoding))
    copy = clean(tmp_path / "a.csv", tmp_path / "b.csv")
    assert copy.path.read_bytes() == CLEAN_CSV.encode(encoding)
    found = [(one.row, one.image, one.rule, one.action) for one in copy.changes]
    assert found == CSV_CHANGES
    assert {one.place for one in copy.changes} == {"line"}
    assert faults(copy.path) == {}


@pytest.mark.parametrize("second", ["b.jpg", "b.jpg;1;2;3;4;cat", "b,,,,,cat"])
def test_a_copy_whose_columns_could_not_be_told_is_refused(tmp_path, second):
    (tmp_path / "a.csv").write_text(f"a.jpg,x,2,3,4,cat\n{second}\nc.jpg,1,2,3,4,cat\n")
    with pytest.raises(AnnotationError) as caught:
        clean(tmp_path / "a.csv", tmp_path / "b.csv")
    assert str(caught.value) == (
        f"{tmp_path}/a.csv: without its first line the columns could not be told any more; put a "
        "header before it, such as filename,x1,y1,x2,y2,class"
    )
    assert os.listdir(tmp_path) == ["a.csv"]


def picture_faults(*names_and_rows) -> list[Finding]:
    return [
        Finding("missing_image", name, row, None, None, "is not there")
        for name, row in names_and_rows
    ]


def test_an_image_that_goes_takes_its_lines_along(tmp_path):
    (tmp_path / "a.csv").write_text(
        "a.jpg,1,2,3,4,cat\nb.jpg,1,2,3,4,cat\na.jpg,1,2,9,9,cat\na.jpg,,,,,\nb.jpg,1,2,9,9,dog\n"
    )
    copy = clean(tmp_path / "a.csv", tmp_path / "b.csv", picture_faults(("a.jpg", 1)))
    assert copy.path.read_text() == "b.jpg,1,2,3,4,cat\nb.jpg,1,2,9,9,dog\n"


def test_an_image_that_goes_takes_boxes_of_classes_left_out_along(tmp_path):
    (tmp_path / "a.json").write_text(COCO)
    copy = clean(
        tmp_path / "a.json", tmp_path / "b.json", picture_faults(("a.jpg", 0)), classes=["cat"]
    )
    left = json.loads(copy.path.read_text())
    assert [row["id"] for row in left["images"]] == [2, 5]
    assert {row["image_id"] for row in left["annotations"]} == {5}
    assert faults(copy.path) == {}


def test_a_row_that_claims_the_id_of_another_image_takes_no_box_along(tmp_path):
    row = '{"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}'
    box = '{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}'
    (tmp_path / "a.json").write_text(
        f'{{"images": [{row}, {row}], "annotations": [{box}], '
        '"categories": [{"id": 7, "name": "cat"}]}'
    )
    copy = clean(tmp_path / "a.json", tmp_path / "b.json")
    assert json.loads(copy.path.read_text())["annotations"] == [json.loads(box)]
    assert [change.place for change in copy.changes] == ["image"]


def test_boxes_are_cut_to_the_sizes_of_the_table_and_to_the_least_size_asked_for(tmp_path):
    (tmp_path / "a.csv").write_text("a.jpg,90,2,106,9,cat\na.jpg,96,2,103,9,cat\n")
    table = read_label_table(tmp_path / "a.csv")
    table.heights[:], table.widths[:] = 50, 100
    audit = audit_table(table, min_box_size=5)
    copy = write_clean_copy(table, audit.findings, tmp_path / "b.csv", force=False, min_box_size=5)
    assert copy.path.read_text() == "a.jpg,90,2,100,9,cat\n"


# -- any faults -----------------------------------------------------------------------------------

NUMBER = st.sampled_from(
    ["-7", "-0.5", "0", "0.50", "3", "3.0", "20", "4e1", "45", "60.25", "1e999", "NaN", "-1e30"]
)
JSON_BOX = st.lists(NUMBER, min_size=4, max_size=4) | st.lists(NUMBER, max_size=5)
JSON_ROW = st.builds(
    '{{"image_id": {}, "category_id":{} , "bbox": [{}], "height": {}{}}}'.format,
    st.sampled_from(["0", "1", "2", "9", '"a"', "null"]),
    st.sampled_from(["1", "1", "1", "-1", "5", "[]"]),
    JSON_BOX.map(", ".join),
    NUMBER,
    st.sampled_from(["", ', "ignore": 1', ', "iscrowd": 2', ', "area": 9.0']),
)
IMAGE_ROW = st.builds(
    '{{"id": {}, "{}": "{}"{}}}'.format,
    st.sampled_from(["0", "1", "2", "3", '"a"', "1.5"]),
    st.sampled_from(["file_name"] * 3 + ["name"]),
    st.sampled_from(["s/v/a", "s/v/b", "s/v/c", "s//v/a"]),
    st.sampled_from([', "height": 40, "width": 50', "", ', "height": "x"']),
)


def json_file(images: list[str], boxes: list[str], is_kaist: bool) -> str:
    categories = '[{"id": 1, "name": "person"}, {"id": 2, "name": "people"}]'
    text = (
        f'{{"categories": {categories}, "images":[\n{",  ".join(images)}],\n'
        f'"annotations" : [ {",".join(boxes)} ]}}'
    )
    return text.replace("file_name", "im_name") if is_kaist else text


def check_cleaned(path: Path, target: Path, **how) -> list:
    """Clean a file, clean the copy again; returns the changes, None where nothing was readable."""
    try:
        copy = clean(path, target, force=True, **how)
    except AnnotationError:
        return []
    assert faults(target, **how) == {}
    again = clean(target, path.with_name(f"again_{path.name}"), force=True, **how)
    assert again.changes == []
    assert again.path.read_bytes() == target.read_bytes()
    return copy.changes


@SLOW_START
@given(
    images=st.lists(IMAGE_ROW, min_size=1, max_size=4),
    boxes=st.lists(JSON_ROW | st.sampled_from(["7", "{}"]), max_size=8),
    is_kaist=st.booleans(),
)
def test_whatever_is_wrong_with_a_json_the_copy_is_sound_and_the_rest_as_it_was(
    tmp_path, images, boxes, is_kaist
):
    source, target = tmp_path / "a.json", tmp_path / "b.json"
    source.write_text(json_file(images, boxes, is_kaist))
    target.unlink(missing_ok=True)
    changes = check_cleaned(source, target)
    if not target.exists():
        return
    before, after = as_text(source.read_text()), as_text(target.read_text())
    for place, key in (("image", "images"), ("annotation", "annotations")):
        here = {change.row: change for change in changes if change.place == place}
        removed = {row for row, change in here.items() if change.action == "removed"}
        kept = [row for row in range(len(before[key])) if row not in removed]
        assert len(kept) == len(after[key])
        for row, new in zip(kept, after[key], strict=True):
            old = before[key][row]
            if row in here:
                old = {k: v for k, v in old.items() if k not in ("bbox", "height", "area")}
                new = {k: v for k, v in new.items() if k not in ("bbox", "height", "area")}
            assert new == old
    assert after["categories"] == before["categories"]


CSV_ROW = st.builds(
    "{},{},{},{},{},{},{}".format,
    st.sampled_from(["a.jpg", "b.jpg", '"c,c.jpg"', "./a.jpg", ""]),
    *[NUMBER | st.sampled_from(["", "x", '"30"', " 5 "])] * 4,
    st.sampled_from(["cat", "dog", "ignore", ""]),
    st.sampled_from(["", "0", "1", "2"]),
)
NO_BOX = st.sampled_from(["a.jpg,,,,,,", "b.jpg,,,,,,", "d.jpg,,,,,cat,", "", "a.jpg,1"])


@SLOW_START
@given(
    lines=st.lists(CSV_ROW | NO_BOX, min_size=1, max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
    box_format=st.sampled_from(["xyxy", "xywh"]),
)
def test_whatever_is_wrong_with_a_csv_the_copy_is_sound_and_the_rest_as_it_was(
    tmp_path, lines, end, box_format
):
    source, target = tmp_path / "a.csv", tmp_path / "b.csv"
    header = {"xyxy": "file,x1,y1,x2,y2,class,occlusion", "xywh": "file,x,y,w,h,class,occlusion"}
    lines = [header[box_format], *lines]
    source.write_text("".join(line + end for line in lines), newline="")
    target.unlink(missing_ok=True)
    changes = check_cleaned(source, target, box_format=box_format)
    if not target.exists():
        return
    mended = {change.row: change.after for change in changes}
    expected = [mended.get(row, line) + end for row, line in enumerate(lines, 1)
                if mended.get(row) != ""]  # fmt: skip
    assert target.read_bytes().decode() == "".join(expected)


# -- where it may lie -----------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path) -> Path:
    (tmp_path / "a.csv").write_text("a.jpg,1,2,3,4,cat\n")
    return tmp_path / "a.csv"


def test_it_never_lies_over_the_labels_by_whatever_path(source, tmp_path):
    os.symlink(source, tmp_path / "link.csv")
    os.link(source, tmp_path / "hard.csv")
    os.symlink(tmp_path, tmp_path / "folder")
    for name in ("a.csv", "link.csv", "hard.csv", "folder/a.csv"):
        with pytest.raises(ConfigError, match=r"one of the files to read"):
            clean(source, tmp_path / name, force=True)
    with pytest.raises(ConfigError, match=r"one of the files to read"):
        clean(tmp_path / "link.csv", source, force=True)
    assert source.read_text() == "a.jpg,1,2,3,4,cat\n"


def test_nor_does_its_list_of_changes(tmp_path):
    source = tmp_path / "b.csv.changes.csv"
    source.write_text("a.jpg,1,2,3,4,cat\n")
    with pytest.raises(ConfigError, match=r"one of the files to read"):
        clean(source, tmp_path / "b.csv", force=True)


@pytest.mark.parametrize("taken", ["b.csv", "b.csv.changes.csv"])
def test_over_another_file_only_when_asked(source, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(ConfigError) as caught:
        clean(source, tmp_path / "b.csv")
    assert str(caught.value) == (
        f"{tmp_path}/{taken} exists; name another file, or add --force to replace it"
    )
    assert sorted(os.listdir(tmp_path)) == ["a.csv", taken]
    clean(source, tmp_path / "b.csv", force=True)
    assert (tmp_path / "b.csv").read_text() == source.read_text()


def test_a_link_to_nowhere_is_something_that_exists(source, tmp_path):
    os.symlink(tmp_path / "gone", tmp_path / "b.csv")
    with pytest.raises(ConfigError, match="exists"):
        check_target(source, tmp_path / "b.csv", force=False)


def test_a_folder_is_no_place_for_it(source, tmp_path):
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(ConfigError, match=r"b\.csv: this is no file"):
        clean(source, tmp_path / "b.csv", force=True)


def test_folders_on_the_way_are_made_and_a_full_disk_is_one_line(source, tmp_path, monkeypatch):
    assert clean(source, tmp_path / "new/é ü/b.csv").path.is_file()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError) as caught:
        clean(source, tmp_path / "c.csv")
    assert str(caught.value).startswith(f"cannot write {tmp_path}/c.csv.changes.csv (No space ")
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "new"]


def test_a_file_of_which_no_image_would_be_left_is_not_written(source, tmp_path):
    with pytest.raises(AnnotationError, match="no image is sound; a clean copy would be empty"):
        clean(source, tmp_path / "b.csv", picture_faults(("a.jpg", 1)))
    assert os.listdir(tmp_path) == ["a.csv"]
