import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d2pd.data.annotations import read_csv
from d2pd.data.cleaning import clean_records
from d2pd.errors import AnnotationError, ConfigError, MissingFileError

NAMES = ("person", "cyclist")


@pytest.fixture
def write(tmp_path):
    def write_labels(text, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write_labels


def boxes_of(labels):
    return [
        (record["file_name"], annotation["bbox"], annotation["category_id"])
        for record in labels.records
        for annotation in record["annotations"]
    ]


EXPECTED = [
    ("a.jpg", [1.0, 2.0, 30.0, 40.0], 0),
    ("a.jpg", [5.5, 6.0, 70.0, 80.0], 1),
    ("b.jpg", [1.0, 2.0, 3.0, 4.0], 1),
]

SPELLINGS = {
    "no header": "a.jpg,1,2,30,40,person\na.jpg,5.5,6,70,80,cyclist\nb.jpg,1,2,3,4,cyclist\n",
    "header": "filename,x1,y1,x2,y2,class\na.jpg,1,2,30,40,person\na.jpg,5.5,6,70,80,cyclist\n"
    "b.jpg,1,2,3,4,cyclist\n",
    "TensorFlow order": "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    "a.jpg,90,91,person,1,2,30,40\na.jpg,90,91,cyclist,5.5,6,70,80\nb.jpg,9,9,cyclist,1,2,3,4\n",
    "other names": "Label,Image Path,left,top,right,bottom,note\nperson,a.jpg,1,2,30,40,x\n"
    "cyclist,a.jpg,5.5,6,70,80,\ncyclist,b.jpg,1,2,3,4,\n",
    "class ids": "a.jpg,1,2,30,40,0\na.jpg,5.5,6,70,80,1\nb.jpg,1,2,3,4,1\n",
    "spaces": "a.jpg , 1, 2, 30, 40, person \n a.jpg,5.5,6,70,80,cyclist\nb.jpg,1,2,3,4,cyclist",
    "quotes": '"a.jpg","1","2","30","40","person"\na.jpg,5.5,6,70,80,cyclist\n'
    "b.jpg,1,2,3,4,cyclist\n",
    "CRLF and blank lines": "a.jpg,1,2,30,40,person\r\n\r\na.jpg,5.5,6,70,80,cyclist\r\n"
    ",,,,,\r\nb.jpg,1,2,3,4,cyclist\r\n\r\n",
    "semicolons": "a.jpg;1;2;30;40;person\na.jpg;5.5;6;70;80;cyclist\nb.jpg;1;2;3;4;cyclist\n",
    "tabs": "a.jpg\t1\t2\t30\t40\tperson\na.jpg\t5.5\t6\t70\t80\tcyclist\nb.jpg\t1\t2\t3\t4\t1\n",
    "byte order mark": "\ufefffilename,x1,y1,x2,y2,class\na.jpg,1,2,30,40,person\n"
    "a.jpg,5.5,6,70,80,cyclist\nb.jpg,1,2,3,4,cyclist\n",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_gives_the_same_boxes(write, spelling):
    labels = read_csv(write(SPELLINGS[spelling]), None, class_names=NAMES)
    assert boxes_of(labels) == EXPECTED
    assert [record["image_id"] for record in labels.records] == [0, 1]


def test_utf16_of_a_spreadsheet_is_read(write):
    labels = read_csv(write(SPELLINGS["tabs"], "utf-16"), None, class_names=NAMES)
    assert boxes_of(labels) == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,1,2,29,38,person\na.jpg,5.5,6,64.5,74,cyclist\nb.jpg,1,2,2,2,cyclist\n",
        "image,x,y,width,height,label\na.jpg,1,2,29,38,person\na.jpg,5.5,6,64.5,74,cyclist\n"
        "b.jpg,1,2,2,2,cyclist\n",
        "image,width,height,x,y,w,h,label\na.jpg,90,91,1,2,29,38,person\n"
        "a.jpg,90,91,5.5,6,64.5,74,cyclist\nb.jpg,9,9,1,2,2,2,cyclist\n",
    ],
)
def test_xywh_boxes_become_corners(write, text):
    labels = read_csv(write(text), None, class_names=NAMES, box_format="xywh")
    assert boxes_of(labels) == EXPECTED


@pytest.mark.parametrize("header", ["", "w,p,q,r,s,k,t\n"])
def test_columns_name_what_the_file_does_not(write, header):
    text = "x,1,2,30,40,a.jpg,person\nx,5.5,6,70,80,a.jpg,cyclist\nx,1,2,3,4,b.jpg,cyclist\n"
    columns = ["note", "x1", "y1", "x2", "y2", "filename", "class"]
    labels = read_csv(write(header + text), None, class_names=NAMES, columns=columns)
    assert boxes_of(labels) == EXPECTED


corners = st.tuples(*[st.integers(0, 2000)] * 4)
names = st.text("abcé _-.()日1", min_size=1, max_size=8).map(str.strip).filter(bool)


@given(rows=st.lists(st.tuples(names, corners, st.sampled_from(NAMES)), min_size=1, max_size=12))
def test_boxes_come_back_as_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    lines = [",".join([f"{name}.jpg", *map(str, box), kind]) for name, box, kind in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    labels = read_csv(path, None, class_names=NAMES)
    in_order = list(dict.fromkeys(f"{name}.jpg" for name, _, _ in rows))
    assert [record["file_name"] for record in labels.records] == in_order
    found = {
        annotation["row"]: (record["file_name"], tuple(annotation["bbox"]))
        for record in labels.records
        for annotation in record["annotations"]
    }
    assert found == {
        line: (f"{name}.jpg", box) for line, (name, box, _) in enumerate(rows, start=1)
    }


def test_a_row_without_a_box_is_an_image_without_objects(write):
    labels = read_csv(write("a.jpg,1,2,3,4,person\nb.jpg,,,,,\nc.jpg\n"), None, class_names=NAMES)
    assert [len(record["annotations"]) for record in labels.records] == [1, 0, 0]


def test_class_names_come_from_the_file_where_none_are_given(write):
    labels = read_csv(write("a.jpg,1,2,3,4,b\na.jpg,1,2,3,4,a\nc.jpg,1,2,3,4,b\n"), None)
    assert labels.class_names == ("a", "b")
    assert [category for _, _, category in boxes_of(labels)] == [1, 0, 1]
    labels = read_csv(write("a.jpg,1,2,3,4,2\na.jpg,1,2,3,4,0\n"), None)
    assert labels.class_names == ("0", "1", "2")
    assert [category for _, _, category in boxes_of(labels)] == [2, 0]


def test_one_class_needs_no_column(write):
    labels = read_csv(write("a.jpg,1,2,3,4\n"), None, class_names=["person"])
    assert boxes_of(labels) == [("a.jpg", [1, 2, 3, 4], 0)]


def test_regions_to_ignore_by_class_or_by_column(write):
    text = (
        "filename,x1,y1,x2,y2,class,ignore,occlusion\n"
        "a.jpg,1,2,3,4,person,0,0\na.jpg,1,2,3,4,person,1,2\na.jpg,1,2,3,4,ignore,,\n"
        "a.jpg,1,2,3,4,-1,False,1\n"
    )
    labels = read_csv(write(text), None)
    assert labels.class_names == ("person",)
    annotations = labels.records[0]["annotations"]
    assert [(a["category_id"], a["ignore"], a["iscrowd"]) for a in annotations] == [
        (0, 0, 0),
        (0, 1, 1),
        (-1, 1, 1),
        (-1, 1, 1),
    ]
    assert [annotation.get("occlusion") for annotation in annotations] == [0, 2, None, 1]


def test_words_for_no_number_are_left_to_cleaning(write):
    labels = read_csv(write("a.jpg,nan,2,3,4,person\na.jpg,1,2,inf,4,person\n"), None)
    _, report = clean_records(labels.records)
    assert report.counts == {"not_finite": 2}


def test_sizes_come_from_the_picture_as_opencv_reads_it(write, tmp_path):
    folder = tmp_path / "Bilder é 1"
    folder.mkdir()
    for orientation in (1, 3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (9, 6)).save(folder / f"ü {orientation}.jpg", exif=exif)
    text = "".join(f"ü {orientation}.jpg,1,2,3,4,person\n" for orientation in (1, 3, 6, 8))
    labels = read_csv(write(text), folder)
    sizes = [(record["height"], record["width"]) for record in labels.records]
    assert sizes == [(6, 9), (6, 9), (9, 6), (9, 6)]
    for record, size in zip(labels.records, sizes, strict=True):
        content = np.fromfile(record["file_name"], np.uint8)
        assert cv2.imdecode(content, cv2.IMREAD_COLOR).shape[:2] == size


def test_sizes_that_the_file_states_are_taken(write):
    labels = read_csv(write(SPELLINGS["TensorFlow order"]), None)
    assert [(r["height"], r["width"]) for r in labels.records] == [(91, 90), (9, 9)]
    labels = read_csv(write(SPELLINGS["header"]), None)
    assert "height" not in labels.records[0]


def test_images_in_subfolders_and_with_backslashes_are_found(write, tmp_path):
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (9, 6)).save(tmp_path / "sub" / "a.png")
    absolute = str(tmp_path / "sub" / "a.png")
    for name in ("sub/a.png", "sub\\a.png", absolute):
        (record,) = read_csv(write(f"{name},1,2,3,4,person\n"), tmp_path).records
        assert record["file_name"] == absolute


def test_the_real_face_masks(shared_data):
    counts, images = dict.fromkeys(("with_mask", "without_mask", "mask_weared_incorrect"), 0), []
    classes = tuple(counts)
    for split in ("train", "valid", "test"):
        folder = shared_data / "face_mask" / split
        labels = read_csv(folder / "_annotations.csv", folder, class_names=classes)
        images.append(len(labels.records))
        for _, _, category in boxes_of(labels):
            counts[classes[category]] += 1
        assert {(r["height"], r["width"]) for r in labels.records} == {(416, 416)}
        cleaned, report = clean_records(labels.records)
        assert (cleaned, report.counts, report.num_clipped) == (labels.records, {}, 0)
    assert images == [594, 169, 85]
    assert counts == {"with_mask": 3184, "without_mask": 716, "mask_weared_incorrect": 121}


def error_of(*args, error=AnnotationError, **kwargs):
    with pytest.raises(error) as caught:
        read_csv(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


GOOD = "a.jpg,1,2,3,4,person\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "b.jpg,1,ten,3,4,person",
            "y1 must be a number, got 'ten'; mend the line, or name the columns with COLUMNS",
        ),
        (
            "b.jpg,1,2,1O,4,person",
            "x2 must be a number, got '1O'; mend the line, or name the columns with COLUMNS",
        ),
        (
            "b.jpg,1,,3,,person",
            "the box has no y1, y2; fill it in, or leave all four empty for an image without "
            "objects",
        ),
        (",1,2,3,4,person", "there is no file name; add it"),
        (
            "b.jpg,1,2,3,4,dog",
            "class 'dog' is not one of person, cyclist; mend the line or add it to CLASSES",
        ),
        ("b.jpg,1,2,3,4,", "the box has no class; name one of person, cyclist"),
        (
            "b.jpg,1,2,3,4,2",
            "class id 2 is out of range; 2 classes (person, cyclist) have the ids 0 to 1: mend "
            "the line or add the class to CLASSES",
        ),
        (
            "b.jpg,1,2,3,4,-7",
            "class id -7 is out of range; 2 classes (person, cyclist) have the ids 0 to 1: mend "
            "the line or add the class to CLASSES",
        ),
    ],
)
def test_a_bad_line_is_named(write, line, message):
    path = write(GOOD + "\n" + line + "\n" + GOOD)
    assert error_of(path, None, class_names=NAMES) == f"{path}, line 3: {message}"
    path = write("filename,x1,y1,x2,y2,class\n" + GOOD + line + "\n")
    assert error_of(path, None, class_names=NAMES) == f"{path}, line 3: {message}"


def test_letters_in_the_first_line_are_no_header(write):
    path = write("b.jpg,one,two,three,four,person\n")
    assert error_of(path, None, class_names=NAMES) == (
        f"{path}, line 1: x1 must be a number, got 'one'; mend the line, or name the columns with "
        "COLUMNS"
    )


def test_many_bad_lines_are_counted(write):
    path = write(GOOD + "b.jpg,x,2,3,4,person\n" * 5)
    assert error_of(path, None) == (
        f"{path}, line 2: x1 must be a number, got 'x' (5 lines like it); mend the line, or name "
        "the columns with COLUMNS"
    )


def test_a_missing_column_is_named(write):
    path = write("filename,x1,y1,x2,class\na.jpg,1,2,3,person\n")
    assert error_of(path, None) == (
        f"{path}: no column for y2 in filename,x1,y1,x2,class; name the columns with COLUMNS, or "
        "set BOX_FORMAT xywh if the boxes are xywh"
    )
    path = write("filename,x,y,w,h,class\na.jpg,1,2,3,4,person\n")
    assert error_of(path, None) == (
        f"{path}: no column for x2, y2 in filename,x,y,w,h,class; name the columns with COLUMNS, "
        "or set BOX_FORMAT xywh if the boxes are xywh"
    )
    path = write("a.jpg,1,2,3,4\n")
    assert error_of(path, None) == (
        f"{path}: expected the columns filename,x1,y1,x2,y2,class or a header, got 5 columns "
        "without a header; name the columns of the file with COLUMNS"
    )
    columns = ["filename", "x1", "y1", "x2", "y2", "note", "class"]
    path = write(GOOD)
    assert error_of(path, None, columns=columns) == (
        f"{path}: COLUMNS names 7 columns, the file has 6; name them in the order of the file"
    )
    assert error_of(path, None, columns=["filename", "x1", "y1", "x2", "class"]) == (
        f"{path}: no column for y2 in filename,x1,y1,x2,class; name the columns with COLUMNS, or "
        "set BOX_FORMAT xywh if the boxes are xywh"
    )


def test_another_box_format_is_refused(write):
    assert error_of(write(GOOD), None, box_format="cxcywh", error=ConfigError) == (
        "BOX_FORMAT must be one of xyxy, xywh, got 'cxcywh'"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n", "{}: the file is empty; download or export it again"),
        (
            b"a.jpg,1,2,3,4,person\nb.jpg,1,2,3,4,person,5\n",
            "{}, line 2: there are 7 cells where the first line has 6; quote a cell that holds the "
            "separator, or mend the line",
        ),
        (
            b'a.jpg,1,2,3,4,person\n"b.jpg,1,2,3,4,person\n',
            "{}: cannot be split into columns (EOF inside string starting at row 1); close the "
            "quote of that row",
        ),
        (
            b"a.jpg,1,2,3,4,person\n\xe9.jpg,1,2,3,4,person\n",
            "{}, line 2: byte 21 is not UTF-8 text; save the file as UTF-8",
        ),
        (
            b"\xff\xfea\x00\x00",
            "{}, line 1: byte 4 is not UTF-16 text; save the file as UTF-8",
        ),
        (
            b"a.jpg,1,2,3,4,person\nb.jpg,1\0,2,3,4,person\n",
            "{}, line 2: holds a NUL byte; the file is damaged or no text, or UTF-16 without its "
            "mark: save it as UTF-8",
        ),
        (
            b'{"images": []}',
            "{}: expected the columns filename,x1,y1,x2,y2,class or a header, got 1 columns "
            "without a header; name the columns of the file with COLUMNS",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    assert error_of(path, None) == message.format(path)


def test_codes_that_mean_nothing_are_refused(write):
    path = write("filename,x1,y1,x2,y2,class,occlusion\na.jpg,1,2,3,4,person,heavy\n")
    assert error_of(path, None) == (
        f"{path}, line 2: occlusion must be one of 0, 1, 2, got 'heavy'"
    )


def test_one_image_has_one_size(write):
    path = write(
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,90,91,p,1,2,3,4\n"
        "a.jpg,91,90,p,1,2,3,4\n"
    )
    assert error_of(path, None) == (
        f"{path}, line 3: a.jpg is 91x90 here and 90x91 above; an image has one size"
    )


def test_missing_files_are_named(write, tmp_path):
    missing = tmp_path / "no.csv"
    assert error_of(missing, None, error=MissingFileError) == (
        f"{missing}: no such annotation file; correct ANNOTATIONS or the dataset root"
    )
    path, folder = write("".join(f"{i}.jpg,1,2,3,4,person\n" for i in range(5))), tmp_path / "no"
    assert error_of(path, folder, error=MissingFileError) == (
        f"{folder}: no such folder of images; correct IMAGES or the dataset root"
    )
    folder.mkdir()
    Image.new("RGB", (9, 6)).save(folder / "3.jpg")
    assert error_of(path, folder, error=MissingFileError) == (
        f"4 of 5 images of {path} are not under {folder}: 0.jpg, 1.jpg, 2.jpg, ...; correct IMAGES "
        "or put the files there"
    )


def test_a_file_that_is_no_picture_is_named(write, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    assert error_of(write(GOOD), tmp_path) == (
        f"{tmp_path / 'a.jpg'}: cannot be read as a picture; replace the file or remove its labels"
    )


def test_a_file_without_a_header_whose_last_column_names_pictures_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("with_mask,1,2,30,40,a.jpg\n")
    with pytest.raises(AnnotationError) as caught:
        read_csv(tmp_path / "a.csv", None)
    assert str(caught.value) == (
        f"{tmp_path / 'a.csv'}: the last column names pictures (a.jpg), the first does not; "
        "without a header the picture comes first and the class last: add a line with the names of "
        "the columns, or name them with COLUMNS"
    )
    columns = ["class", "x1", "y1", "x2", "y2", "filename"]
    assert read_csv(tmp_path / "a.csv", None, columns=columns).class_names == ("with_mask",)
