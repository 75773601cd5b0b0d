"""Labels of any format, without a picture."""

import json
import os

import pytest

from d2pd.data.annotations.any_format import read_any_labels
from d2pd.errors import AnnotationError, MissingFileError
from d2pd.evaluation.arrays import label_arrays


@pytest.fixture
def write(tmp_path):
    def write_content(content, name="labels.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_content


def coco(image=None, box=(1, 2, 3, 4), **changes):
    whole = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 48, "width": 64} | (image or {})],
        "annotations": [{"image_id": 7, "category_id": 5, "bbox": list(box)}],
        "categories": [{"id": 5, "name": "person"}, {"id": 9, "name": "dog"}],
    }
    return whole | changes


def test_kaist_is_known_by_im_name(write):
    kaist = coco({"im_name": "set06/V000/I00019"})
    kaist["categories"] = [{"id": -1, "name": "__ignore__"}, {"id": 5, "name": "person"}]
    read = read_any_labels(write(kaist))
    assert read.labels.class_names == ("person",)
    assert read.labels.records[0]["im_name"] == "set06/V000/I00019"
    assert read.category_ids == {5: 0}


def test_published_kaist_ids_hold_where_the_file_lists_none(write):
    kaist = coco({"im_name": "set06/V000/I00019"})
    del kaist["categories"]
    kaist["annotations"][0]["category_id"] = 1
    assert read_any_labels(write(kaist)).category_ids == {0: -1, 1: 0, 2: -1, 3: -1, 4: -1}


def test_other_json_is_coco_with_ids_of_its_own(write):
    read = read_any_labels(write(coco()))
    assert read.labels.class_names == ("person", "dog")
    assert read.category_ids == {5: 0, 9: 1}
    assert read.labels.records[0]["annotations"][0]["bbox"] == [1, 2, 4, 6]


def test_csv_classes_go_by_number_or_name(write):
    read = read_any_labels(write("a.jpg,1,2,3,4,dog\nb.jpg,1,2,3,4,cat\n", "labels.CSV"))
    assert read.category_ids == {0: 0, 1: 1, "cat": 0, "dog": 1}
    assert [record["image_id"] for record in read.labels.records] == [0, 1]


@pytest.mark.parametrize("name", ["labels.csv", "labels.json"])
def test_a_size_that_is_not_stated_is_zero(write, name):
    content = coco({"height": None, "width": None})
    for key in ("height", "width"):
        del content["images"][0][key]
    text = "a.jpg,1,2,3,4,person" if name.endswith("csv") else json.dumps(content)
    read = read_any_labels(write(text, name))
    labels = label_arrays(read.labels.records, read.labels.class_names)
    assert labels.image_sizes.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (coco(box=(1, 2, -3, 4)), "a.json", "a.json, annotation 0: the box x1, y1, x2, y2 = 1, 2"),
        (coco(box=(1, 2, 3, float("nan"))), "a.json", "has no size that could be measured"),
        (coco(box=(float("inf"), 2, 3, 4)), "a.json", "has no size that could be measured"),
        ("a.jpg,9,2,3,4,person", "a.csv", "a.csv, line 1: the box"),
        (coco(images=[], annotations=[]), "a.json", "the file names no image"),
        ([], "a.json", "expected an object with images and annotations, got list"),
        ("", "a.json", "the file is empty"),
    ],
)
def test_labels_that_measure_nothing_are_refused(write, content, name, message):
    with pytest.raises(AnnotationError, match=message):
        read_any_labels(write(content, name))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError, match="labels.json: no such label file"):
        read_any_labels(tmp_path / "labels.json")
    with pytest.raises(MissingFileError, match="this is a folder; name the label file"):
        read_any_labels(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(MissingFileError, match="a pipe or device; save it to a file"):
        read_any_labels(tmp_path / "pipe.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [0, 0, 1e200, 1e200]}, "annotation 0: the box .* no size that could be measured"),
        ({"bbox": [-1e308, 0, 1e308, 1]}, "annotation 0: the box .* no size"),
        ({"image_id": True}, "annotation 0: image_id must be a whole number or a name, got True"),
        ({"category_id": True}, "annotation 0: category_id must be a whole number or a name"),
    ],
)
def test_numbers_that_are_none_of_an_image_are_refused(write, change, message):
    row = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]} | change
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [row],
        "categories": [{"id": 1, "name": "cat"}],
    }
    with pytest.raises(AnnotationError, match=message):
        read_any_labels(write(content, "labels.json"))


def test_real_labels_of_each_format(shared_data):
    counts = {
        "kaist/test20.json": (2252, 4254, {0: -1, 1: 0, 2: -1, 3: -1, 4: -1}),
        "kaist/train20.json": (8963, 26_718, {1: 0}),
    }
    for name, (images, boxes, categories) in counts.items():
        read = read_any_labels(shared_data / name)
        assert len(read.labels.records) == images
        assert sum(len(record["annotations"]) for record in read.labels.records) == boxes
        assert read.category_ids == categories
    faces = read_any_labels(shared_data / "face_mask/test/_annotations.csv")
    assert len(faces.labels.records) == 85
    assert len(faces.labels.class_names) == 3
