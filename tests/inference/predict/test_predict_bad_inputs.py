"""Files that are no sound pictures or videos: told in clear words, and the rest is done."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from predict_toys import damage, drawn, picture, results, write_video

from d2pd.config import load_config
from d2pd.inference.predictor import Predictor

QUICK = Path(__file__).resolve().parents[3] / "configs/quick"


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


def text(path):
    path.write_text("just text\n" * 20)


BAD = {
    "empty.jpg": (lambda path: path.write_bytes(b""), "not an image that OpenCV can decode (0 by"),
    "cut.jpg": (lambda path: cut(picture(path, (200, 200)), 9_000), "cut short or damaged ("),
    "cut.png": (lambda path: cut(picture(path, (200, 200)), 9_000), "cut short or damaged ("),
    "text.jpg": (text, "not an image that OpenCV can decode (200 bytes)"),
    "text.mp4": (text, "not a video that OpenCV can read (200 bytes)"),
    "none.mp4": (lambda path: write_video(path, 0), "not a video that OpenCV can read"),
    "none.avi": (lambda path: write_video(path, 0, codec="MJPG"), "there is no frame in it"),
    "dangling.png": (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
    "dangling.mp4": (lambda path: path.symlink_to("nowhere"), "a link that leads to no file"),
    "pipe.png": (os.mkfifo, "not a file"),
    "pipe.mp4": (os.mkfifo, "not a file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_its_reason_and_the_rest_is_done(
    pretended, predict, tmp_path, name
):
    make, reason = BAD[name]
    picture(tmp_path / "in/good.png")
    make(tmp_path / "in" / name)

    code, out, err = predict(tmp_path / "in")

    assert (code, err) == (1, "")
    heading, line = out.splitlines()[-2:]
    assert heading == "not used, or not wholly (1):"
    assert line.startswith(f"  {tmp_path / 'in' / name}: ")
    assert reason in line
    assert [Path(image["file_name"]).name for image in results()["images"]] == ["good.png"]
    assert drawn() == ["pictures/good.png"]


@pytest.mark.parametrize("name", BAD)
def test_nothing_but_a_bad_file_is_exit_code_two_and_leaves_old_results(
    pretended, predict, tmp_path, name
):
    (tmp_path / "in").mkdir()
    BAD[name][0](tmp_path / "in" / name)
    Path("output/predict").mkdir(parents=True)
    Path("output/predict/detections.json").write_text("old")

    code, out, err = predict(tmp_path / "in", "--force")

    assert (code, out) == (2, "")
    assert err.startswith("d2pd: nothing could be used:\n  ")
    assert name in err
    assert [path.name for path in Path("output/predict").iterdir()] == ["detections.json"]
    assert Path("output/predict/detections.json").read_text() == "old"


def test_of_many_bad_files_the_first_ten_are_listed(pretended, predict, tmp_path):
    picture(tmp_path / "in/good.png")
    for number in range(13):
        text(tmp_path / f"in/{number:02}.jpg")

    _, out, _ = predict(tmp_path / "in")

    lines = out.splitlines()
    assert "not used, or not wholly (13):" in lines
    assert lines[-1] == "  ... and 3 more"
    assert sum("not an image" in line for line in lines) == 10


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_files_and_folders_that_may_not_be_read(pretended, predict, tmp_path):
    picture(tmp_path / "in/good.png")
    picture(tmp_path / "in/shut.png").chmod(0)
    (tmp_path / "in/closed").mkdir(mode=0)

    code, out, _ = predict(tmp_path / "in")

    assert code == 1
    assert out.count("Permission denied") == 2


def test_a_folder_that_may_not_be_looked_into_is_told(pretended, predict, tmp_path, monkeypatch):
    picture(tmp_path / "in/good.png")
    (tmp_path / "in/closed").mkdir()
    listdir = os.listdir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr("os.listdir", refuse)

    code, out, _ = predict(tmp_path / "in")

    assert code == 1
    assert "closed: cannot be looked into (Permission denied)" in out


def test_unusual_pictures_are_seen_as_they_are_shown(pretended, predict, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    image.convert("L").save(folder / "grey.png")
    image.convert("RGBA").save(folder / "alpha.png")
    picture(folder / "one.png", (1, 1))
    picture(folder / "wide.png", (500, 20_000))
    picture(folder / "line.png", (3, 20_000))

    code, _, err = predict(folder, "--threshold", 0)

    assert (code, err) == (0, "")
    sizes = {Path(i["file_name"]).name: (i["width"], i["height"]) for i in results()["images"]}
    assert sizes == {
        **dict.fromkeys(("cmyk.jpg", "grey.png", "alpha.png"), (60, 40)),
        **{"turned.jpg": (40, 60), "one.png": (1, 1)},
        **{"wide.png": (20_000, 500), "line.png": (20_000, 3)},
    }
    assert cv2.imread("output/predict/pictures/turned.jpg").shape[:2] == (60, 40)
    assert len(drawn()) == 7


def test_sixteen_bits_are_warned_of_once(pretended, predict, tmp_path, caplog):
    for name in ("a.png", "b.png", "c.tif"):
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), np.full((20, 30), 7_000, np.uint16))

    assert predict(tmp_path / "in")[0] == 0

    (record,) = caplog.records
    assert "a.png has more than 8 bits a channel, of which the upper 8 are used" in record.message
    assert "stretch them to 8 bits first" in record.message


def test_one_picture_too_small_for_the_model_is_left_out(predict, tmp_path, monkeypatch):
    cfg = load_config(
        QUICK / "ssd_seg_synthetic.yaml", ["MODEL.DEVICE", "cpu", "INPUT.FIXED_SIZE", "[]"]
    )
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 80])
    torch.manual_seed(0)
    detector = Predictor(cfg, class_names=["person"])
    monkeypatch.setattr("d2pd.inference.predict.command.load", lambda *_, **__: detector)
    for name, shape in (("a.png", (48, 64)), ("b.png", (3, 20_000)), ("c.png", (48, 64))):
        picture(tmp_path / "in" / name, shape)

    code, out, _ = predict(tmp_path / "in", "--batch", 2)

    assert code == 1
    assert "b.png: images of 1 x 80 px (height x width) are too small" in out
    assert drawn() == ["pictures/a.png", "pictures/c.png"]


def test_a_video_that_is_too_large_to_draw_keeps_its_detections(pretended, predict, tmp_path):
    path = write_video(tmp_path / "wide.avi", 2, size=(9_000, 16), codec="MJPG")

    code, out, err = predict(path, "--threshold", 0)

    assert (code, err) == (1, "")
    assert "wide.mp4: OpenCV writes no .mp4 of 9000 x 16 px; the detections are written" in out
    assert len(results()["predictions"]) == 2
    assert drawn() == []


ODD_NAMES = ["a b.png", "ünï.png", "=1+1.png", "-x.png", "a\nb.png", "\x1b[2Jq.png", "x" * 240]
ODD_NAMES[-1] += ".png"


def test_odd_names_are_read_drawn_and_do_not_reach_the_terminal(pretended, predict, tmp_path):
    for name in ODD_NAMES:
        picture(tmp_path / "a.png").rename(tmp_path / name)
    picture(tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"half\xff.png"))
    text(tmp_path / "bad\n\x1b[2J.jpg")
    write_video(tmp_path / "v.mp4", 2).rename(tmp_path / os.fsdecode(b"v\xff.mp4"))

    code, out, _ = predict(tmp_path, "--threshold", 0)

    assert code == 1
    assert len(drawn()) == len(results()["images"]) == len(ODD_NAMES) + 1
    assert "\x1b" not in out
    assert r"bad\n\x1b[2J.jpg: not an image" in out
    assert "OpenCV opens no file whose name is not UTF-8; rename it" in out
    assert all(Path("output/predict") in path.parents for path in Path().rglob("*.png"))
    assert "'=1+1.png" not in Path("output/predict/detections.csv").read_text()  # a path, no start


def test_a_picture_that_is_damaged_is_told(pretended, predict, tmp_path):
    picture(tmp_path / "in/good.png")
    damage(picture(tmp_path / "in/hurt.png", (200, 200)), 0.5, 200)

    code, out, _ = predict(tmp_path / "in")

    assert (code, "hurt.png: " in out) == (1, True)
