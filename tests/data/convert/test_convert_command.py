"""``d2pd convert`` as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from d2pd import cli
from d2pd.data.annotations import read_coco_json, read_csv, read_kaist_json

ROOT = Path(__file__).resolve().parents[3]
TEXT = "% bbGt version=3\nperson 10 20 30 40 1 0 0 0 0 0 0\npeople 1 2 3 4 0 1 1 1 1 0 45\n"


@pytest.fixture
def tree(tmp_path):
    """Two frames of bbGt text, one of them without objects."""
    root = tmp_path / "an nötations"
    for name, text in (("I00001", TEXT), ("I00000", "% bbGt version=3\n")):
        path = root / "set00/V000" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def convert(capsys, *words):
    code = cli.main(["convert", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_text_labels_become_kaist_json_and_what_is_lost_is_counted(tree, tmp_path, capsys):
    target = tmp_path / "out/kaist.json"

    code, out, _ = convert(capsys, tree, "--to", "kaist", "--output", target)

    assert code == 0
    assert out.splitlines() == [
        "read as bbgt: 2 images, classes person, people, 0 regions to ignore",
        f"written as kaist: {target}, 2 boxes",
        "what kaist does not say:",
        "        1  of boxes: visible box",
        "        1  of boxes: angle",
    ]
    labels = read_kaist_json(target, None)
    assert [record["im_name"] for record in labels.records] == [
        "set00/V000/I00000",
        "set00/V000/I00001",
    ]
    person, people = labels.records[1]["annotations"]
    assert (person["bbox"], person["occlusion"], person["ignore"]) == ([10, 20, 40, 60], 1, 0)
    assert people["ignore"] == 1  # only a person is one, unless CLASSES say so


def test_classes_that_are_not_chosen_become_regions(tree, tmp_path, capsys):
    target = tmp_path / "coco.json"

    _, out, _ = convert(
        capsys, tree, "--to", "coco", "--output", target, "--classes", "person", "--format", "bbgt"
    )

    assert "1  classes that were not chosen: their boxes are regions to ignore" in out
    labels = read_coco_json(target, None)
    assert labels.class_names == ("person",)
    assert [each["ignore"] for each in labels.records[1]["annotations"]] == [0, 1]
    assert labels.records[1]["file_name"] == "set00/V000/visible/I00001.jpg"


def test_xml_labels_become_csv_and_go_back_to_kaist(tmp_path, capsys):
    box = "<bndbox><x>1</x><y>2</y><w>3</w><h>4</h></bndbox>"
    path = tmp_path / "set06/V001/I00019.xml"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"<annotation><object><name>person</name>{box}<occlusion>2</occlusion></object>"
        f"<object><name>ignore</name>{box}</object></annotation>"
    )
    table, back = tmp_path / "a.csv", tmp_path / "a.json"

    assert convert(capsys, path, "--to", "csv", "--output", table)[0] == 0
    assert table.read_text().splitlines()[1:] == [
        "set06/V001/visible/I00019.jpg,1,2,4,6,person,0,2,640,512",
        "set06/V001/visible/I00019.jpg,1,2,4,6,ignore,1,,640,512",
    ]
    code, out, _ = convert(capsys, table, "--to", "kaist", "--output", back)
    assert (code, out.splitlines()[-1]) == (0, "nothing is lost")
    (record,) = read_kaist_json(back, None).records
    assert record["im_name"] == "set06/V001/I00019"
    assert [each["ignore"] for each in record["annotations"]] == [0, 1]


def test_a_coco_file_loses_what_is_no_box_and_each_kind_is_counted(tmp_path, capsys):
    content = {
        "info": {},
        "images": [{"id": 5, "file_name": "a.jpg", "license": 3, "coco_url": ""}],
        "annotations": [
            {"id": 10, "image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 7.5},
            {"id": 1, "image_id": 5, "category_id": 9, "bbox": [1, 2, 3, 4], "segmentation": [[1]]},
        ],
        "categories": [{"id": 9, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))

    _, out, _ = convert(capsys, path, "--to", "coco", "--output", tmp_path / "new.json")

    assert sorted(out.splitlines()[3:]) == [
        "        1  ids of boxes: they are counted from 0",
        "        1  of boxes: area that is not width x height",
        "        1  of boxes: segmentation",
        "        1  of images: license",
        "        2  ids of classes: cat is 1 now, dog is 2 now",
    ]
    _, out, _ = convert(
        capsys, path, "--to", "csv", "--output", tmp_path / "a.csv", "--classes", "dog"
    )
    assert "        1  boxes of classes that were not chosen, left out" in out
    assert "        1  image ids: they are counted from 0" in out
    assert read_csv(tmp_path / "a.csv", None).class_names == ("dog",)


def test_columns_of_a_csv_that_are_no_labels_are_counted(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("file,x,y,w,h,class,photographer\na.jpg,1,2,3,4,cat,Kim\n")

    _, out, _ = convert(
        *(capsys, path, "--to", "coco", "--output", tmp_path / "a.json", "--box-format", "xywh")
    )

    assert "        1  columns that hold no labels" in out
    (record,) = read_coco_json(tmp_path / "a.json", None).records
    assert record["annotations"][0]["bbox"] == [1, 2, 4, 6]


def test_nothing_is_written_over_unasked(tree, tmp_path, capsys):
    target = tmp_path / "kaist.json"
    target.write_text("mine")

    code, _, err = convert(capsys, tree, "--to", "kaist", "--output", target)
    assert (code, target.read_text()) == (2, "mine")
    assert "exists; name another file, or add --force to replace it" in err

    assert convert(capsys, tree, "--to", "kaist", "--output", target, "--force")[0] == 0
    assert len(read_kaist_json(target, None).records) == 2


@pytest.mark.parametrize("way", ["itself", "link", "hard link", "inside"])
def test_the_input_is_never_changed_even_by_force(tree, tmp_path, capsys, way):
    source = tree / "set00/V000/I00001.txt"
    target = {"itself": source, "inside": tree / "new/kaist.json"}.get(way, tmp_path / "other")
    if way == "link":
        target.symlink_to(source)
    elif way == "hard link":
        os.link(source, target)
    given = tree if way == "inside" else source

    code, _, err = convert(capsys, given, "--to", "kaist", "--output", target, "--force")

    assert code == 2
    assert ("is inside" if way == "inside" else "one of the files to read") in err
    assert source.read_text() == TEXT
    assert not (tree / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "csv"], "neither .txt (bbGt) nor .xml labels"),
        (["--to", "csv", "--format", "kaist"], "this is a folder; name the label file"),
        (["--to", "csv", "--format", "xml"], "there is no .xml file in it"),
    ],
)
def test_a_folder_without_labels_ends_in_one_line(tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()

    code, out, err = convert(capsys, tmp_path / "empty", *words, "--output", tmp_path / "a")

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("content", "format", "message"),
    [
        ('{"images": [], "annotations": []}', "csv", "this looks like JSON, not CSV; leave"),
        ("a.jpg,1,2,3,4,cat\n", "kaist", "this looks like CSV, not kaist JSON; leave"),
        ("<annotation/>", "coco", "this looks like XML, not coco JSON; leave"),
        ("a.jpg,1,2,3,4,cat\n", "bbgt", "line 1: expected '% bbGt version=3', got 'a.jpg,1"),
        ("a.jpg,1,2,3,4,cat\n", "xml", "line 1, column 1: not XML"),
    ],
)
def test_a_file_of_another_format_than_said_is_told(tmp_path, capsys, content, format, message):
    (tmp_path / "labels").write_text(content)
    words = (tmp_path / "labels", "--format", format, "--to", "csv", "--output", tmp_path / "a")

    code, out, err = convert(capsys, *words)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "a").exists()


def test_bad_places_end_in_one_line(tree, tmp_path, capsys):
    (tree / "set00/V000/I00001.xml").write_text("<annotation/>")
    code, _, err = convert(capsys, tree, "--to", "csv", "--output", tmp_path / "a")
    assert (code, err.count("\n")) == (2, 1)
    assert "both .txt and .xml files; choose --format bbgt or xml" in err

    code, _, err = convert(capsys, tmp_path / "no", "--to", "csv", "--output", tmp_path / "a")
    assert (code, err.count("\n")) == (2, 1)

    code, _, err = convert(capsys, tree, "--to", "csv", "--output", tmp_path)
    assert (code, "this is no file that could be replaced" in err) == (2, True)

    target = tree / "set00/V000/I00000.txt/a.csv"
    words = (tree / "set00/V000/I00001.txt", "--to", "csv", "--output", target)
    code, _, err = convert(capsys, *words)
    assert (code, err.count("\n"), "is a file, not a folder" in err) == (2, 1, True)


def test_labels_without_any_image_are_refused(tmp_path, capsys):
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')

    code, _, err = convert(
        *(capsys, tmp_path / "a.json", "--to", "csv", "--output", tmp_path / "a"),
        *("--format", "kaist", "--classes", "person"),
    )

    assert code == 2
    assert err.count("\n") == 1


def test_no_torch_is_loaded(tree, tmp_path):
    code = (
        "import sys; from d2pd import cli\n"
        "cli.main(['convert', sys.argv[1], '--to', 'csv', '--output', sys.argv[2]])\n"
        "print([name for name in ('torch', 'cv2', 'matplotlib') if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(tree), str(tmp_path / "a")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_names_do_not_reach_the_terminal_as_commands(tmp_path, capsys):
    content = {
        "images": [{"id": 0, "file_name": "a.jpg"}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "\x1b[2Jq"}],
    }
    source = tmp_path / "a.json"
    source.write_text(json.dumps(content))
    target = tmp_path / "b.csv"
    assert r"classes \x1b[2Jq, " in convert(capsys, source, "--to", "csv", "--output", target)[1]

    content["categories"][0]["id"] = "c\n\x1b[2J"
    source.write_text(json.dumps(content))
    code, _, err = convert(capsys, source, "--to", "coco", "--output", tmp_path / "c.json")
    assert (code, err.count("\n")) == (2, 1)
    assert r"among the categories (c\n\x1b[2J " in err


def test_columns_of_a_csv_without_a_header_are_those_given(tmp_path, capsys):
    source, target = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_text("dog,a.jpg,1,2,30,40\n")
    words = ["--columns", "class", "filename", "x1", "y1", "x2", "y2"]

    code, _, _ = convert(capsys, source, "--to", "csv", "--output", target, *words)

    assert code == 0
    assert target.read_text().splitlines()[1].startswith("a.jpg,1,2,30,40,dog")
