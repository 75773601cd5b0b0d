"""Files of folds, and the parts that a dataset takes of them."""

import json
from pathlib import Path

import pytest

from d2pd.data.folds import FoldPart, Folds, read_folds
from d2pd.errors import AnnotationError, ConfigError, MissingFileError

OF_NAME = {"a": 0, "b": 1, "c ü": 2, "d": 0, "e": 1}
NAMES = list(OF_NAME)
FOLDS = Folds("labels.csv", 5, 12, 3, "image", False, 7, OF_NAME)
LABELS = Path("labels.csv")


@pytest.fixture
def path(tmp_path):
    FOLDS.write(tmp_path / "folds.json")
    return tmp_path / "folds.json"


def test_what_is_written_is_read_back(path):
    assert read_folds(path) == FOLDS
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content) == [
        *("annotations", "num_images", "num_boxes", "folds", "by", "stratify", "seed", "images"),
    ]
    assert content["images"]["c ü"] == 2


def test_the_parts_of_a_fold_are_the_whole_without_overlap(path):
    for fold in range(3):
        train = FoldPart(path, "train", fold).select(NAMES, LABELS)
        test = FoldPart(path, "test", fold).select(NAMES, LABELS)
        assert sorted(train + test) == [0, 1, 2, 3, 4]
        assert [FOLDS.fold_of_image[NAMES[at]] for at in test] == [fold] * len(test)


def test_the_test_parts_of_all_folds_are_the_whole(path):
    parts = [FoldPart(path, "test", fold).select(NAMES, LABELS) for fold in range(3)]
    assert parts == [[0, 3], [1, 4], [2]]


def test_rows_of_one_name_are_taken_together_and_in_their_order(path):
    assert FoldPart(path, "test", 0).select(["d", *NAMES, "a"], LABELS) == [0, 1, 4, 6]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["x", *NAMES, "y", "x"],
            "labels.csv and {path} do not go together: images of the labels that are in no "
            "fold: 2 (x, y); the labels are not those that were split (labels.csv, 5 images): run "
            "d2pd split on them, or correct FOLDS",
        ),
        (["d", "e"], "images of the folds that the labels lack: 3 (a, b, c ü); the labels"),
        (["x", *"abde"], "in no fold: 1 (x); images of the folds that the labels lack: 1 (c ü)"),
        ([*map(str, range(9)), *NAMES], "in no fold: 9 (0, 1, 2, ...)"),
    ],
)
def test_other_images_than_were_split_are_refused(path, names, message):
    with pytest.raises(AnnotationError) as caught:
        FoldPart(path, "train", 0).select(names, LABELS)
    assert message.format(path=path) in str(caught.value)


def test_a_selection_of_the_labels_may_lack_images_but_not_have_others(path):
    part = FoldPart(path, "train", 0)
    assert part.select(["d", "e"], LABELS, is_whole=False) == [1]
    with pytest.raises(AnnotationError, match=r"in no fold: 1 \(x\)"):
        part.select(["x", "e"], LABELS, is_whole=False)
    with pytest.raises(AnnotationError, match="no image is left in the test part of fold 2 of"):
        FoldPart(path, "test", 2).select(["d", "e"], LABELS, is_whole=False)


def test_a_part_describes_itself(path):
    assert FoldPart(path, "train", 1).describe() == (
        f"all folds but 1 of 0 to 2 in {path}: 3 of 5 images"
    )
    assert FoldPart(path, "test", 2).describe() == f"fold 2 of 0 to 2 in {path}: 1 of 5 images"


def test_a_fold_that_is_not_there_is_named(path):
    for use in ("check", "describe"):
        with pytest.raises(ConfigError) as caught:
            getattr(FoldPart(path, "train", 3), use)()
        assert str(caught.value) == f"DATASETS.FOLD is 3, and {path} has the folds 0 to 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ('{"folds": 3', "not JSON .*line 1 column 12"),
        ("\x00\xff", "not JSON"),
        ("[1]", "not a file of d2pd split .an object is expected"),
        ("{}", "not a file of d2pd split .no 'folds'"),
        ('{"folds": true, "images": {}}', "folds must be 2 or more, got True"),
        ('{"folds": 3, "images": [1]}', "images must map names to folds"),
        ('{"folds": 3, "images": {"a": 3}}', "'a' is in fold 3, and there are 0 to 2"),
        ('{"folds": 3, "images": {"a": "0"}}', "'a' is in fold '0'"),
        ('{"folds": 3, "images": {"a": 0}}', "no 'annotations'"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "folds.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(AnnotationError, match=message) as caught:
        read_folds(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / "loop.json").symlink_to("loop.json")
    for name in ("absent.json", "loop.json", "."):
        with pytest.raises(MissingFileError, match="no such file of folds; correct FOLDS, or"):
            read_folds(tmp_path / name)
