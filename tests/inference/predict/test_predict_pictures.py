"""Pictures, folders, pairs and label files through the command."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from predict_toys import Pretended, drawn, picture, results, write_video

import d2pd
from d2pd import cli
from d2pd.inference.detections import Detections
from d2pd.inference.predict.drawings import Drawings
from d2pd.inference.predict.pairing import Source
from d2pd.inference.predict.pipeline import Shot


@pytest.fixture
def of_modality(monkeypatch):
    def use(modality, **more):
        detector = Pretended(modality, **more)
        monkeypatch.setattr("d2pd.inference.predict.command.load", lambda *_, **__: detector)
        return detector

    return use


@pytest.fixture
def kaist(tmp_path):
    """Two frames in the layout of KAIST."""
    root = tmp_path / "images"
    for number in (0, 1):
        for camera in ("visible", "lwir"):
            picture(root / f"set00/V000/{camera}/I{number}.png", seed=number)
    return root


def names():
    return [Path(image["file_name"]).name for image in results()["images"]]


def test_detections_are_those_of_the_predictor_and_drawn(tiny_run, predict):
    folder = tiny_run.parent / "images"

    code, out, err = predict(
        folder, "--threshold", 0.35, "--batch", 2, "--device", "cpu", weights=tiny_run
    )

    paths = sorted(folder.iterdir())
    images = [cv2.imread(str(path)) for path in paths]
    found = d2pd.load(tiny_run, device="cpu").predict(images, threshold=0.35, batch=2)
    expected = [row for number, each in enumerate(found) for row in each.coco_results(number)]
    assert (code, err) == (0, "")
    assert results()["predictions"] == expected
    assert len(expected) > 0
    assert [image["file_name"] for image in results()["images"]] == [str(path) for path in paths]
    assert drawn() == [f"pictures/{path.name}" for path in paths]
    for path, each in zip(paths, found, strict=True):
        made = cv2.imread(f"output/predict/pictures/{path.name}")
        assert np.array_equal(made, each.draw())
    assert out.splitlines()[0] == f"4 images, {len(expected)} detections of score 0.35 or more"
    assert "FPS on cpu, 2 at a time (the first ones left out)" in out
    assert "read" in out.splitlines()[2]


def test_folders_patterns_and_files_give_each_picture_once_in_order(pretended, predict, tmp_path):
    for name in ("b.jpg", "a.png", "deep/c.bmp", ".hidden.png", ".cache/d.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in/notes.txt").write_text("no picture")
    write_video(tmp_path / "in/deep/v.mp4", 2)
    (tmp_path / "in/again.png").symlink_to(tmp_path / "in/a.png")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")

    code, _, _ = predict(tmp_path / "in/b.jpg", tmp_path / "in", tmp_path / "in/**/*.bmp")

    assert code == 0
    assert names() == ["b.jpg", "a.png", "c.bmp", "v.mp4", "v.mp4"]
    assert drawn() == [
        *("pictures/a.png", "pictures/b.jpg", "pictures/deep/c.bmp.png", "v.mp4"),
    ]


def test_pictures_of_one_name_are_all_drawn(pretended, predict, tmp_path):
    files = [picture(tmp_path / folder / "x.png", seed=n) for n, folder in enumerate("ab")]

    assert predict(*files, "--threshold", 0)[0] == 0

    assert drawn() == ["pictures/a/x.png", "pictures/b/x.png"]


def test_earlier_results_are_no_input(pretended, predict, tmp_path):
    picture(Path("a.png"))
    assert predict("a.png", "--output", "pictures_in/found")[0] == 0
    picture(Path("pictures_in/b.png"))

    assert predict("pictures_in", "--output", "pictures_in/found", "--force")[0] == 0
    (image,) = results("pictures_in/found")["images"]
    assert image["file_name"] == "pictures_in/b.png"

    code, _, err = predict("pictures_in", "--output", "pictures_in", "--force")
    assert (code, err.count("\n")) == (2, 1)
    assert "results would be written among what is to be read" in err


def test_a_model_of_pairs_finds_the_thermal_picture_of_each(of_modality, predict, kaist):
    of_modality("both")

    assert predict(kaist, "--threshold", 0)[0] == 0

    assert [image["lwir_file_name"] for image in results()["images"]] == [
        str(kaist / f"set00/V000/lwir/I{number}.png") for number in (0, 1)
    ]
    made = cv2.imread("output/predict/pictures/set00/V000/visible/I0.png")
    assert made.shape == (48, 128, 3)


def test_words_of_a_shell_that_name_both_cameras_are_pairs(of_modality, predict, kaist):
    of_modality("both")
    files = sorted(kaist.rglob("*.png"))
    assert len(files) == 4

    assert predict(*files)[0] == 0

    assert names() == ["I0.png", "I1.png"]


@pytest.mark.parametrize("modality", ["visible", "lwir"])
def test_a_model_of_one_camera_gets_its_pictures_of_a_folder(of_modality, predict, kaist, modality):
    of_modality(modality)

    code, out, _ = predict(kaist)

    assert code == 0
    assert "2 pictures of the other camera passed over" in out
    cameras = [Path(image["file_name"]).parent.name for image in results()["images"]]
    assert cameras == [modality] * 2
    predict(kaist / "set00/V000/visible", kaist / "set00/V000/lwir/I0.png", "--force")
    assert len(results()["images"]) == 3  # one folder has one camera; a file that is named is meant


def test_a_pair_in_one_folder_is_told_by_words_of_its_own(of_modality, predict, tmp_path):
    of_modality("both")
    for word in ("rgb", "ir"):
        picture(tmp_path / f"in/third_{word}.png")
    picture(tmp_path / "in/alone_rgb.png")
    picture(tmp_path / "in/other_ir.png")

    code, out, _ = predict(tmp_path / "in", "--pair", "rgb=ir")

    assert code == 1
    assert names() == ["third_rgb.png"]
    assert "alone_rgb.png: this model needs pairs, and there is no" in out
    assert "other_ir.png: a thermal picture without its visible one" in out


def test_pictures_without_the_words_say_how_to_name_them(of_modality, predict, tmp_path):
    of_modality("both")
    picture(tmp_path / "in/a_rgb.png")

    code, _, err = predict(tmp_path / "in")

    assert code == 2
    assert "nothing could be used:" in err
    assert "no 'visible' in its path" in err
    assert "--pair VISIBLE=LWIR" in err
    assert not Path("output").exists()


def test_pairs_of_two_sizes_are_left_out(of_modality, predict, kaist):
    of_modality("both")
    picture(kaist / "set00/V000/lwir/I1.png", (40, 64))

    code, out, _ = predict(kaist)

    assert code == 1
    assert "I1.png: the visible picture is 64 x 48 px, the thermal one 64 x 40 px" in out
    assert names() == ["I0.png"]


def test_a_thermal_model_sees_a_colour_picture_in_grey(of_modality, predict, tmp_path):
    detector = of_modality("lwir")
    seen = []
    detector.prepare = lambda image: seen.append(image) or Pretended.prepare(detector, image)
    path = picture(tmp_path / "a.png")

    predict(path)

    expected = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(seen[0], np.dstack([expected] * 3))


def test_label_file_gives_ids_that_evaluate_understands(tiny_run, predict, capfd):
    labels = tiny_run.parent / "labels.csv"
    words = ["--annotations", labels, "--images", tiny_run.parent / "images", "--device", "cpu"]

    code, _, err = predict(*words, "--threshold", 0, weights=tiny_run)

    assert (code, err) == (0, "")
    for name in ("detections.json", "detections.txt"):
        words = ["--annotations", str(labels), "--detections", f"output/predict/{name}"]
        assert cli.main(["evaluate", *words]) == 0
    assert "4 images" in capfd.readouterr().out


def test_a_threshold_that_spoils_a_miss_rate_is_told_in_one_line(pretended, predict, kaist, caplog):
    labels = kaist.parent / "labels.json"
    rows = ",".join(f'{{"id": {n + 7}, "im_name": "set00/V000/I{n}"}}' for n in (0, 1, 2))
    labels.write_text(f'{{"images": [{rows}], "annotations": []}}')

    code, out, _ = predict("--annotations", labels, "--images", kaist)

    assert code == 1
    assert "set00/V000/I2: there is no such picture" in out
    assert [record.getMessage() for record in caplog.records] == [
        "--threshold 0.5 leaves out detections that a miss rate needs: before d2pd evaluate, "
        "predict with --threshold 0"
    ]
    assert [image["id"] for image in results()["images"]] == [7, 8]
    assert drawn() == ["pictures/set00/V000/I0.png", "pictures/set00/V000/I1.png"]


def test_ids_that_are_words_leave_the_lines_out(pretended, predict, tmp_path):
    picture(tmp_path / "in/a.png")
    labels = tmp_path / "in/labels.json"
    labels.write_text(
        '{"images": [{"id": "one", "file_name": "a.png"}], "annotations": [], '
        '"categories": [{"id": 1, "name": "person"}]}'
    )

    code, out, _ = predict("--annotations", labels, "--threshold", 0)

    assert code == 0
    assert "no detections.txt: its form takes numbers as ids" in out
    assert results()["predictions"][0]["image_id"] == "one"


def test_several_classes_leave_the_lines_out(of_modality, predict, tmp_path):
    of_modality("visible", class_names=("=cmd", "b"))
    picture(tmp_path / "a.png")

    _, out, _ = predict(tmp_path / "a.png", "--threshold", 0)

    assert "no detections.txt: its form knows no classes, and the model has 2" in out
    assert not Path("output/predict/detections.txt").exists()
    assert ",'=cmd," in Path("output/predict/detections.csv").read_text()


def test_lines_count_images_from_one(pretended, predict, tmp_path):
    picture(tmp_path / "a.png")

    predict(tmp_path / "a.png", "--threshold", 0)

    (line,) = Path("output/predict/detections.txt").read_text().splitlines()
    assert line.startswith("1,1,2,10,20,0.")


def test_nothing_is_drawn_unless_wanted(pretended, predict, tmp_path):
    picture(tmp_path / "a.png")

    assert predict(tmp_path / "a.png", "--no-pictures")[0] == 0

    assert drawn() == []


def test_nothing_is_written_over_unasked_nor_computed(pretended, predict, tmp_path):
    picture(tmp_path / "in/a.png")
    predict(tmp_path / "in")
    for path in Path("output/predict").glob("detections.*"):
        path.unlink()
    pretended.batches.clear()

    code, _, err = predict(tmp_path / "in")

    assert (code, err.count("\n"), pretended.batches) == (2, 1, [])
    assert "pictures/a.png exists; name another file, or add --force to replace it" in err
    assert not Path("output/predict/detections.json").exists()
    assert predict(tmp_path / "in", "--force")[0] == 0
    code, _, err = predict(tmp_path / "in")
    assert (code, "detections.json exists" in err) == (2, True)


@pytest.mark.parametrize("way", ["itself", "hard link", "link"])
def test_no_input_is_drawn_over_even_by_force(pretended, predict, tmp_path, way):
    source = picture(tmp_path / "in/a.png")
    target = Path("found/pictures/a.png")
    target.parent.mkdir(parents=True)
    if way == "itself":
        shutil.copy(source, target)
        source = target
    elif way == "hard link":
        target.hardlink_to(source)
    else:
        target.symlink_to(source)
    before = source.read_bytes()

    code, _, err = predict(source, "--output", "found", "--force")

    assert (code, err.count("\n")) == (2, 1)
    assert "this is one of the files to read" in err
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.png"], "none.png: no such file or folder"),
        (["none/*.png"], "none/*.png: matches no picture and no video"),
        (["empty"], "empty: there is no picture and no video in it"),
        (["x.jpg"], "x.jpg: there is no picture and no video in it"),
        (["link.png"], "link.png: a link that leads to no file"),
        (["a.txt"], "a.txt: neither a picture nor a video by its name"),
        ([], "name what to look at"),
        (["a.txt", "--annotations", "a.txt"], "not both"),
        (["a.png", "--images", "empty"], "--images goes with --annotations"),
        (["a.png", "--threshold", "1.5"], "--threshold must be a score from 0 to 1, got 1.5"),
        (["a.png", "--threshold", "nan"], "--threshold must be a score from 0 to 1"),
        (["a.png", "--stride", "0"], "--stride must be 1 or more"),
        (["a.png", "--batch", "0"], "--batch must be 1 or more"),
        (["a.png", "--pair", "visible"], "--pair takes two different words"),
        (["a.png", "--output", "a.txt"], "a.txt is a file, not a folder"),
        (["--annotations", "none.json"], "none.json: no such label file"),
    ],
)
def test_mistakes_end_in_one_line_before_a_model_is_loaded(predict, words, message, monkeypatch):
    def loaded(*_, **__):
        raise AssertionError

    monkeypatch.setattr("d2pd.inference.predict.command.load", loaded)
    Path("empty").mkdir()
    Path("x.jpg").mkdir()
    Path("link.png").symlink_to("nowhere")
    Path("a.txt").write_text("text")
    picture(Path("a.png"))

    code, out, err = predict(*words)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not Path("output").exists()


def test_weights_that_are_not_there_are_told(predict):
    picture(Path("a.png"))

    code, _, err = predict("a.png", weights="none.pth")

    assert (code, err.count("\n")) == (2, 1)
    assert "none.pth" in err


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_its_format_cannot_hold_is_told(tmp_path, monkeypatch, suffix):
    source = Source((f"wide{suffix}",), f"wide{suffix}")
    image = np.zeros((2, 3, 3), np.uint8)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    drawings = Drawings({source: tmp_path / f"wide{suffix}"}, 1)
    # As OpenCV answers for a JPEG of more than 65,500 px.
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, ()))

    drawings.add(Shot(source, image), Detections(*nothing, ("person",), image))

    assert drawings.num_pictures == 0
    assert drawings.troubles == [
        f"{tmp_path}/wide{suffix}: OpenCV writes no {suffix} of 3 x 2 px; "
        "the detections are written"
    ]
    assert [*tmp_path.iterdir()] == []
