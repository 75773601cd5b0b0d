import json
import logging
import os
from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.annotations import read_kaist_json
from d2pd.errors import AnnotationError, MissingFileError

NAMES = ("set00/V000/I00001", "set00/V001/I00003", "set06/V000/I00019")


def box(image_id, bbox=(10, 20, 30, 40), **fields):
    return {"image_id": image_id, "category_id": 1, "bbox": list(bbox), **fields}


def content(names=NAMES, annotations=(), categories=((1, "person"),)):
    tables = {
        "images": [
            {"id": index, "im_name": name, "height": 512, "width": 640}
            for index, name in enumerate(names)
        ],
        "annotations": list(annotations),
    }
    if categories is not None:
        tables["categories"] = [{"id": key, "name": name} for key, name in categories]
    return tables


@pytest.fixture
def write(tmp_path):
    def write_labels(*args, **kwargs):
        path = tmp_path / "train.json"
        path.write_text(json.dumps(content(*args, **kwargs)), encoding="utf-8")
        return path

    return write_labels


def draw_frames(root, names, suffix=".png", modalities=("visible", "lwir"), is_doubled=False):
    for name in names:
        set_name, video, frame = name.split("/")
        for modality in modalities:
            folder = root / set_name / (set_name if is_doubled else "") / video / modality
            folder.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / f"{frame}{suffix}"), np.zeros((8, 10, 3), np.uint8))


@given(permutation=st.permutations(NAMES))
def test_an_image_list_selects_and_orders(tmp_path_factory, permutation):
    folder = tmp_path_factory.mktemp("labels")
    (folder / "train.json").write_text(json.dumps(content()))
    for count in range(1, 4):
        (folder / "list.txt").write_text("\r\n".join(permutation[:count]) + "\n\n")
        labels = read_kaist_json(folder / "train.json", None, image_list=folder / "list.txt")
        assert [record["im_name"] for record in labels.records] == list(permutation[:count])


def test_boxes_become_xyxy_and_regions_are_marked(write):
    path = write(
        annotations=[
            box(0, (10, 20, 30, 40), occlusion=1),
            box(0, (1, 2, 3, 4), category_id=-1),
            box(1, ignore=1, occlusion=2),
            box(1, category_id=2),
            box(1, iscrowd=1),
        ],
        categories=[(1, "person"), (2, "cyclist")],
    )
    labels = read_kaist_json(path, None)
    assert labels.class_names == ("person",)
    assert labels.records[0] == {
        "file_name": NAMES[0],
        "im_name": NAMES[0],
        "image_id": 0,
        "height": 512,
        "width": 640,
        "annotations": [
            {
                "bbox": [10.0, 20.0, 40.0, 60.0],
                "bbox_mode": 0,
                "category_id": 0,
                "iscrowd": 0,
                "ignore": 0,
                "row": 0,
                "occlusion": 1,
            },
            {
                "bbox": [1.0, 2.0, 4.0, 6.0],
                "bbox_mode": 0,
                "category_id": -1,
                "iscrowd": 1,
                "ignore": 1,
                "row": 1,
            },
        ],
    }
    second = labels.records[1]["annotations"]
    assert [(a["category_id"], a["ignore"], a["iscrowd"]) for a in second] == [
        (0, 1, 1),
        (-1, 1, 1),
        (0, 1, 1),
    ]
    assert labels.records[2]["annotations"] == []


def test_more_classes_can_be_objects(write):
    path = write(
        annotations=[box(0), box(0, category_id=2), box(0, category_id=3)],
        categories=[(0, "__ignore__"), (1, "person"), (2, "cyclist"), (3, "people")],
    )
    labels = read_kaist_json(path, None, class_names=("cyclist", "person"))
    assert [a["category_id"] for a in labels.records[0]["annotations"]] == [1, 0, -1]


def test_a_file_without_categories_has_the_published_ids(write):
    path = write(annotations=[box(0), box(0, category_id=4)], categories=None)
    labels = read_kaist_json(path, None)
    assert [a["category_id"] for a in labels.records[0]["annotations"]] == [0, -1]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".PNG"])
@pytest.mark.parametrize("is_doubled", [False, True])
def test_frames_are_found_in_every_layout(write, tmp_path, suffix, is_doubled):
    root = tmp_path / "Bilder é 1"
    draw_frames(root, NAMES, suffix, is_doubled=is_doubled)
    for record in read_kaist_json(write(), root).records:
        set_name, video, frame = record["im_name"].split("/")
        inner = root / set_name / set_name if is_doubled else root / set_name
        assert record["file_name"] == str(inner / video / "visible" / f"{frame}{suffix}")
        assert record["lwir_file_name"] == str(inner / video / "lwir" / f"{frame}{suffix}")


def test_each_folder_is_listed_once(write, tmp_path, monkeypatch):
    names = [f"set00/V000/I{index:05d}" for index in range(30)]
    draw_frames(tmp_path / "images", names)
    listed = Counter()
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.update([str(path)]) or scandir(path))
    read_kaist_json(write(names), tmp_path / "images")
    assert set(listed.values()) == {1}
    assert len(listed) == 2


def test_a_modality_that_is_nowhere_is_left_out(write, tmp_path, caplog):
    draw_frames(tmp_path / "images", NAMES, modalities=("visible",))
    labels = read_kaist_json(write(), tmp_path / "images")
    assert all("lwir_file_name" not in record for record in labels.records)
    draw_frames(tmp_path / "thermal", NAMES, modalities=("lwir",))
    labels = read_kaist_json(write(), tmp_path / "thermal")
    assert all(record["file_name"] == record["lwir_file_name"] for record in labels.records)
    assert caplog.messages == [
        f"{tmp_path / 'thermal'} holds no visible frames; lwir frames take their place"
    ]


def test_videos_are_included_and_excluded_by_prefix(write):
    names = ("set00/V000/I1", "set00/V00/I1", "set01/V000/I1", "set00/V000/I2")
    path = write(names)

    def read(**kwargs):
        return [record["im_name"] for record in read_kaist_json(path, None, **kwargs).records]

    assert read(include=["set00/V000"]) == ["set00/V000/I1", "set00/V000/I2"]
    assert read(include=["set00/"]) == [names[0], names[1], names[3]]
    assert read(exclude=["set00/V000"]) == [names[1], names[2]]
    assert read(include=["set00"], exclude=["set00/V000"]) == [names[1]]
    assert read(include=["set00"]) + read(exclude=["set00"]) == [
        names[0],
        names[1],
        names[3],
        names[2],
    ]


def test_a_video_that_is_not_there_is_warned_about(write, caplog):
    with caplog.at_level(logging.WARNING):
        read_kaist_json(write(), None, exclude=["set00/V009"])
    assert caplog.messages == ["train.json: no image is in video set00/V009"]


def test_names_listed_twice_stay_two_records(write, tmp_path, caplog):
    path = write(("set00/V000/I1", "set00/V000/I1", "set00/V000/I2"))
    assert [r["image_id"] for r in read_kaist_json(path, None).records] == [0, 1, 2]
    image_list = tmp_path / "list.txt"
    image_list.write_text("set00/V000/I1\nset00/V000/I2\nset00/V000/I1\nset00/V000/I2\n")
    with caplog.at_level(logging.WARNING):
        labels = read_kaist_json(path, None, image_list=image_list)
    assert [record["image_id"] for record in labels.records] == [0, 2, 1]
    assert caplog.messages == [f"{image_list} lists set00/V000/I2 once too often; it is used once"]


def test_a_list_may_name_modality_and_suffix(write, tmp_path):
    image_list = tmp_path / "list.txt"
    image_list.write_text("\ufeffset06/V000/visible/I00019.jpg\n", encoding="utf-8")
    labels = read_kaist_json(write(), None, image_list=image_list)
    assert [record["im_name"] for record in labels.records] == ["set06/V000/I00019"]


def test_the_real_labels(shared_data):
    train = read_kaist_json(shared_data / "kaist" / "train20.json", None).records
    annotations = [annotation for record in train for annotation in record["annotations"]]
    assert (len(train), len(annotations)) == (8963, 26718)
    assert sum(annotation["category_id"] == -1 for annotation in annotations) == 3555
    assert sum(annotation["ignore"] for annotation in annotations) == 3555
    day = [record for record in train if record["im_name"] < "set03"]
    assert (len(day), len(train) - len(day)) == (5622, 3341)
    test = read_kaist_json(shared_data / "kaist" / "test20.json", None).records
    annotations = [annotation for record in test for annotation in record["annotations"]]
    assert (len(test), len(annotations)) == (2252, 4254)
    assert sum(annotation["ignore"] for annotation in annotations) == 864
    assert {annotation["occlusion"] for annotation in annotations} == {0, 1, 2}


def test_the_real_pairs_are_found(shared_data, tmp_path):
    images = shared_data / "kaist" / "images"
    names = sorted(
        f"{path.parts[-4]}/{path.parts[-3]}/{path.stem}" for path in images.glob("*/*/visible/*")
    )
    (tmp_path / "list.txt").write_text("\n".join(names))
    labels = read_kaist_json(
        shared_data / "kaist" / "test20.json", images, image_list=tmp_path / "list.txt"
    )
    assert len(labels.records) == 5
    for record in labels.records:
        assert cv2.imread(record["file_name"]).shape == (512, 640, 3)
        assert cv2.imread(record["lwir_file_name"]).shape == (512, 640, 3)


def error_of(*args, error=AnnotationError, **kwargs):
    with pytest.raises(error) as caught:
        read_kaist_json(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_files_are_named(write, tmp_path):
    missing = tmp_path / "no.json"
    assert error_of(missing, None, error=MissingFileError) == (
        f"{missing}: no such annotation file; correct ANNOTATIONS or the dataset root"
    )
    path, folder = write(), tmp_path / "no"
    assert error_of(path, folder, error=MissingFileError) == (
        f"{folder}: no such folder of images; correct IMAGES or the dataset root"
    )
    assert error_of(path, None, image_list=tmp_path / "no.txt", error=MissingFileError) == (
        f"{tmp_path / 'no.txt'}: no such image list; correct IMAGE_LIST"
    )


def test_missing_images_are_counted_and_the_first_three_named(write, tmp_path):
    names = [f"set00/V000/I{index:05d}" for index in range(6)]
    path, root = write(names), tmp_path / "images"
    root.mkdir()
    where = f"{root}/setXX/[setXX/]VYYY/visible/ (jpg or png)"
    cure = "correct IMAGES or put the files there"
    assert error_of(path, root, error=MissingFileError) == (
        f"6 of 6 images of {path} are not under {where}: {', '.join(names[:3])}, ...; {cure}"
    )
    draw_frames(root, names, modalities=("visible",))
    draw_frames(root, names[1:], modalities=("lwir",))
    assert error_of(path, root, error=MissingFileError) == (
        f"1 of 6 images of {path} are not under {where.replace('visible', 'lwir')}: {names[0]}; "
        f"{cure}"
    )


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (
            box(0, (1, "ten", 3, 4)),
            "bbox must be four numbers x, y, width, height, got [1, 'ten', 3, 4]; mend the file",
        ),
        (
            box(0, (1, 2, 3)),
            "bbox must be four numbers x, y, width, height, got [1, 2, 3]; mend the file",
        ),
        (
            {"image_id": 0, "category_id": 1},
            "bbox must be four numbers x, y, width, height, got none; mend the file",
        ),
        (
            box(7),
            "image_id 7 is not the id of any image of the file; add the image or remove the "
            "annotation",
        ),
        (
            box(0, category_id=9),
            "category_id 9 is not among the categories (1 person); add it to the file's "
            "categories or mend the annotation",
        ),
        (box(0, category_id=[1]), "category_id must be a whole number or a name, got [1]"),
        (box(0, ignore="yes"), "ignore must be 0 or 1, got 'yes'"),
        (
            box(0, occlusion=5),
            "occlusion must be 0 (none), 1 (partial) or 2 (heavy), got 5",
        ),
    ],
)
def test_a_bad_annotation_is_named_by_its_row(write, annotation, message):
    path = write(annotations=[box(0), annotation])
    assert error_of(path, None) == f"{path}, annotation 1: {message}"


def test_a_class_that_is_not_there_is_refused(write):
    path = write(categories=[(1, "person"), (2, "cyclist")])
    assert error_of(path, None, class_names=("persn",)) == (
        f"{path}: class 'persn' is not a category of the file (person, cyclist); correct CLASSES"
    )


def test_images_without_a_usable_name_or_id_are_refused(tmp_path):
    path = tmp_path / "a.json"

    def write_images(*images):
        path.write_text(json.dumps({"images": images, "annotations": []}))

    write_images({"id": 0, "file_name": "a.jpg"})
    assert error_of(path, None) == (
        f"{path}, image 0: there is no im_name; it has file_name: use FORMAT coco"
    )
    write_images({"id": 0, "im_name": "I00001"})
    assert error_of(path, None) == (
        f"{path}, image 0: im_name must be such as set00/V000/I01217, got 'I00001'"
    )
    write_images({"id": 3, "im_name": NAMES[0]}, {"id": 3, "im_name": NAMES[1]})
    assert error_of(path, None) == (
        f"{path}, image 1: id 3 is already that of image 0; give every image an id of its own"
    )
    write_images({"id": 3, "im_name": NAMES[0], "height": "tall"})
    assert error_of(path, None) == (
        f"{path}, image 0: height must be a number of pixels, got 'tall'"
    )


def test_a_list_that_does_not_belong_is_refused(write, tmp_path):
    path, image_list = write(), tmp_path / "list.txt"
    image_list.write_text(f"{NAMES[0]}\nset00/V000/I9\n")
    assert error_of(path, None, image_list=image_list) == (
        f"1 of 2 images of {image_list} are not in {path}: set00/V000/I9; the list and the label "
        "file must belong together"
    )
    image_list.write_text("\n")
    assert error_of(path, None, image_list=image_list) == (
        f"{image_list}: the image list is empty; one name a line is expected"
    )
    image_list.write_bytes(b"\xff\xfe\xfa")
    assert error_of(path, None, image_list=image_list) == (
        f"{image_list}: byte 0 is not UTF-8 text; save the list as UTF-8"
    )


def test_a_selection_that_leaves_nothing_is_refused(write):
    path = write()
    assert error_of(path, None, include=["set99"]) == (
        f"{path}: no image is left by INCLUDE ['set99'] and EXCLUDE []; its videos are "
        "set00/V000, set00/V001, set06/V000"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "{}: the file is empty; download or export it again"),
        (
            b'{"images": [],\n "annotations": [{"id"',
            "{}, line 2, column 23: not JSON (Expecting ':' delimiter); the file may be cut off or "
            "of another format: download or export it again",
        ),
        (
            b"a.jpg,1,2,3,4,person\n",
            "{}, line 1, column 1: not JSON (Expecting value); the file may be cut off or of "
            "another format: download or export it again",
        ),
        (b'{"images": "\xe9"}', "{}, line 1: byte 12 is not UTF-8 text; save the file as UTF-8"),
        (
            b"[1, 2]",
            "{}: expected an object with images and annotations, got list; KAIST and COCO "
            "label files have both lists",
        ),
        (
            b'{"images": [], "boxes": []}',
            "{}: there is no list 'annotations' (found: boxes, images); KAIST and COCO label "
            "files have images and annotations",
        ),
        (
            b'{"images": [3], "annotations": []}',
            "{}: images[0] must be an object, got 3",
        ),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1}]}',
            "{}, category 0: there is no name; give the category one",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    assert error_of(path, None) == message.format(path)


def test_a_file_that_may_not_be_read_is_named(write, monkeypatch):
    path = write()

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    assert error_of(path, None, error=MissingFileError) == (
        f"{path}: cannot be read (Permission denied); mend its permissions or copy it again"
    )


def test_deep_nesting_and_long_numbers_end_in_one_line(tmp_path):
    path = tmp_path / "a.json"
    for text in ("[" * 200_000, '{"images": ' + "9" * 5000 + "}"):
        path.write_text(text)
        assert error_of(path, None).startswith(f"{path}: cannot be read as JSON (")


def test_a_number_too_large_counts_as_infinite(write):
    path = write(annotations=[box(0, (10**400, 0, 1, 1))])
    assert read_kaist_json(path, None).records[0]["annotations"][0]["bbox"] == [float("inf")] * 4


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings_with_a_mark_are_read(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content()), encoding=encoding)
    assert len(read_kaist_json(path, None).records) == 3


def test_a_file_that_is_no_image_list_is_not_quoted(write, tmp_path):
    image_list = tmp_path / "passwd"
    image_list.write_text("root:x:0:0:root:/root:/bin/bash\n")
    assert error_of(write(), None, image_list=image_list) == (
        f"{image_list}: an image list holds names such as set00/V000/I01217, and entry 1 is none; "
        "correct IMAGE_LIST"
    )
