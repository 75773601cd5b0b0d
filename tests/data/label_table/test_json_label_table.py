import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.annotations import read_coco_json, read_kaist_json
from d2pd.data.label_table import NOT_STATED, UNKNOWN_CATEGORY, read_label_table
from d2pd.errors import AnnotationError

PERSON, REGION = {"category_id": 1}, {"category_id": -1}
READERS = {"kaist": read_kaist_json, "coco": read_coco_json}
NAME_KEYS = {"kaist": "im_name", "coco": "file_name"}
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 7, "name": "dog"}]


def kaist_image(number):
    return {"id": 10 + number, "im_name": f"set00/V000/I{number:05d}", "height": 512, "width": 640}


def box_row(number=0, bbox=(1, 2, 3, 4), **others):
    return {"image_id": 10 + number, "category_id": 1, "bbox": list(bbox)} | others


@pytest.fixture
def read(tmp_path):
    def write_and_read(images, annotations, format="auto", classes=None, **others):
        path = tmp_path / "labels.json"
        content = {"images": images, "annotations": annotations} | others
        path.write_text(json.dumps(content), encoding="utf-8")
        return read_label_table(path, format, classes=classes)

    return write_and_read


def columns_of(labels):
    """The columns that the records of a training reader amount to."""
    boxes = [
        (
            *(image, *annotation["bbox"], annotation["row"], annotation["category_id"]),
            *(bool(annotation["ignore"]), annotation.get("occlusion", NOT_STATED)),
        )
        for image, record in enumerate(labels.records)
        for annotation in record["annotations"]
    ]
    return sorted(boxes, key=lambda box: box[5])


def columns_of_table(table):
    columns = (table.box_images, *table.boxes_xyxy.T, table.box_rows, table.categories)
    return list(
        zip(*(c.tolist() for c in (*columns, table.is_region, table.occlusion)), strict=True)
    )


SOUND = {
    "bbox": st.lists(st.integers(-9, 700) | st.floats(-9, 700), min_size=4, max_size=4)
    | st.just([0, float("nan"), float("inf"), 10**400]),
    "category_id": st.sampled_from([1, 7, -1]),
    "ignore": st.sampled_from([0, 1, None, False, True]),
    "iscrowd": st.sampled_from([0, 1]),
    "occlusion": st.sampled_from([0, 1, 2, None, 2.0]),
}
FAULTY = {
    "bbox": st.sampled_from([None, 5, [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, "4"], "1 2 3 4"])
    | st.sampled_from([[1, 2, 3, None], [1, 2, 3, True], [[1], 2, 3, 4], {}]),
    "ignore": st.sampled_from([2, "yes", [0], 0.5]),
    "iscrowd": st.sampled_from([-1, "1", {}]),
    "occlusion": st.sampled_from([3, "heavy", -1, [1]]),
    "image_id": st.sampled_from([99, None, 1.5, True, [10], "10"]),
}


@st.composite
def label_files(draw):
    """Images and annotations of a file, and which annotations cannot be read."""
    count = draw(st.integers(1, 4))
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        row = {"image_id": 10 + draw(st.integers(0, count - 1))}
        rows.append(row | {key: draw(values) for key, values in SOUND.items()})
    bad = draw(st.sets(st.integers(0, len(rows) - 1), max_size=3)) if rows else set()
    for position in bad:
        key = draw(st.sampled_from(sorted(FAULTY)))
        rows[position][key] = draw(FAULTY[key])
    if rows and draw(st.booleans()):
        position = draw(st.integers(0, len(rows) - 1))
        rows[position] = draw(st.sampled_from([None, 3, "row", []]))
        bad |= {position}
    return count, rows, bad


@pytest.mark.parametrize("format", ["kaist", "coco"])
@given(file=label_files())
def test_rows_are_what_training_reads_and_malformed_where_it_refuses(
    tmp_path_factory, format, file
):
    count, rows, bad = file
    images = [{"id": 10 + n, NAME_KEYS[format]: f"set00/V000/I{n:05d}"} for n in range(count)]
    path = tmp_path_factory.mktemp("labels") / "labels.json"

    def write(annotations):
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        path.write_text(json.dumps(content), encoding="utf-8")

    write(rows)
    table = read_label_table(path)
    assert table.format == format
    assert [(row.row, row.place) for row in table.malformed] == [
        (position, "annotation") for position in sorted(bad)
    ]
    if bad:
        with pytest.raises(AnnotationError):
            READERS[format](path, None)
    write([row for position, row in enumerate(rows) if position not in bad])
    labels = READERS[format](path, None)
    kept = [position for position in range(len(rows)) if position not in bad]
    expected = [(*box[:5], kept[box[5]], *box[6:]) for box in columns_of(labels)]
    np.testing.assert_equal(columns_of_table(table), expected)
    assert table.class_names == labels.class_names
    assert table.image_names == [record["file_name"] for record in labels.records]


def test_columns_of_a_small_file_by_hand(read):
    table = read(
        [kaist_image(0), {"id": "b", "im_name": "set03/V001/I00007"}],
        [
            box_row(0, (1, 2, 30, 40), occlusion=1),
            {"image_id": "b", "category_id": 2, "bbox": [5, 6, 7.5, 8]},
            box_row(0, (0, 0, 0, 0), **REGION),
            box_row(0, (9, 9, 9, 9), ignore=1),
        ],
    )
    assert (table.format, table.box_format) == ("kaist", "xywh")
    assert (table.num_images, table.num_boxes) == (2, 4)
    assert table.image_names == ["set00/V000/I00000", "set03/V001/I00007"]
    assert table.image_ids == [10, "b"]
    assert table.image_rows.tolist() == [0, 1]
    assert (table.heights.tolist(), table.widths.tolist()) == ([512, 512], [640, 640])
    assert table.box_images.tolist() == [0, 1, 0, 0]
    assert table.boxes_xyxy.tolist() == [
        [1, 2, 31, 42], [5, 6, 12.5, 14], [0, 0, 0, 0], [9, 9, 18, 18],
    ]  # fmt: skip
    assert table.box_rows.tolist() == [0, 1, 2, 3]
    assert table.categories.tolist() == [0, -1, -1, 0]
    assert table.is_region.tolist() == [False, True, True, True]
    assert table.occlusion.tolist() == [1, -1, -1, -1]
    assert (table.malformed, table.repeated, table.category_words) == ([], {}, {})


def test_an_image_that_cannot_be_read_takes_its_boxes_along(read):
    table = read(
        [
            kaist_image(0),
            kaist_image(1) | {"im_name": "I00001"},
            kaist_image(2) | {"height": "512"},
            kaist_image(3) | {"id": 10},
            kaist_image(4) | {"id": None},
            {"id": 15, "file_name": "a.jpg"},
            7,
        ],
        [box_row(0), box_row(1), box_row(2), box_row(5), box_row(4)],
    )
    assert table.image_names == ["set00/V000/I00000"]
    assert table.box_rows.tolist() == [0]
    assert [(row.row, row.place, row.message, row.image) for row in table.malformed] == [
        (1, "image", "image 1: im_name must be such as set00/V000/I01217, got 'I00001'", "I00001"),
        (2, "image", "image 2: height must be a number of pixels, got '512'", "set00/V000/I00002"),
        (
            3,
            "image",
            "image 3: id 10 is already that of image 0; give every image an id of its own",
            "set00/V000/I00003",
        ),
        (4, "image", "image 4: id must be a whole number or a name, got None", "set00/V000/I00004"),
        (5, "image", "image 5: there is no im_name; it has file_name: use FORMAT coco", "a.jpg"),
        (6, "image", "image 6: it must be an object, got 7", None),
        *(
            (
                row,
                "annotation",
                f"annotation {row}: the row of its image, id {image_id}, cannot be read; mend that "
                "one",
                None,
            )
            for row, image_id in ((1, 11), (2, 12), (3, 15))
        ),
        (
            4,
            "annotation",
            "annotation 4: image_id 14 is not the id of any image of the file; add the image or "
            "remove the annotation",
            None,
        ),
    ]


def test_a_malformed_box_names_its_image(read):
    table = read([kaist_image(0)], [box_row(0, (1, 2, 3)), box_row(0, [9] * 100)])
    short, long = table.malformed
    assert short.image == long.image == "set00/V000/I00000"
    assert short.message == (
        "annotation 0: bbox must be four numbers x, y, width, height, got [1, 2, 3]; mend the file"
    )
    assert len(long.message) < 200  # a message is a line, whatever the file holds


def test_categories_that_nothing_lists_are_unknown(read):
    ids = [1, 9, "cat", None, 1.0, True, [1], -1, 4]
    rows = [box_row(0, category_id=category_id) for category_id in ids]
    del rows[3]["category_id"]
    table = read([kaist_image(0)], rows)
    assert table.categories.tolist() == [0, *[UNKNOWN_CATEGORY] * 6, -1, -1]
    assert table.category_words == {1: "9", 2: "cat", 3: "none", 4: "1.0", 5: "True", 6: "[1]"}
    assert table.is_region.tolist() == [False] * 7 + [True, True]
    assert table.malformed == []


def test_classes_choose_what_is_an_object(read):
    rows = [box_row(0), box_row(0, category_id=7), box_row(0, category_id=7, bbox="no box")]
    table = read([kaist_image(0)], rows[:2], classes=["dog", "person"], categories=CATEGORIES)
    assert (table.class_names, table.categories.tolist()) == (("dog", "person"), [1, 0])
    table = read([kaist_image(0)], rows[:2], categories=CATEGORIES)
    assert (table.class_names, table.categories.tolist()) == (("person",), [0, -1])
    image = {"id": 10, "file_name": "a.jpg"}
    table = read([image], rows, classes=["person"], categories=CATEGORIES)
    assert (table.categories.tolist(), table.box_rows.tolist()) == ([0], [0])
    assert table.malformed == []  # training passes over the others too
    with pytest.raises(AnnotationError, match="class 'cat' is not a category of the file"):
        read([image], rows, classes=["cat"], categories=CATEGORIES)


def test_a_coco_size_is_stated_or_zero(read):
    images = [{"id": 1, "file_name": "a.jpg", "height": 5, "width": 6.0}]
    images += [{"id": 2, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg", "height": 5}]
    table = read(images, [], categories=CATEGORIES)
    assert (table.heights.tolist(), table.widths.tolist()) == ([5, 0, 0], [6, 0, 0])
    assert table.image_names == ["a.jpg", "b.jpg", "a.jpg"]
    assert (table.boxes_xyxy.shape, table.box_rows.dtype) == ((0, 4), np.int64)


def test_the_kaist_labels_have_the_known_numbers(shared_data):
    table = read_label_table(shared_data / "kaist/train20.json")
    assert (table.format, table.class_names) == ("kaist", ("person",))
    assert (table.num_images, table.num_boxes, table.malformed) == (8963, 26718, [])
    assert (table.categories == -1).sum() == table.is_region.sum() == 3555
    images_with_person = np.unique(table.box_images[~table.is_region])
    assert table.num_images - len(images_with_person) == 225
    has_no_area = (table.boxes_xyxy[:, 2:] <= table.boxes_xyxy[:, :2]).any(axis=1)
    assert (has_no_area.sum(), (has_no_area & table.is_region).sum()) == (16, 6)
    table = read_label_table(shared_data / "kaist/test20.json")
    assert (table.num_images, table.num_boxes, table.is_region.sum()) == (2252, 4254, 864)
    assert set(table.occlusion.tolist()) <= {0, 1, 2}
