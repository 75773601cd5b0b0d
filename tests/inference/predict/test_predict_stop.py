"""Stopped midway, by a signal or a fault: what was found so far is there, whole."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from predict_toys import drawn, picture, read_video, results, write_video

from d2pd.errors import UserError
from d2pd.inference.predict.overlap import THREAD_NAME
from d2pd.inference.predict.run import Run


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "street.mp4", 60)


def at_image(pretended, number, action):
    """Do something when the detector gets an image."""
    detect = pretended.detect

    def detect_or_stop(prepared):
        if len(pretended.batches) == number:
            action()
        return detect(prepared)

    pretended.detect = detect_or_stop


def check_whole(count):
    assert len(results()["images"]) == count
    assert {row["image_id"] for row in results()["predictions"]} == {*range(count)}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_was_found_so_far(pretended, predict, video, number, code, caplog):
    at_image(pretended, 20, lambda: os.kill(os.getpid(), number))

    got, out, err = predict(video, "--threshold", 0)

    count = len(results()["images"])
    assert got == code
    assert 0 < count < 60
    assert err == (
        f"d2pd: interrupted after {count} of 60 frames; what was found so far is in "
        "output/predict\n"
    )
    assert f"{number.name}: stopping after this image" in caplog.text
    assert out.startswith(f"{count} frames, {count} detections")
    check_whole(count)
    assert drawn() == ["street.mp4"]
    assert len(read_video("output/predict/street.mp4")) == count
    assert no_thread_is_left()


def no_thread_is_left():
    return THREAD_NAME not in [thread.name for thread in threading.enumerate()]


def fail():
    raise RuntimeError("the model fell over")


def test_a_fault_in_a_thread_keeps_what_was_found_and_its_traceback(
    pretended, predict, video, capfd
):
    at_image(pretended, 30, fail)

    with pytest.raises(RuntimeError, match="the model fell over"):
        predict(video, "--threshold", 0)

    assert capfd.readouterr().err == (
        "d2pd: a fault after 30 of 60 frames; what was found so far is in output/predict\n"
    )
    check_whole(30)
    assert len(read_video("output/predict/street.mp4")) == 30
    assert no_thread_is_left()


def test_a_fault_before_the_first_result_writes_nothing(pretended, predict, video):
    at_image(pretended, 0, fail)

    with pytest.raises(RuntimeError, match="the model fell over"):
        predict(video)

    assert drawn() == []


def test_memory_of_a_gpu_that_does_not_suffice_is_one_line(pretended, predict, video):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    at_image(pretended, 4, full)

    code, _, err = predict(video, "--batch", 5)

    assert (code, err.count("\n")) == (2, 1)
    assert "does not suffice for 5 images at a time: lower --batch" in err
    assert "ended after 20 of 60 frames; what was found so far is in output/predict" in err
    assert len(results()["images"]) == 20


@pytest.mark.parametrize("num_drawn", [0, 2])
def test_a_drawing_that_cannot_be_written_ends_in_one_line(
    pretended, predict, tmp_path, monkeypatch, num_drawn
):
    for name in "abcd":
        picture(tmp_path / f"in/{name}.png")
    written = []

    def write(path, content):
        if len(written) == num_drawn:
            raise UserError(f"cannot write {path} ({os.strerror(errno.ENOSPC)}): make room there")
        written.append(path)

    monkeypatch.setattr("d2pd.inference.predict.drawings.write_file", write)

    code, _, err = predict(tmp_path / "in", "--threshold", 0)

    assert (code, err.count("\n")) == (2, 1)
    assert ".png (No space left on device)" in err
    assert "what was found so far is in output/predict" in err
    check_whole(num_drawn + 1)
    assert no_thread_is_left()


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_computed(
    pretended, predict, video
):
    code, _, err = predict(video, "--output", "/proc/d2pd")

    assert (code, err.count("\n"), pretended.batches) == (2, 1, [])
    assert "cannot write to /proc/d2pd" in err


def test_memory_stays_bounded_where_drawing_is_slower_than_reading(
    pretended, predict, video, monkeypatch
):
    prepared, taken, most = [], [], [0]
    prepare, take = pretended.prepare, Run._take

    def count_in(image):
        prepared.append(1)
        most[0] = max(most[0], len(prepared) - len(taken))
        return prepare(image)

    def take_slowly(self, seen, files):
        time.sleep(0.005)
        take(self, seen, files)
        taken.append(1)

    pretended.prepare = count_in
    monkeypatch.setattr(Run, "_take", take_slowly)

    assert predict(video, "--batch", 2)[0] == 0

    assert len(taken) == 60
    # Two queues of three, a batch in the model, and what each stage and the end hold.
    assert 3 < most[0] <= 2 * 3 + 2 * 2 + 2


def test_a_stop_at_once_leaves_nothing_half_made(pretended, predict, video, monkeypatch):
    take, taken = Run._take, []

    def take_some(self, seen, files):
        take(self, seen, files)
        taken.append(1)
        if len(taken) == 5:
            assert [*Path("output/predict").glob(".*.part.mp4")]
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_take", take_some)

    assert predict(video)[0] == 130

    assert [*Path("output/predict").iterdir()] == []
    assert no_thread_is_left()
