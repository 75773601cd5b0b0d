"""``d2pd split``: what it writes, shows and refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fold_toys import frames, table_of

from d2pd import cli
from d2pd.data.fold_assignment import daytime_of, video_of
from d2pd.data.folds import read_folds
from d2pd.data.split_command import count_folds

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def labels(tmp_path):
    """KAIST labels: four videos of six frames, two by day, with a person in every second frame."""
    names = frames(set00_V000=6, set01_V000=6, set03_V000=6, set04_V000=6)
    content = {
        "images": [{"id": at, "im_name": name} for at, name in enumerate(names)],
        "annotations": [
            {"id": at, "image_id": at, "category_id": 1, "bbox": [1, 2, 30, 40]}
            for at in range(0, len(names), 2)
        ],
    }
    (tmp_path / "kaist.json").write_text(json.dumps(content))
    return tmp_path / "kaist.json"


def split(labels, *words):
    return cli.main(
        ["split", "--annotations", str(labels), "--output", str(labels.parent / "f.json"), *words]
    )


def test_table_counts_each_fold_by_hand():
    names = ["set00/V000/I1", "set00/V000/I2", "set03/V001/I1", "set03/V001/I1"]
    boxes = [(0, 0, False), (0, 1, False), (2, 0, False), (3, 0, True), (3, -1, True)]
    table = table_of(names, boxes, ("person", "a|b"))
    assert count_folds(table, np.array([0, 1, 1, 1]), 2) == [
        ["fold", "images", "videos", "day", "night", "person", "a/b", "regions"],
        ["0", "1 (25.0%)", "1", "1 (50.0%)", "0 (0.0%)", "1 (50.0%)", "1 (100.0%)", "0 (0.0%)"],
        ["1", "3 (75.0%)", "2", "1 (50.0%)", "2 (100.0%)", "1 (50.0%)", "0 (0.0%)", "2 (100.0%)"],
        ["all", "4", "2", "2", "2", "2", "1", "2"],
    ]


def test_table_has_no_day_and_night_where_nothing_tells_them():
    rows = count_folds(table_of(["a/1.jpg", "b/1.jpg"]), np.array([1, 0]), 2)
    assert rows[0] == ["fold", "images", "videos", "person"]
    assert [row[-1] for row in rows[1:]] == ["0 (0.0%)", "0 (0.0%)", "0"]


def test_table_has_no_videos_where_names_tell_none():
    rows = count_folds(table_of(["1.jpg", "2.jpg"]), np.array([1, 0]), 2)
    assert rows[0] == ["fold", "images", "person"]


def test_folds_are_written_and_shown(labels, capsys):
    before = labels.read_bytes()
    assert split(labels, "--folds", "2", "--stratify", "--seed", "3") == 0
    folds = read_folds(labels.parent / "f.json")
    assert (folds.annotations, folds.num_images, folds.num_boxes) == ("kaist.json", 24, 12)
    assert (folds.num_folds, folds.by, folds.is_stratified, folds.seed) == (2, "video", True, 3)
    of_video = {(video_of(name), fold) for name, fold in folds.fold_of_image.items()}
    assert len(of_video) == 4
    assert {(daytime_of(video + "/I"), fold) for video, fold in of_video} == {
        ("day", 0), ("day", 1), ("night", 0), ("night", 1),
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "| fold | images     | videos | day       | night     | person    |",
        "|------|------------|--------|-----------|-----------|-----------|",
        "| 0    | 12 (50.0%) | 2      | 6 (50.0%) | 6 (50.0%) | 6 (50.0%) |",
        "| 1    | 12 (50.0%) | 2      | 6 (50.0%) | 6 (50.0%) | 6 (50.0%) |",
        "| all  | 24         | 4      | 12        | 12        | 12        |",
        "",
        f"written: {labels.parent / 'f.json'}",
    ]
    assert labels.read_bytes() == before


def test_the_same_again_is_the_same_file_and_another_is_refused(labels, capsys):
    assert split(labels, "--folds", "2") == 0
    before = (labels.parent / "f.json").read_bytes()
    assert split(labels, "--folds", "2") == 0
    assert split(labels, "--folds", "3") == 2
    assert "f.json is there already and holds something else: delete it" in capsys.readouterr().err
    assert (labels.parent / "f.json").read_bytes() == before


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_the_labels_are_never_written_over(labels, capsys, link):
    before = labels.read_bytes()
    link(labels, labels.parent / "f.json")
    assert split(labels, "--folds", "2") == 2
    assert "f.json: this is one of the files to read" in capsys.readouterr().err
    assert labels.read_bytes() == before


def test_rows_that_training_refuses_are_told_before_the_split(labels, capsys):
    content = json.loads(labels.read_text())
    content["annotations"] += [{"image_id": 0, "category_id": 1, "bbox": [1, 2, 3]}] * 2
    labels.write_text(json.dumps(content))
    assert split(labels, "--folds", "2") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "annotation 12" in said
    assert "2 rows cannot be read" in said
    assert "d2pd audit --write-clean" in said
    assert not (labels.parent / "f.json").exists()


def test_a_folder_that_is_not_there_is_made_and_a_file_in_its_place_is_told(labels, capsys):
    (labels.parent / "file").write_text("")
    words = ["split", "--annotations", str(labels), "--folds", "2", "--output"]
    assert cli.main([*words, str(labels.parent / "new/f.json")]) == 0
    assert cli.main([*words, str(labels.parent / "file/f.json")]) == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_real_train_labels_balance_within_a_few_percent(shared_data, tmp_path, capsys):
    labels = shared_data / "kaist/train20.json"
    words = ["--folds", "5", "--stratify", "--output", str(tmp_path / "f.json")]
    assert cli.main(["split", "--annotations", str(labels), *words]) == 0
    folds = read_folds(tmp_path / "f.json")
    assert (folds.num_images, len(folds.fold_of_image), folds.num_boxes) == (8963, 8961, 26718)
    of_video = {(video_of(name), fold) for name, fold in folds.fold_of_image.items()}
    assert len(of_video) == len({video for video, _ in of_video}) == 25
    shares = [
        float(cell.split("(")[1].rstrip("%)"))
        for line in capsys.readouterr().out.splitlines()[2:7]
        for at, cell in enumerate(cell.strip() for cell in line.strip("|").split("|"))
        if at in (1, 3, 4, 5)  # images, day, night, person
    ]
    assert len(shares) == 20
    assert all(16 < share < 23 for share in shares)


def test_neither_torch_nor_an_engine_is_loaded(labels):
    code = (
        "import sys; from d2pd import cli; code = cli.main(sys.argv[1:])\n"
        "heavy = ('torch', 'detectron2', 'd2pd.embedded', 'd2pd.d2', 'cv2', 'matplotlib')\n"
        "sys.exit(code or str([name for name in heavy if name in sys.modules]))"
    )
    words = ["split", "--annotations", labels, "--folds", "2", "--output", labels.parent / "f.json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == "[]\n"


def test_a_seed_beyond_those_of_scikit_learn_is_told(labels, capsys):
    assert split(labels, "--folds", "2", "--seed", str(2**32)) == 2
    assert "takes seeds from 0 to 4294967295" in capsys.readouterr().err


def test_names_do_not_reach_the_terminal_as_commands(labels, capsys):
    content = json.loads(labels.read_text())
    content["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "\x1b[2Jq\x07"}]
    labels.write_text(json.dumps(content))
    assert split(labels, "--folds", "2", "--classes", "person", "\x1b[2Jq\x07") == 0
    assert r"\x1b[2Jq\x07" in capsys.readouterr().out


def test_columns_of_a_csv_without_a_header_are_those_given(tmp_path, capsys):
    labels = tmp_path / "a.csv"
    labels.write_text("".join(f"dog,{at}.jpg,1,2,30,40\n" for at in range(4)))
    columns = ["--columns", "class", "filename", "x1", "y1", "x2", "y2"]
    assert split(labels, "--folds", "2", "--by", "image", *columns) == 0
    assert set(read_folds(tmp_path / "f.json").fold_of_image) == {f"{at}.jpg" for at in range(4)}
