"""Videos: which frames are seen, when they are shown, and what is drawn of them."""

import csv
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from predict_toys import (
    Pretended,
    damage,
    noisy_video,
    picture,
    read_video,
    results,
    write_video,
)

import d2pd
from d2pd.inference.predict.video import VideoFile, VideoReader

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "street.mp4", 300)


@pytest.mark.parametrize(("stride", "batch"), [(1, 4), (10, 1), (15, 3), (30, 2)])
def test_every_nth_frame_is_seen_with_its_number_and_time(pretended, predict, video, stride, batch):
    code, out, err = predict(video, "--stride", stride, "--batch", batch, "--threshold", 0)

    count = 300 // stride
    assert (code, err) == (0, "")
    images = results()["images"]
    assert [image["frame"] for image in images] == [*range(0, 300, stride)]
    assert [image["id"] for image in images] == [*range(count)]
    times = [image["time_s"] for image in images]
    np.testing.assert_allclose(times, np.arange(0, 300, stride) / 30, atol=1e-4)
    assert {image["file_name"] for image in images} == {str(video)}
    assert (images[0]["width"], images[0]["height"]) == (64, 48)
    # The brightness of a frame tells its number: what is told of a frame is told of the right one.
    scores = [row["score"] for row in results()["predictions"]]
    expected = [frame[0, 0, 0] / 255 for frame in read_video(video)[::stride]]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert pretended.batches == [batch] * (count // batch) + [count % batch] * (count % batch > 0)
    assert out.startswith(f"{count} frames, {count} detections of score 0 or more\n")
    with closing(VideoFile("output/predict/street.mp4")) as made:
        assert (made.num_stated, made.fps) == (count, pytest.approx(30 / stride))


def test_detections_are_those_of_the_predictor_on_the_same_frames(tiny_run, predict, video):
    code, _, _ = predict(
        *(video, "--stride", 60, "--threshold", 0.3, "--batch", 2, "--device", "cpu"),
        weights=tiny_run,
    )

    frames = read_video(video)[::60]
    found = d2pd.load(tiny_run, device="cpu").predict(frames, threshold=0.3, batch=2)
    expected = [row for number, each in enumerate(found) for row in each.coco_results(number)]
    assert code == 0
    assert len(expected) > 5
    assert results()["predictions"] == expected
    with open("output/predict/detections.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == len(expected)
    table = found[1].to_pandas()
    row = next(row for row in rows if row["frame"] == "60")
    assert (row["time_s"], row["class"]) == ("2.000", "person")
    assert float(row["x2"]) == pytest.approx(table["x2"][0], abs=0.006)


def test_boxes_are_drawn_into_the_video(pretended, predict, video):
    predict(video, "--stride", 100, "--threshold", 0)

    made, source = read_video(Path("output/predict/street.mp4")), read_video(video)[::100]
    assert len(made) == 3
    for drawn, plain in zip(made, source, strict=True):
        changed = np.abs(drawn.astype(int) - plain).max(axis=2) > 60
        assert changed[:24, :14].sum() > 30
        assert changed[30:, 40:].sum() == 0


def test_a_video_of_odd_size_is_drawn_whole(pretended, predict, tmp_path):
    codec = "MJPG"
    path = write_video(tmp_path / "odd.avi", 3, size=(63, 47), codec=codec)
    shape = read_video(path)[0].shape

    code, _, _ = predict(path, "--threshold", 0)

    assert code == 0
    made = read_video(Path("output/predict/odd.mp4"))
    assert len(made) == 3
    assert made[0].shape[:2] == (shape[0] + shape[0] % 2, shape[1] + shape[1] % 2)


def test_videos_of_one_name_are_drawn_into_two_files(pretended, predict, tmp_path):
    for folder, count in (("a", 3), ("b", 4)):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "v.mp4", count)

    code, out, _ = predict(tmp_path / "a/v.mp4", tmp_path / "b/v.mp4")

    assert code == 0
    assert [len(read_video(Path("output/predict", f"{n}.mp4"))) for n in ("v", "v_2")] == [3, 4]
    assert "drawn: output/predict/v.mp4\ndrawn: output/predict/v_2.mp4" in out
    assert [image["frame"] for image in results()["images"]] == [0, 1, 2, 0, 1, 2, 3]


def test_pairs_of_videos_are_seen_frame_by_frame(monkeypatch, predict, tmp_path):
    detector = Pretended("both")
    monkeypatch.setattr("d2pd.inference.predict.command.load", lambda *_, **__: detector)
    write_video(tmp_path / "a_rgb.mp4", 6)
    write_video(tmp_path / "a_ir.mp4", 5)

    code, out, _ = predict(tmp_path, "--pair", "rgb=ir", "--threshold", 0)

    assert code == 1
    assert "have 6 and 5 frames; the first ones were taken for pairs" in out
    images = results()["images"]
    assert [image["frame"] for image in images] == [0, 1, 2, 3, 4]
    assert images[0]["lwir_file_name"] == str(tmp_path / "a_ir.mp4")
    assert read_video(Path("output/predict/a_rgb.mp4"))[0].shape == (48, 128, 3)


def test_pairs_of_two_frame_rates_are_left_out(monkeypatch, predict, tmp_path):
    detector = Pretended("both")
    monkeypatch.setattr("d2pd.inference.predict.command.load", lambda *_, **__: detector)
    write_video(tmp_path / "a_rgb.mp4", 6)
    write_video(tmp_path / "a_ir.mp4", 6, fps=25.0)

    code, _, err = predict(tmp_path, "--pair", "rgb=ir")

    assert code == 2
    assert "a pair has one frame rate, these are 30 and 25 frames a second" in err


class Scripted:
    """A video of 10 frames a second that has only some of its frames; each shows its number."""

    fps, num_stated, num_failed = 10.0, 8, 0

    def __init__(self, numbers):
        self.numbers = iter(numbers)

    def close(self):
        pass

    def skip(self):
        self.number = next(self.numbers, None)
        return None if self.number is None else self.number / self.fps

    def decode(self):
        return np.full((2, 2, 3), self.number, np.uint8)


@pytest.mark.parametrize(("stride", "expected"), [(1, [0, 3, 5, 7]), (3, [0, 3])])
def test_pairs_stay_in_step_where_either_lacks_frames(monkeypatch, stride, expected):
    files = {"visible": Scripted([0, 1, 3, 4, 5, 7]), "lwir": Scripted([0, 2, 3, 5, 6, 7])}
    monkeypatch.setattr("d2pd.inference.predict.video.VideoFile", files.get)

    reader = VideoReader(("visible", "lwir"), "both", stride)
    frames = [*reader.frames()]

    assert [frame.number for frame in frames] == expected
    assert [frame.image[0, 0].tolist() for frame in frames] == [[n] * 6 for n in expected]
    assert reader.troubles == ["4 broken frames were skipped"]


def test_broken_frames_are_counted_and_the_others_keep_their_numbers(pretended, predict, tmp_path):
    path = noisy_video(tmp_path / "hurt.mp4", "mp4v")
    damage(path, 0.5, 30_000)

    code, out, _ = predict(path, "--no-pictures", "--threshold", 0)

    images = results()["images"]
    num_broken = 60 - len(images)
    assert code == 1
    assert 0 < num_broken < 30
    assert f"hurt.mp4: {num_broken} broken frames were skipped" in out
    assert images[-1]["frame"] == 59
    assert all(abs(each["time_s"] - each["frame"] / 30) < 1e-3 for each in images)


def test_libraries_say_nothing_of_broken_files(tmp_path):
    hurt = noisy_video(tmp_path / "hurt.mp4", "mp4v")
    damage(hurt, 0.5, 30_000)
    text = tmp_path / "text.mp4"
    text.write_text("text")
    cut = picture(tmp_path / "cut.jpg", (200, 200))
    cut.write_bytes(cut.read_bytes()[:9_000])
    code = (
        "import sys; from d2pd.inference.predict.pairing import Source\n"
        "from d2pd.inference.predict.quiet import quiet_opencv\n"
        "from d2pd.inference.predict.pipeline import read_shots\n"
        "sources = [Source((path,), path) for path in sys.argv[1:]]\n"
        "with quiet_opencv(): shots = [*read_shots(sources, 'visible', 1)]\n"
        "print(*(shot.trouble for shot in shots if shot.trouble), sep='\\n')"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(hurt), str(text), str(cut)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""
    broken, no_video, no_picture = done.stdout.splitlines()
    assert "broken frames were skipped" in broken
    assert no_video == "not a video that OpenCV can read (4 bytes)"
    assert "cut.jpg" in no_picture


def test_a_video_that_is_cut_off_says_where(pretended, predict, tmp_path):
    path = noisy_video(tmp_path / "cut.avi", "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    code, out, _ = predict(path, "--threshold", 0)

    num_seen = len(results()["images"])
    assert code == 1
    assert 20 < num_seen < 40
    assert f"cut.avi: ended after {num_seen} of the 60 frames its file states" in out
    assert len(read_video(Path("output/predict/cut.mp4"))) == num_seen


def test_drawn_video_that_did_not_arrive_whole_is_no_video(pretended, predict, monkeypatch):
    """A full disk takes part of it, and OpenCV says nothing."""
    source = write_video(Path("street.mp4"), 20)

    class FullDisk:
        def __init__(self, path, *arguments):
            self._path, self._writer = Path(path), WRITER(path, *arguments)

        def __getattr__(self, name):
            return getattr(self._writer, name)

        def release(self):
            self._writer.release()
            self._path.write_bytes(self._path.read_bytes()[:500])

        fourcc = staticmethod(cv2.VideoWriter.fourcc)

    WRITER = cv2.VideoWriter
    monkeypatch.setattr("d2pd.inference.predict.drawings.cv2.VideoWriter", FullDisk)

    code, _, err = predict(source, "--output", "found")

    assert code == 2
    assert "street.mp4: 0 of 20 frames arrived; make room there" in err
    assert "what was found so far is in found" in err
    names = {path.name for path in Path("found").iterdir()}
    assert names == {"detections.json", "detections.csv", "detections.txt"}
