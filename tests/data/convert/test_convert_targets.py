"""Labels in another format and back: the same, but for what was counted."""

import json
import math
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2pd.data.annotations import Labels, read_coco_json, read_csv, read_kaist_json
from d2pd.data.annotations.labels import make_annotation
from d2pd.data.convert.csv_target import to_csv
from d2pd.data.convert.json_targets import to_coco, to_kaist
from d2pd.data.convert.source import read_source, tell_format
from d2pd.data.convert.target import NOT_FINITE, ROUNDED, kaist_name, picture_name
from d2pd.errors import AnnotationError
from d2pd.json_file import write_json

LWIR = "lwir pictures: one name an image, of the visible one, as .jpg"
AGAIN = "images listed again: their boxes join those of the first"
CLASSES = ("person", "cyclist", "a, \"b\"; 'ü'")
SIDES = st.one_of(
    st.integers(-100, 700).map(float),
    st.decimals(-99, 700, places=2).map(float),
    st.floats(-1e6, 1e6),
    st.sampled_from([math.nan, math.inf, 1e308, -1e308, 0.1]),
)
FRAMES = st.builds(
    "set{:02d}/V{:03d}/I{:05d}".format,
    *(st.integers(0, 11), st.integers(0, 3), st.integers(0, 20)),
)


@st.composite
def annotations(draw, num_classes):
    category = draw(st.integers(-1, num_classes - 1))
    is_region = category < 0 or draw(st.booleans())
    box = [draw(SIDES) for _ in range(4)]
    return make_annotation(box, category, is_region, 0, draw(st.sampled_from([None, 0, 1, 2])))


@st.composite
def kaist_labels(draw):
    """Labels of KAIST frames, any of which may be listed again."""
    names = draw(st.lists(FRAMES, min_size=1, max_size=6))
    first_id = draw(st.integers(0, 2))
    return Labels(
        [
            {
                **{"file_name": name, "im_name": name, "height": 512, "width": 640},
                "image_id": first_id + index,
                "annotations": draw(st.lists(annotations(len(CLASSES)), max_size=3)),
            }
            for index, name in enumerate(names)
        ],
        CLASSES,
    )


@st.composite
def photo_labels(draw):
    """Labels of any pictures, with a size or without."""
    letters = st.text(string.ascii_letters + " ,;\"'üß%/\\", min_size=1, max_size=8)
    names = draw(st.lists(letters.map(str.strip).filter(bool), min_size=1, max_size=5))
    sizes = st.sampled_from([{}, {"height": 3, "width": 4}, {"height": 5, "width": 6}])
    return Labels(
        [
            {
                **{"file_name": f"{name}.jpg", "image_id": index, **draw(sizes)},
                "annotations": draw(st.lists(annotations(len(CLASSES)), max_size=3)),
            }
            for index, name in enumerate(names)
        ],
        CLASSES,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("converted")


def json_file(folder, labels, to):
    converted = to(labels)
    path = folder / "labels.json"
    write_json(path, converted.content)
    return path, converted


def csv_file(folder, labels):
    converted = to_csv(labels)
    path = folder / "labels.csv"
    path.write_bytes(converted.content.encode())
    return path, converted


def without_row(annotation):
    return {key: value for key, value in annotation.items() if key not in ("row", "bbox")}


def box_fits_json(box):
    x1, y1, x2, y2 = box
    return all(map(math.isfinite, (*box, x2 - x1, y2 - y1)))


def assert_json_boxes(labels, back, lost):
    """The same boxes in the same order, but for those that were counted."""
    num_left_out = num_moved = 0
    for record, copy in zip(labels.records, back.records, strict=True):
        kept = [each for each in record["annotations"] if box_fits_json(each["bbox"])]
        num_left_out += len(record["annotations"]) - len(kept)
        assert [*map(without_row, copy["annotations"])] == [*map(without_row, kept)]
        for each, again in zip(kept, copy["annotations"], strict=True):
            num_moved += each["bbox"] != again["bbox"]
            assert each["bbox"][:2] == again["bbox"][:2]
            last_digit = math.ulp(max(map(abs, each["bbox"])))
            assert again["bbox"] == pytest.approx(each["bbox"], rel=0, abs=last_digit)
    assert (num_left_out, num_moved) == (lost[NOT_FINITE], lost[ROUNDED])


@given(labels=kaist_labels())
@settings(max_examples=30)
def test_kaist_json_says_it_all(folder, labels):
    path, converted = json_file(folder, labels, to_kaist)

    back = read_kaist_json(path, None, class_names=CLASSES)

    for record, copy in zip(labels.records, back.records, strict=True):
        assert {**copy, "annotations": None} == {**record, "annotations": None}
    assert_json_boxes(labels, back, converted.lost)
    assert set(converted.lost) <= {NOT_FINITE, ROUNDED}


@given(labels=st.one_of(kaist_labels(), photo_labels()))
@settings(max_examples=30)
def test_coco_says_all_but_the_second_camera(folder, labels):
    path, converted = json_file(folder, labels, to_coco)

    back = read_coco_json(path, None)

    assert back.class_names == CLASSES
    for record, copy in zip(labels.records, back.records, strict=True):
        assert copy["file_name"] == picture_name(record)
        for key in ("image_id", "height", "width"):
            assert copy.get(key) == record.get(key)
    assert_json_boxes(labels, back, converted.lost)
    num_frames = sum("im_name" in record for record in labels.records)
    assert converted.lost[LWIR] == num_frames
    assert set(converted.lost) <= {NOT_FINITE, ROUNDED, LWIR}


@given(labels=st.one_of(kaist_labels(), photo_labels()))
@settings(max_examples=30)
def test_csv_keeps_every_box_and_joins_images_of_one_name(folder, labels):
    path, converted = csv_file(folder, labels)

    back = read_csv(path, None, class_names=CLASSES)

    joined: dict[str, list] = {}
    sizes: dict[str, dict] = {}
    for record in labels.records:
        joined.setdefault(picture_name(record), []).extend(record["annotations"])
        size = {key: record[key] for key in ("height", "width") if key in record}
        if size:
            sizes.setdefault(picture_name(record), size)
    assert [record["file_name"] for record in back.records] == list(joined)
    for record in back.records:
        want = joined[record["file_name"]]
        assert [*map(without_row, record["annotations"])] == [*map(without_row, want)]
        read = [number for each in record["annotations"] for number in each["bbox"]]
        written = [number for each in want for number in each["bbox"]]
        assert read == pytest.approx(written, rel=0, abs=0, nan_ok=True)
        size = {key: record[key] for key in ("height", "width") if key in record}
        assert size == sizes.get(record["file_name"], {})
    assert converted.lost[AGAIN] == len(labels.records) - len(joined)
    changed_ids = sum(record["image_id"] != n for n, record in enumerate(labels.records))
    assert converted.lost["image ids: they are counted from 0"] == changed_ids


@given(labels=photo_labels())
@settings(max_examples=20)
def test_a_csv_that_is_written_again_has_the_same_bytes(folder, labels):
    path, _ = csv_file(folder, labels)
    path, first = csv_file(folder, read_csv(path, None, class_names=CLASSES))  # names are joined

    again = to_csv(read_csv(path, None, class_names=CLASSES))

    assert again.content == first.content


@pytest.mark.parametrize("name", ["kaist/train20.json", "kaist/test20.json"])
@pytest.mark.slow
def test_the_real_labels_come_back_from_every_format(shared_data, tmp_path, name):
    source = read_source(shared_data / name, "auto", None)
    labels = source.labels
    assert not source.lost

    path, converted = json_file(tmp_path, labels, to_kaist)
    again = read_kaist_json(path, None, class_names=labels.class_names)
    assert (again, dict(converted.lost)) == (labels, {})

    path, converted = json_file(tmp_path, labels, to_coco)
    assert [without_names(each) for each in read_coco_json(path, None).records] == [
        without_names(each) for each in labels.records
    ]
    assert dict(converted.lost) == {LWIR: len(labels.records)}

    path, converted = csv_file(tmp_path, labels)
    back = read_csv(path, None, class_names=labels.class_names)
    assert len(back.records) == len(labels.records) - converted.lost[AGAIN]
    assert converted.lost[AGAIN] == (2 if "train" in name else 0)


def without_names(record):
    return {key: value for key, value in record.items() if key not in ("file_name", "im_name")}


def test_boxes_are_written_as_label_files_write_pixels():
    box = make_annotation([192.0, 214.5, 212.0, 257.0], 0, False, 0, 1)
    record = {"file_name": "a.jpg", "image_id": 7, "height": 3, "width": 4, "annotations": [box]}
    labels = Labels([record], ("cat",))

    (row,) = to_coco(labels).content["annotations"]
    assert json.dumps(row) == (
        '{"id": 0, "image_id": 7, "category_id": 1, "bbox": [192, 214.5, 20, 42.5], "ignore": 0, '
        '"occlusion": 1, "area": 850.0, "iscrowd": 0}'
    )
    assert to_csv(labels).content.splitlines() == [
        "filename,x1,y1,x2,y2,class,ignore,occlusion,image_width,image_height",
        "a.jpg,192,214.5,212,257,cat,0,1,4,3",
    ]


def test_kaist_classes_have_the_published_ids_and_others_the_next():
    labels = Labels([], ("dog", "people", "person", "cat"))

    categories = to_kaist(labels).content["categories"]

    assert [(row["id"], row["name"]) for row in categories] == [
        *[(-1, "__ignore__"), (1, "person"), (2, "cyclist"), (3, "people"), (4, "person?")],
        *[(5, "dog"), (6, "cat")],
    ]


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("set00/V000/visible/I00001.jpg", "set00/V000/I00001"),
        ("set00/V000/lwir/I00001.PNG", "set00/V000/I00001"),
        ("set00\\V000\\I00001.jpeg", "set00/V000/I00001"),
        ("a.jpg", None),
        ("set00/set00/V000/visible/I00001.jpg", None),
        ("//a.jpg", None),
    ],
)
def test_a_kaist_frame_is_known_by_its_path(file_name, name):
    assert kaist_name({"file_name": file_name}) == name


def test_both_pictures_of_a_frame_become_one_name_and_that_is_counted():
    records = [
        {"file_name": f"set00/V000/{camera}/I00001.jpg", "image_id": n, "annotations": []}
        for n, camera in enumerate(("visible", "lwir"))
    ]

    assert dict(to_kaist(Labels(records, ())).lost) == {
        "image sizes that are not stated: KAIST's is meant then, 640x512": 2,
        "names of pictures that become one frame, of both cameras": 1,
    }


@pytest.mark.parametrize(
    ("to", "name", "class_name", "message"),
    [
        (to_kaist, "a.jpg", "person", "1 of 1 images are no KAIST frames .* first is 'a.jpg'"),
        (to_kaist, "a/b/c.jpg", "__ignore__", "'__ignore__' means a region to ignore in KAIST"),
        (to_csv, "a.jpg", "ignore", "class 'ignore' means a region to ignore in a CSV"),
        (to_csv, " a.jpg", "person", "the name ' a.jpg' cannot stand in a CSV"),
        (to_csv, "a\nb.jpg", "person", "cannot stand in a CSV"),
        (to_csv, "a\ud800.jpg", "person", "half a character"),
        (to_csv, "a.jpg", "", "the name '' cannot stand in a CSV"),
    ],
)
def test_names_that_the_target_cannot_hold_are_refused(to, name, class_name, message):
    labels = Labels([{"file_name": name, "image_id": 0, "annotations": []}], (class_name,))

    with pytest.raises(AnnotationError, match=message):
        to(labels)


def test_category_minus_1_of_kaist_is_a_region_whatever_the_file_calls_it(tmp_path):
    rows = [{"id": row, "image_id": 0, "bbox": [1, 2, 3, 4]} for row in range(2)]
    content = {
        "images": [{"id": 0, "im_name": "set00/V000/I00001"}],
        "annotations": [rows[0] | {"category_id": -1}, rows[1] | {"category_id": 1}],
        "categories": [{"id": -1, "name": "not clear"}, {"id": 1, "name": "person"}],
    }
    write_json(tmp_path / "labels.json", content)

    source = read_source(tmp_path / "labels.json", "auto", None)

    assert source.labels.class_names == ("person",)
    (record,) = source.labels.records
    assert [(each["category_id"], each["ignore"]) for each in record["annotations"]] == [
        (-1, 1),
        (0, 0),
    ]
    assert not source.lost


def test_half_a_character_stays_in_json(tmp_path):
    record = {"file_name": "a\ud800.jpg", "image_id": 0, "annotations": []}

    path, _ = json_file(tmp_path, Labels([record], ("cat",)), to_coco)

    assert read_coco_json(path, None).records[0]["file_name"] == "a\ud800.jpg"


@pytest.mark.parametrize(
    ("content", "format"),
    [
        (b'\n{"images": [{"im_name": "a"}], "annotations": []}', "kaist"),
        (b'{"images": [{"file_name": "a"}], "annotations": []}', "coco"),
        ('{"images": [], "annotations": []}'.encode("utf-16"), "coco"),
        (b"\xef\xbb\xbf% bbGt version=3\n", "bbgt"),
        ("<annotation/>".encode("utf-16"), "xml"),
        (b"a.jpg,1,2,3,4,cat\n", "csv"),
    ],
)
def test_the_content_tells_the_format_whatever_the_suffix(tmp_path, content, format):
    path = tmp_path / "labels.png"
    path.write_bytes(content)

    assert tell_format(path) == format
