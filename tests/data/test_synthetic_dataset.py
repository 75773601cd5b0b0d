"""Files, bytes and refusals of ``draw_dataset``."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from d2pd.data.annotations.csv_file import read_csv
from d2pd.data.annotations.kaist import read_kaist_json
from d2pd.data.synthetic import Frame, Label, draw_dataset, draw_frame, frames_of_split
from d2pd.data.synthetic.faults import FAULTS
from d2pd.errors import AnnotationError, MissingFileError, UserError


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def kaist_file(path: Path, boxes: list[list[float]], **image: object) -> Path:
    row = {"id": 0, "im_name": "set03/V001/I00021", "height": 512, "width": 640, **image}
    annotations = [
        {"id": index, "image_id": 0, "category_id": 1, "bbox": box}
        for index, box in enumerate(boxes)
    ]
    content = {"images": [row], "annotations": annotations}
    path.write_text(json.dumps({**content, "categories": [{"id": 1, "name": "person"}]}))
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "kaist"
    draw_dataset(folder, num_train=17, num_test=3, seed=5, faults=True)
    return folder


def test_the_same_seed_gives_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "again", num_train=17, num_test=3, seed=5, faults=True)
    assert hashes(tmp_path / "again") == hashes(drawn)


def test_another_seed_gives_other_pictures(drawn: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "other", num_train=1, num_test=1, seed=6)
    other, first = hashes(tmp_path / "other"), hashes(drawn)
    pictures = [name for name in other if name.startswith("images/")]
    assert len(pictures) == 4
    assert all(other[name] != first[name] for name in pictures)


def test_a_picture_does_not_depend_on_the_others() -> None:
    few, many = frames_of_split("train", 2, 9), frames_of_split("train", 12, 9)
    assert few == many[:2]
    for frame in (many[5], many[1]):
        first, again = draw_frame(frame), draw_frame(frame)
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])


def test_train_and_held_out_pictures_share_no_background() -> None:
    """Drawn without figures, no held-out place is like a train place."""
    places = {
        split: [
            draw_frame(Frame(frame.im_name, (), frame.entropy))
            for frame in frames_of_split(split, 16, seed=5)
        ]
        for split in ("train", "test")
    }
    for modality in (0, 1):
        train, test = (
            np.stack([_fingerprint(pair[modality]) for pair in places[split]])
            for split in ("train", "test")
        )
        assert np.abs(train @ test.T).max() < 0.97
        assert (train @ train.T).diagonal() == pytest.approx(np.ones(16))


def _fingerprint(picture: np.ndarray) -> np.ndarray:
    """Coarse picture without mean and of length 1: the product of two is their correlation."""
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (64, 51), interpolation=cv2.INTER_AREA).astype(np.float64)
    detail = small - cv2.blur(small, (15, 15))
    return (detail / np.linalg.norm(detail)).ravel()


def test_the_readers_take_every_file(drawn: Path) -> None:
    train = read_kaist_json(
        drawn / "train20.json", drawn / "images", image_list=drawn / "train-all-20.txt"
    )
    assert len(train.records) == 17
    for record in train.records:
        assert cv2.imread(record["file_name"]).shape == (512, 640, 3)
        assert cv2.imread(record["lwir_file_name"], cv2.IMREAD_UNCHANGED).shape == (512, 640)
    test = read_kaist_json(drawn / "test20.json", drawn / "images").records
    assert all("occlusion" in row for record in test for row in record["annotations"])
    csv = read_csv(
        drawn / "two_classes/test.csv", drawn / "images", class_names=("person", "cyclist")
    )
    assert len(csv.records) == 3


def test_regions_to_ignore_are_spelled_as_in_the_real_files() -> None:
    from d2pd.data.synthetic.label_files import kaist_json, two_class_csv

    labels = (Label((1, 2, 3, 4), "cyclist", 1), Label((9, 8, 70, 6), "people"))
    frame = Frame("set00/V000/I00019", labels, (0,))
    train = json.loads(kaist_json([frame], with_occlusion=False))["annotations"]
    assert [(row["category_id"], row["ignore"], row["bbox"]) for row in train] == [
        (-1, 1, [1, 2, 3, 4]),
        (-1, 1, [9, 8, 70, 6]),
    ]
    test = json.loads(kaist_json([frame], with_occlusion=True))["annotations"]
    assert [(row["category_id"], row["ignore"], row["occlusion"]) for row in test] == [
        (1, 1, 1),
        (1, 1, 0),
    ]
    empty = Frame("set00/V000/I00039", labels[1:], (0,))
    assert two_class_csv([frame, empty], "jpg") == (
        "set00/V000/lwir/I00019.jpg,1,2,4,6,cyclist\nset00/V000/lwir/I00039.jpg,,,,,\n"
    )


def test_planted_faults_are_listed_and_in_the_train_labels_alone(drawn: Path) -> None:
    planted = json.loads((drawn / "faults.json").read_text())
    assert {row["fault"] for row in planted} == set(FAULTS)
    records = read_kaist_json(drawn / "train20.json", None).records
    rows = {
        (record["im_name"], tuple(row["bbox"]))
        for record in records
        for row in record["annotations"]
    }
    for fault in planted:
        x, y, width, height = fault["bbox"]
        assert (fault["im_name"], (x, y, x + width, y + height)) in rows
        degenerate = width <= 0 or height <= 0
        outside = x + width <= 0 or y + height <= 0 or x >= 640 or y >= 512
        assert degenerate == (fault["fault"] == "degenerate_box")
        assert outside == (fault["fault"] == "outside_image")
    held_out = json.loads((drawn / "test20.json").read_text())["annotations"]
    assert all(row["bbox"][2] > 0 and row["bbox"][3] > 0 for row in held_out)


def test_a_person_fills_the_label() -> None:
    frame = Frame("set03/V000/I00019", (Label((300, 220, 40, 98), "person"),), (1, 0, 0))
    with_person, without = (
        draw_frame(Frame(frame.im_name, labels, frame.entropy))[1].astype(int)
        for labels in (frame.labels, ())
    )
    assert with_person.shape == without.shape
    changed = np.abs(with_person[220:318, 300:340] - without[220:318, 300:340]) > 4
    assert changed.mean() > 0.25


def test_boxes_of_a_file_get_pictures_as_they_are(tmp_path: Path) -> None:
    faulty: list[list[float]] = [
        *([300, 200, 30, 70], [620, 308, 0, 1], [-900, 10, 20, 50]),
        *([600, 200, 80, 190], [10, 500, 1e9, 5], [0, 0, 0, 0]),
    ]
    source = kaist_file(tmp_path / "labels.json", faulty)
    draw_dataset(tmp_path / "out", boxes=source, seed=1, fmt="png")
    assert (tmp_path / "out/labels.json").read_bytes() == source.read_bytes()
    records = read_kaist_json(tmp_path / "out/labels.json", tmp_path / "out/images").records
    assert records[0]["file_name"].endswith("set03/V001/visible/I00021.png")
    assert cv2.imread(records[0]["lwir_file_name"], cv2.IMREAD_UNCHANGED).shape == (512, 640)


def test_files_of_several_annotation_files_share_a_folder(tmp_path: Path) -> None:
    train = kaist_file(tmp_path / "train20.json", [[300, 200, 30, 70]])
    test = kaist_file(tmp_path / "test20.json", [[99, 200, 30, 70]], im_name="set09/V000/I00019")
    for source in (train, test, train):
        draw_dataset(tmp_path / "out", boxes=source, seed=1)
    names = hashes(tmp_path / "out")
    assert {"train20.json", "test20.json", "images/set09/V000/lwir/I00019.jpg"} <= set(names)


def test_pictures_are_drawn_beside_the_label_file_they_are_for(tmp_path: Path) -> None:
    source = kaist_file(tmp_path / "train20.json", [[300, 200, 30, 70]])
    content = source.read_bytes()
    draw_dataset(tmp_path, boxes=source, seed=1)
    assert source.read_bytes() == content
    assert (tmp_path / "images/set03/V001/lwir/I00021.jpg").is_file()


def test_pictures_of_another_label_file_are_not_written_over(tmp_path: Path) -> None:
    first = kaist_file(tmp_path / "first.json", [[300, 200, 30, 70]])
    second = kaist_file(tmp_path / "second.json", [[100, 200, 30, 70]])
    draw_dataset(tmp_path / "out", boxes=first, seed=1)
    before = hashes(tmp_path / "out")
    with pytest.raises(UserError, match=r"already holds images/set03/V001/visible/I00021\.jpg"):
        draw_dataset(tmp_path / "out", boxes=second, seed=1)
    assert hashes(tmp_path / "out") == before


def test_a_label_file_of_the_same_name_is_not_written_over(tmp_path: Path) -> None:
    source = kaist_file(tmp_path / "train20.json", [[300, 200, 30, 70]])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train20.json").write_text("mine")
    with pytest.raises(UserError, match=r"already holds train20\.json"):
        draw_dataset(tmp_path / "out", boxes=source, seed=1)
    assert hashes(tmp_path / "out").keys() == {"train20.json"}


def test_a_complete_drawing_is_left_and_an_interrupted_one_completed(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "out", num_train=2, num_test=1, seed=3)
    before = hashes(tmp_path / "out")
    picture = next((tmp_path / "out/images").rglob("*.jpg"))
    changed = picture.stat().st_mtime_ns
    draw_dataset(tmp_path / "out", num_train=2, num_test=1, seed=3)
    assert picture.stat().st_mtime_ns == changed
    marker = tmp_path / "out/synthetic.json"
    marker.write_text(marker.read_text().replace("true", "false"))
    (tmp_path / "out/train20.json").unlink()
    draw_dataset(tmp_path / "out", num_train=2, num_test=1, seed=3)
    after = hashes(tmp_path / "out")
    assert {**before, "synthetic.json": ""} == {**after, "synthetic.json": ""}


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train20.json").write_text("mine")
    with pytest.raises(UserError, match=r"not drawn by d2pd and holds train20\.json; nothing was"):
        draw_dataset(tmp_path, num_train=1, num_test=1)
    assert hashes(tmp_path).keys() == {"train20.json"}


def test_another_drawing_is_not_drawn_over(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "out", num_train=1, num_test=1, seed=3)
    before = hashes(tmp_path / "out")
    source = kaist_file(tmp_path / "labels.json", [[300, 200, 30, 70]])
    for arguments in ({"num_train": 1, "num_test": 1, "seed": 4}, {"boxes": source}):
        with pytest.raises(UserError, match=r"out holds a drawing of other arguments"):
            draw_dataset(tmp_path / "out", **arguments)
    assert hashes(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 0, "num_test": 3}, "num_train is 0; draw at least one pair"),
        ({"num_train": 3, "num_test": -1}, "num_test is -1; draw at least one pair"),
        ({"boxes": Path("a.json"), "faults": True}, "a.json is drawn as it is"),
        ({"num_train": 1, "num_test": 1, "fmt": "bmp"}, "choose one of jpg, png"),
        ({"num_train": 1, "num_test": 1, "seed": -1}, "The seed is -1; choose 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_dataset(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_broken_box_files_are_refused_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    cases = {
        "{": "line 1",
        "[]": "images and annotations",
        '{"images": [{"id": 0, "im_name": "../../x"}], "annotations": []}': "im_name is '../../x'",
        '{"images": [{"id": 0, "im_name": "set00/V000/I00001", "width": 9, "height": 9}], '
        '"annotations": []}': "image 0: 9x9 pixels, only 640x512 can be drawn",
    }
    for content, message in cases.items():
        broken.write_text(content)
        with pytest.raises(AnnotationError, match=message.replace(".", r"\.")) as caught:
            draw_dataset(tmp_path / "out", boxes=broken)
        assert "\n" not in str(caught.value)
    with pytest.raises(MissingFileError, match="absent"):
        draw_dataset(tmp_path / "out", boxes=tmp_path / "absent.json")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out is a file; name a folder to draw into"):
        draw_dataset(tmp_path / "out", num_train=1, num_test=1)
    assert (tmp_path / "out").read_text() == "mine"
