import os
import signal
import subprocess
import sys

import pytest

from d2pd.atomic_file import atomic_file, copy_file, remove_partials


def test_the_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "a.bin"
    with atomic_file(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write_half():
        with atomic_file(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_kill_leaves_the_old_content_and_the_next_write_clears_up(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from d2pd.atomic_file import atomic_file, copy_file, remove_partials\n"
        "with atomic_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    with atomic_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_what_does_not_verify_keeps_the_old_content(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    seen = []

    def refuse(partial):
        seen.append((partial.read_bytes(), path.read_bytes()))
        raise ValueError("not whole")

    with pytest.raises(ValueError, match="not whole"), atomic_file(path, refuse) as file:
        file.write(b"new")
    assert seen == [(b"new", b"old")]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / ".a.bin.part").symlink_to(tmp_path / "victim")
    with atomic_file(tmp_path / "a.bin") as file:
        file.write(b"new")
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert (tmp_path / "a.bin").read_bytes() == b"new"


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_copy_is_the_same(tmp_path, size):
    (tmp_path / "a").write_bytes(os.urandom(size))
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("harm", [lambda h: os.truncate(h, 2), lambda h: os.pwrite(h, b"X", 1)])
def test_a_copy_that_comes_back_otherwise_leaves_the_old_one(tmp_path, monkeypatch, harm):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").write_bytes(b"old")
    monkeypatch.setattr("d2pd.atomic_file.os.fsync", harm)
    with pytest.raises(OSError, match="gives back of b is not what it got"):
        copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_half_files_of_a_pattern_are_removed_and_no_others(tmp_path):
    for name in (".model_1.pth.part", ".notes.txt.part", "model_1.pth", "model_2.pth.part"):
        (tmp_path / name).write_text("x")
    remove_partials(tmp_path, "model_*.pth")
    assert sorted(os.listdir(tmp_path)) == [".notes.txt.part", "model_1.pth", "model_2.pth.part"]
