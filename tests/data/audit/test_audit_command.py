"""``d2pd audit`` as a user calls it: exit codes, files, bad calls, answers known of real labels."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from d2pd.cli import main

ROOT = Path(__file__).resolve().parents[3]

CLEAN = "filename,x1,y1,x2,y2,class\na.jpg,1,2,30,40,person\nb.jpg,5,6,70,80,person\n"
FAULTY = CLEAN + "b.jpg,9,9,9,20,person\n"


@pytest.fixture
def labels(tmp_path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(FAULTY)
    return path


def audit(path, *words) -> int:
    return main(["audit", "--annotations", str(path), *map(str, words)])


def test_a_clean_file_ends_in_0_and_says_so(tmp_path, capsys):
    path = tmp_path / "labels.csv"
    path.write_text(CLEAN)
    assert audit(path) == 0
    out = capsys.readouterr().out
    assert "nothing found" in out
    assert "nothing is written: --out DIR" in out
    assert list(tmp_path.iterdir()) == [path]


def test_findings_end_in_1_and_are_named(labels, capsys):
    assert audit(labels) == 1
    out = capsys.readouterr().out
    assert "b.jpg, row 4: [9, 9, 9, 20] has no area (0 x 11 px)" in out
    assert labels.read_text() == FAULTY


def test_out_gets_the_audit_as_json(labels, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert audit(labels, "--out", out) == 1
    read = json.loads((out / "audit.json").read_text())
    assert (read["images"], read["boxes"]) == (2, 3)
    assert read["counts"]["degenerate_box"] == 1
    (finding,) = read["findings"]
    assert (finding["rule"], finding["row"]) == ("degenerate_box", 4)
    assert f"written: {out / 'audit.json'}" in capsys.readouterr().out
    assert (out / "suspicious.csv").is_file()


def test_the_files_are_there_even_if_nobody_reads_the_output_to_its_end(labels, tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    words = ["audit", "--annotations", str(labels), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "d2pd", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")
    assert (tmp_path / "out/audit.json").is_file()


def test_the_clean_copy_is_written_and_has_no_findings(labels, tmp_path, capsys):
    target = tmp_path / "clean.csv"
    assert audit(labels, "--write-clean", target) == 1
    assert f"written: {target}" in capsys.readouterr().out
    assert target.read_text() == CLEAN
    assert audit(target) == 0
    with (tmp_path / "clean.csv.changes.csv").open(newline="") as file:
        (change,) = csv.DictReader(file)
    assert (change["row"], change["rule"], change["action"]) == ("4", "degenerate_box", "removed")


def test_the_least_size_and_the_classes_are_those_given(labels, capsys):
    assert audit(labels, "--min-box-size", "29.5") == 1
    assert "is 29 x 38 px, under 29.5" in capsys.readouterr().out
    assert audit(labels, "--classes", "car") == 1
    assert "category 'person' is not among the classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--min-box-size", "nan"], "--min-box-size must be a number of pixels from 0 on, got nan"),
        (["--min-box-size", "-1"], "--min-box-size must be a number of pixels from 0 on, got -1"),
        (["--weights", "model.pth"], "--weights and --config-file go together"),
        (["--config-file", "c.yaml"], "--weights and --config-file go together"),
        (["--weights", "m.pth", "--config-file", "c.yaml"], "name the folder with --out DIR"),
        (["--out", "{labels}"], "labels.csv is a file, not a folder; write to another"),
        (["--out", "{labels}/below"], "labels.csv is a file, not a folder; write to another"),
        (["--write-clean", "{labels}"], "labels.csv: this is one of the files to read"),
        (["--format", "kaist"], "labels.csv"),
        (["--out", "{folder}", "--write-clean", "{folder}/audit.json"], "is written by --out too"),
    ],
)
def test_a_bad_call_ends_in_2_with_one_line_and_changes_nothing(labels, words, message, capsys):
    places = {"labels": labels, "folder": labels.parent / "out"}
    assert audit(labels, *(word.format(**places) for word in words)) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert (shown.err.count("\n"), shown.out) == (1, "")
    assert list(labels.parent.iterdir()) == [labels]
    assert labels.read_text() == FAULTY


def test_the_audit_never_lies_over_the_label_file(tmp_path, capsys):
    path = tmp_path / "audit.json"
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    before = path.read_bytes()
    assert audit(path, "--out", tmp_path) == 2
    link = tmp_path / "by_link"
    link.symlink_to(tmp_path)
    assert audit(path, "--out", link) == 2
    assert capsys.readouterr().err.count("this is one of the files to read") == 2
    assert path.read_bytes() == before


def test_labels_alone_are_looked_through_without_torch_pictures_or_plots(labels):
    code = (
        "import sys; from d2pd.cli import main\n"
        f"assert main(['audit', '--annotations', {str(labels)!r}]) == 1\n"
        "heavy = ('torch', 'cv2', 'matplotlib', 'sklearn', 'detectron2', 'd2pd.d2')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_with_images_missing_ones_are_found_and_boxes_beyond_the_others(tmp_path, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (64, 48)).save(pictures / "a.jpg")
    labels = tmp_path / "labels.csv"
    row = "a.jpg,{},{},{},{},person\n".format
    labels.write_text(row(1, 2, 30, 40) + row(40, 10, 90, 30) + "b.jpg,5,6,70,80,person\n")
    clean, out = tmp_path / "clean.csv", tmp_path / "out"
    assert audit(labels) == 0
    words = ["--images", pictures]
    assert audit(labels, *words, "--out", out, "--write-clean", clean) == 1
    read = json.loads((out / "audit.json").read_text())
    assert {rule: count for rule, count in read["counts"].items() if count} == {
        "outside_image": 1,
        "centre_outside_image": 1,
        "missing_image": 1,
    }
    assert read["conditions"]["images"] == str(pictures)
    assert clean.read_text() == row(1, 2, 30, 40)
    assert audit(clean, *words) == 0
    assert "not looked at" not in capsys.readouterr().out.split("written: ")[-1]


# Answers known of real labels, see the README of the shared data.


@pytest.fixture(scope="module")
def kaist(shared_data, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("kaist")
    assert audit(shared_data / "kaist/train20.json", "--out", out) == 1
    return json.loads((out / "audit.json").read_text())


def test_counts_of_the_kaist_training_labels(kaist):
    assert (kaist["images"], kaist["boxes"]) == (8963, 26718)
    counts = {rule: count for rule, count in kaist["counts"].items() if count}
    assert counts.pop("outlier_aspect") < 10
    assert counts == {
        "degenerate_box": 16,
        "outside_image": 770,
        "duplicate_image": 2,
        "ignore_only": 225,
    }
    assert kaist["regions"]["degenerate_box"] == 6


def test_the_ten_persons_without_area_are_in_the_eight_known_rows(kaist):
    found = [finding for finding in kaist["findings"] if finding["rule"] == "degenerate_box"]
    persons = [(finding["image"], finding["box"]) for finding in found if not finding["is_region"]]
    assert persons == [
        ("set00/V004/I01233", [620, 308, 620, 309]),
        ("set00/V007/I00263", [167, 262, 167, 263]),
        ("set01/V000/I02017", [434, 241, 434, 242]),
        ("set01/V003/I00905", [164, 322, 164, 323]),
        ("set01/V003/I00905", [151, 305, 151, 306]),
        ("set01/V003/I00905", [149, 258, 149, 259]),
        ("set03/V001/I01005", [497, 230, 497, 231]),
        ("set04/V001/I01229", [529, 282, 529, 283]),
        ("set04/V001/I01231", [529, 282, 529, 283]),
        ("set04/V001/I01233", [529, 282, 529, 283]),
    ]
    assert [finding["category"] for finding in found if finding["is_region"]] == [None] * 6
    assert [f["box"] for f in found if f["is_region"]] == [[0, 0, 0, 0]] * 6


def test_the_images_listed_twice_are_known(kaist):
    found = [finding for finding in kaist["findings"] if finding["rule"] == "duplicate_image"]
    assert [finding["image"] for finding in found] == ["set00/V000/I01219", "set00/V000/I01239"]


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_face_mask_photos_have_no_findings(shared_data, part, capsys):
    assert audit(shared_data / "face_mask" / part / "_annotations.csv") == 0
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["", "/", ".."])
def test_a_clean_copy_needs_a_name(labels, target, capsys):
    assert audit(labels, "--write-clean", target) == 2
    assert "no file that could be replaced" in capsys.readouterr().err


def test_labels_where_a_copy_lies_until_it_is_whole_stay(tmp_path, capsys):
    path = tmp_path / ".clean.csv.part"
    path.write_text(FAULTY)
    assert audit(path, "--write-clean", tmp_path / "clean.csv") == 2
    assert "one of the files to read" in capsys.readouterr().err
    assert path.read_text() == FAULTY


def test_a_clean_copy_never_lies_over_the_checkpoint_or_the_configuration(labels, tmp_path, capsys):
    checkpoint, config = tmp_path / "m.pth", tmp_path / "c.yaml"
    checkpoint.write_bytes(b"weights")
    config.write_text("SEED: 1\n")
    words = ["--weights", str(checkpoint), "--config-file", str(config), "--force"]
    words += ["--out", str(tmp_path / "out"), "--write-clean", str(checkpoint)]
    assert audit(labels, *words) == 2
    assert "m.pth: this is one of the files to read; write to another" in capsys.readouterr().err
    assert checkpoint.read_bytes() == b"weights"


def test_columns_of_a_csv_without_a_header_are_those_given(tmp_path, capsys):
    path, copy = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text("dog,a.jpg,1,2,30,40\ndog,b.jpg,5,5,5,9\n")
    words = ["--columns", "class", "filename", "x1", "y1", "x2", "y2"]
    assert audit(path, *words, "--write-clean", str(copy)) == 1
    out = capsys.readouterr().out
    assert "boxes by class: dog 2" in out
    assert "b.jpg, row 2: [5, 5, 5, 9] has no area (0 x 4 px)" in out
    assert copy.read_text() == "dog,a.jpg,1,2,30,40\n,b.jpg,,,,\n"
    assert audit(copy, *words) == 1
    assert "no_object" in capsys.readouterr().out


def test_columns_have_no_meaning_for_json(tmp_path, capsys):
    path = tmp_path / "a.json"
    path.write_text('{"images": [], "annotations": []}')
    assert audit(path, "--columns", "x1") == 2
    assert capsys.readouterr().err == f"d2pd: {path}: this is no CSV; leave --columns out\n"
