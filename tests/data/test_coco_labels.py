import json
import logging

import cv2
import numpy as np
import pytest

from d2pd.data.annotations import read_coco_json
from d2pd.errors import AnnotationError, MissingFileError

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 1, "name": "person"}, {"id": "x", "name": "cart"}]


def box(image_id, category_id=90, **fields):
    return {"image_id": image_id, "category_id": category_id, "bbox": [1, 2.5, 3, 4], **fields}


@pytest.fixture
def write(tmp_path):
    def write_labels(annotations=(), images=None, categories=CATEGORIES):
        default = [
            {"id": key, "file_name": f"{key}.jpg", "height": 6, "width": 9} for key in (7, "b")
        ]
        path = tmp_path / "labels.json"
        tables = {"images": images or default, "annotations": list(annotations)}
        path.write_text(json.dumps({**tables, "categories": categories}), encoding="utf-8")
        return path

    return write_labels


def test_any_category_ids_become_0_to_k_in_file_order(write):
    path = write([box(7), box("b", 1), box(7, "x"), box(7, -1)])
    labels = read_coco_json(path, None)
    assert labels.class_names == ("dog", "person", "cart")
    first, second = labels.records
    assert (first["image_id"], second["image_id"]) == (7, "b")
    assert [annotation["category_id"] for annotation in first["annotations"]] == [0, 2, -1]
    assert second["annotations"] == [
        {
            "bbox": [1.0, 2.5, 4.0, 6.5],
            "bbox_mode": 0,
            "category_id": 1,
            "iscrowd": 0,
            "ignore": 0,
            "row": 1,
        }
    ]


def test_class_names_choose_and_order_the_categories(write, caplog):
    path = write([box(7), box(7, 1), box(7, "x"), box(7, "x")])
    with caplog.at_level(logging.INFO):
        labels = read_coco_json(path, None, class_names=["person", "dog"])
    assert labels.class_names == ("person", "dog")
    assert [a["category_id"] for a in labels.records[0]["annotations"]] == [1, 0]
    assert caplog.messages == ["labels.json: boxes of classes not wanted, left out: cart 2"]


def test_ignore_and_iscrowd_both_make_a_region_of_their_class(write):
    path = write([box(7, ignore=1), box(7, iscrowd=1), box(7, iscrowd=0, ignore=False)])
    annotations = read_coco_json(path, None).records[0]["annotations"]
    assert [(a["category_id"], a["ignore"], a["iscrowd"]) for a in annotations] == [
        (0, 1, 1),
        (0, 1, 1),
        (0, 0, 0),
    ]


def test_a_size_that_the_file_lacks_comes_from_the_picture(write, tmp_path):
    folder = tmp_path / "Bilder é 1" / "sub"
    folder.mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((6, 9, 3), np.uint8))
    (tmp_path / "a.png").rename(folder / "ü 1.png")
    path = write(images=[{"id": 1, "file_name": "sub/ü 1.png"}])
    (record,) = read_coco_json(path, folder.parent).records
    assert (record["height"], record["width"]) == (6, 9)
    assert record["file_name"] == str(folder / "ü 1.png")
    (record,) = read_coco_json(path, None).records
    assert "height" not in record


def error_of(*args, error=AnnotationError, **kwargs):
    with pytest.raises(error) as caught:
        read_coco_json(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_class_that_is_not_there_is_refused(write):
    path = write()
    assert error_of(path, None, class_names=["cat"]) == (
        f"{path}: class 'cat' is not a category of the file (dog, person, cart); correct CLASSES "
        "or the file"
    )
    path = write(categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "dog"}])
    assert error_of(path, None) == (
        f"{path}: class 'dog' is the name of two categories of the file (dog, dog); correct "
        "CLASSES or the file"
    )
    path = write(categories=[])
    assert error_of(path, None) == (
        f"{path}: there is no list 'categories'; add it, with id and name of each class"
    )
    path = write(categories=[{"id": 1, "name": "dog"}, {"id": 1, "name": "cat"}])
    assert error_of(path, None) == (
        f"{path}, category 1: id 1 is already that of 'dog'; give every category an id of its own"
    )


def test_a_category_id_out_of_range_is_named_by_its_row(write):
    path = write([box(7), box(7, 2)])
    assert error_of(path, None) == (
        f"{path}, annotation 1: category_id 2 is not among the categories (90 dog, 1 person, x "
        "cart); add it to the file's categories or mend the annotation"
    )


def test_bad_image_rows_are_named(write):
    path = write(images=[{"id": 0, "im_name": "set00/V000/I00000"}])
    assert error_of(path, None) == (
        f"{path}, image 0: there is no file_name; it has im_name: use FORMAT kaist"
    )
    path = write(images=[{"id": 0}])
    assert error_of(path, None) == f"{path}, image 0: there is no file_name; add it"
    path = write(images=[{"file_name": "a.jpg"}])
    assert error_of(path, None) == (
        f"{path}, image 0: id must be a whole number or a name, got none"
    )
    path = write(images=[{"id": 0, "file_name": "a.jpg", "height": 2.5, "width": 2}])
    assert error_of(path, None) == (
        f"{path}, image 0: height must be a whole number of pixels, got 2.5"
    )


def test_missing_images_are_named_with_the_place(write, tmp_path):
    path, folder = write(), tmp_path / "images"
    folder.mkdir()
    assert error_of(path, folder, error=MissingFileError) == (
        f"2 of 2 images of {path} are not under {folder}: 7.jpg, b.jpg; correct IMAGES or put the "
        "files there"
    )
