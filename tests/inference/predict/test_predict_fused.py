"""Several looks, several models, several files of detections: fused, and scored."""

import json
import shutil

import numpy as np
import pytest

import d2pd
from d2pd import cli
from d2pd.data.images import read_image
from d2pd.inference.fuse_files import fuse_files
from d2pd.inference.predict.command import split_weights


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def predict(*words):
    return cli.main(["predict", *(str(word) for word in words)])


def predictions(folder):
    return json.loads((folder / "detections.json").read_text())["predictions"]


@pytest.fixture
def other_run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "other")


def test_looks_are_fused_as_the_library_does(tiny_run, other_run, tmp_path):
    pictures = tiny_run.parent / "images"
    looks = ["--flip", "--scales", "1,1.25", "--threshold", "0.05", "--no-pictures"]

    assert predict("--weights", tiny_run, other_run, pictures, *looks, "--output", "found") == 0

    detector = d2pd.load([tiny_run, other_run], flip=True, scales=[1, 1.25], device="cpu")
    images = [read_image(path) for path in sorted(pictures.iterdir())]
    found = detector.predict(images, threshold=0.05)
    rows = [row for number, each in enumerate(found) for row in each.coco_results(number)]
    ours = predictions(tmp_path / "found")
    assert len(ours) == len(rows) > 0
    np.testing.assert_allclose(
        [(*row["bbox"], row["score"]) for row in ours],
        [(*row["bbox"], row["score"]) for row in rows],
        atol=1e-4,
    )


def test_what_stands_behind_weights_is_told_apart(tiny_run, tmp_path):
    run, folder = str(tiny_run), str(tiny_run.parent / "images")
    assert split_weights([run, "b.pth", "c.pkl", folder, "d.pth"]) == (
        [run, "b.pth", "c.pkl"],
        [folder, "d.pth"],
    )
    assert split_weights(["odd name", "a.png"]) == (["odd name"], ["a.png"])
    assert split_weights([run, run]) == ([run, run], [])


def test_fused_files_are_those_of_the_library_and_can_be_scored(tiny_run, tmp_path, capsys):
    labels = tiny_run.parent / "labels.csv"
    here = ["--annotations", labels, "--images", tiny_run.parent / "images"]
    plain = [*here, "--threshold", 0, "--no-pictures", "--weights", tiny_run]
    assert predict(*plain, "--output", "a") == 0
    assert predict(*plain, "--flip", "--output", "b") == 0
    files = [tmp_path / name / "detections.json" for name in "ab"]

    assert predict("--fuse", *files, "--output", "c") == 0

    fused = json.loads((tmp_path / "c/detections.json").read_text())
    assert fused == fuse_files(files)
    assert "2 files fused" in capsys.readouterr().out
    config = tmp_path / "all.yaml"
    config.write_text("MISS_RATE: {SETTINGS: {any: {}}}")
    words = ["--annotations", labels, "--detections", *files, tmp_path / "c/detections.json"]
    words += ["--config-file", config]
    assert cli.main(["evaluate", *(str(word) for word in words)]) == 0
    said = capsys.readouterr().out
    assert all(f"{name}/detections " in said for name in "abc")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png"], "name the detector, --weights FILE"),
        (["--fuse", "a.json", "--weights", "m.pth"], "leave out INPUT, --weights"),
        (["--fuse", "a.json"], "1 result files to fuse (a.json); name two or more"),
        (["--fuse", "a.json", "b.json"], "a.json: no such result file"),
        (["a.png", "--weights", "RUN", "--scales", "9"], "0.25 to 4; got 9"),
        (["a.png", "--weights", "RUN", "RUN"], "given"),
    ],
)
def test_mistakes_end_in_one_line(tiny_run, tmp_path, capsys, words, message):
    shutil.copy(tiny_run.parent / "images/0.png", tmp_path / "a.png")
    assert predict(*(tiny_run if word == "RUN" else word for word in words)) == cli.USER_ERROR
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "output").exists()


def test_scales_that_are_no_numbers_are_told(capsys):
    with pytest.raises(SystemExit) as stop:
        predict("a.png", "--weights", "m.pth", "--scales", "1,big")
    assert stop.value.code == cli.USER_ERROR
    assert "'1,big' is not a list of numbers, such as 1,1.5" in capsys.readouterr().err


def test_earlier_results_are_left_alone(tiny_run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/detections.json").write_text("mine")
    assert predict("--fuse", "a.json", "b.json", "--output", "out") == cli.USER_ERROR
    assert "add --force" in capsys.readouterr().err
    assert (tmp_path / "out/detections.json").read_text() == "mine"
