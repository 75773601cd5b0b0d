import os

import pytest

from d2pd.training.checkpoints.checkpoint_folder import (
    checkpoint_name,
    find_checkpoints,
    iteration_in_name,
    prune,
    read_tag,
    write_tag,
)

OTHERS = ["last_checkpoint", "model_best.pth", "model_best_ap.pth", "model_final.pth", "notes.txt"]


def fill(folder, iterations):
    for name in [*OTHERS, *map(checkpoint_name, iterations)]:
        (folder / name).write_text(name)


def left(folder):
    return [i for i in map(iteration_in_name, sorted(os.listdir(folder))) if i is not None]


@pytest.mark.parametrize("iteration", [0, 9, 9_999_999, 123_456_789])
def test_a_name_tells_its_iteration(iteration):
    assert iteration_in_name(checkpoint_name(iteration)) == iteration


def test_names_are_those_of_detectron2():
    assert checkpoint_name(9) == "model_0000009.pth"


@pytest.mark.parametrize(
    ("keep", "newest", "expected"),
    [
        (0, 49, [9, 19, 29, 39, 49]),
        (1, 49, [49]),
        (3, 49, [29, 39, 49]),
        (9, 49, [9, 19, 29, 39, 49]),
        (1, 29, [29, 39, 49]),  # an older one was gone on from: the later ones are not counted
        (2, 29, [19, 29, 39, 49]),
    ],
)
def test_the_newest_stay_and_nothing_but_numbered_goes(tmp_path, keep, newest, expected):
    fill(tmp_path, [9, 19, 29, 39, 49])
    prune(tmp_path, keep, newest)
    assert left(tmp_path) == expected
    assert all((tmp_path / name).exists() for name in OTHERS)


def test_order_is_by_number_and_not_by_time_or_letters(tmp_path):
    fill(tmp_path, [10_000_000, 9_999_999, 9])
    os.utime(tmp_path / checkpoint_name(9), (2e9, 2e9))
    names = [path.name for path in find_checkpoints(tmp_path)]
    assert names == ["model_final.pth", "model_10000000.pth", "model_9999999.pth",
                     "model_0000009.pth"]  # fmt: skip
    prune(tmp_path, 1, 10_000_000)
    assert left(tmp_path) == [10_000_000]


def test_a_folder_that_is_not_there_holds_none(tmp_path):
    assert find_checkpoints(tmp_path / "gone") == []
    assert find_checkpoints("") == []


def test_the_tag_is_written_and_read(tmp_path):
    assert read_tag(tmp_path) == ""
    write_tag(tmp_path, "model_final.pth")
    assert (tmp_path / "last_checkpoint").read_bytes() == b"model_final.pth"
    assert read_tag(tmp_path) == "model_final.pth"


@pytest.mark.parametrize("content", [b"../a.pth", b"/a.pth", b"a\\b.pth", b"\xff\xfe\0", b"a\nb",
                                     b"x" * 5000, b"", b"\x1b[31m.pth"])  # fmt: skip
def test_a_tag_that_is_no_name_is_none(tmp_path, content):
    (tmp_path / "last_checkpoint").write_bytes(content)
    assert read_tag(tmp_path) == ""


def test_a_tag_that_is_no_file_is_none(tmp_path):
    (tmp_path / "last_checkpoint").symlink_to("/dev/zero")
    assert read_tag(tmp_path) == ""
