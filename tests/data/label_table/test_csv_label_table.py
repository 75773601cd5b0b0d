import csv
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2pd.data.annotations import read_csv
from d2pd.data.annotations.csv_cells import LINE_BREAK
from d2pd.data.label_table import NOT_STATED, UNKNOWN_CATEGORY, read_label_table
from d2pd.errors import AnnotationError

HEADER = "filename,x1,y1,x2,y2,class,ignore,occlusion,image_width,image_height"
SOUND_LINES = [
    "a.jpg,1,2,3,4,person,0,1,90,80",
    "b.jpg,5.5,6,nan,-inf,dog,,,,",
    "b.jpg,5,6,7,8,ignore,true,2,0,0",
    "b.jpg,5,6,9,8,dog,1,,,",
    "b.jpg,,,,,,,,,",
    "c.jpg",
    "a.jpg,9,9,1,1,-1,1,0,90,80",
    '"d, e.jpg", 1 ,2,3,4,"dog",False',
    '"line\nbreak.jpg",1,2,3,4,"per""son"',
    "",
    ",,,,",
]
FAULTY_LINES = [
    "a.jpg,1,2,3,4,person,0,1,90,80,more",
    "a.jpg,1,2,3,4,person,0,1,90,80,",
    "a.jpg,1,two,3,4,person",
    "a.jpg,1,2,3",
    "a.jpg,1,2,,4,person",
    ",1,2,3,4,person",
    "a.jpg,1,2,3,4,person,yes",
    "a.jpg,1,2,3,4,person,0,heavy",
    "a.jpg,1,2,3,4,person,0,1,ninety,80",
]


@pytest.fixture
def read(tmp_path):
    def write_and_read(text, format="auto", **options):
        path = tmp_path / "labels.csv"
        path.write_bytes(text.encode())
        return read_label_table(path, format, **options)

    return write_and_read


def first_lines(records, first):
    """The line on which each record begins, and the one after the last."""
    return list(itertools.accumulate((len(LINE_BREAK.split(r)) for r in records), initial=first))


@given(
    records=st.lists(
        st.tuples(st.just(True), st.sampled_from(SOUND_LINES))
        | st.tuples(st.just(False), st.sampled_from(FAULTY_LINES)),
        max_size=8,
    ).filter(lambda records: any(is_sound and text.strip(",") for is_sound, text in records)),
    line_end=st.sampled_from(["\n", "\r\n"]),
    blank=st.integers(0, 2),
)
@settings(max_examples=40)
def test_lines_are_what_training_reads_and_malformed_where_it_refuses(
    tmp_path_factory, records, line_end, blank
):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"

    def write(texts):
        path.write_bytes(line_end.join([*[""] * blank, HEADER, *texts, ""]).encode())

    write([text for _, text in records])
    lines = first_lines([text for _, text in records], 2 + blank)
    table = read_label_table(path)
    bad = [line for line, (is_sound, _) in zip(lines, records, strict=False) if not is_sound]
    assert [(row.row, row.place) for row in table.malformed] == [(line, "line") for line in bad]
    if bad:
        with pytest.raises(AnnotationError):
            read_csv(path, None)
    write([text if is_sound else "" for is_sound, text in records])  # the lines keep their numbers
    labels = read_csv(path, None)
    boxes = [
        (
            *(image, *box["bbox"], box["row"], box["category_id"]),
            *(bool(box["ignore"]), box.get("occlusion", NOT_STATED)),
        )
        for image, record in enumerate(labels.records)
        for box in record["annotations"]
    ]
    columns = (table.box_images, *table.boxes_xyxy.T, table.box_rows, table.categories)
    found = zip(*(c.tolist() for c in (*columns, table.is_region, table.occlusion)), strict=True)
    np.testing.assert_equal(list(found), sorted(boxes, key=lambda box: box[5]))
    assert table.class_names == labels.class_names
    assert table.image_names == [record["file_name"] for record in labels.records]
    sizes = [(record.get("height", 0), record.get("width", 0)) for record in labels.records]
    assert list(zip(table.heights.tolist(), table.widths.tolist(), strict=True)) == sizes


def test_columns_of_a_small_file_by_hand(read):
    table = read(
        "file,xmin,ymin,xmax,ymax,label,width,height\nb.jpg,1,2,3,4,dog,,\na.jpg,,,,,,90,80\n"
        "b.jpg,5,6,7,8,cat,70,60\nb.jpg,0,0,9,9,-1,,\nb.jpg\n"
    )
    assert (table.format, table.box_format) == ("csv", "xyxy")
    assert (table.num_images, table.num_boxes) == (2, 3)
    assert (table.image_names, table.image_ids) == (["b.jpg", "a.jpg"], [0, 1])
    assert table.image_rows.tolist() == [2, 3]
    assert (table.heights.tolist(), table.widths.tolist()) == ([60, 80], [70, 90])
    assert table.box_images.tolist() == [0, 0, 0]
    assert table.boxes_xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 9, 9]]
    assert table.box_rows.tolist() == [2, 4, 5]
    assert (table.class_names, table.categories.tolist()) == (("cat", "dog"), [1, 0, -1])
    assert table.is_region.tolist() == [False, False, True]
    assert table.occlusion.tolist() == [-1, -1, -1]
    assert (table.malformed, table.category_words, table.repeated) == ([], {}, {6: 0})


def test_an_image_that_is_named_again_without_a_box_is_repeated(read):
    table = read("a.jpg,1,2,3,4,p\nb.jpg,,,,,\na.jpg,5,6,7,8,p\nb.jpg\na.jpg,,,,,\nc.jpg,,,,,\n")
    assert table.repeated == {4: 1, 5: 0}
    table = read("a.jpg,x,2,3,4,p\na.jpg,,,,,\n")  # the first mention cannot be read
    assert (table.repeated, table.image_rows.tolist()) == ({}, [2])


def test_each_malformed_line_says_what_is_wrong(read):
    table = read("\n".join([HEADER, "a.jpg,1,2,3,4,person,0,1,90,80", *FAULTY_LINES]))
    cells = "there are 11 cells where the first line has 10; quote a cell that holds the separator"
    words = "mend the line, or name the columns with COLUMNS"
    empty = "fill it in, or leave all four empty for an image without objects"
    assert [row.message for row in table.malformed] == [
        f"line 3: {cells}, or mend the line",
        f"line 4: {cells}, or mend the line",
        f"line 5: y1 must be a number, got 'two'; {words}",
        f"line 6: the box has no y2; {empty}",
        f"line 7: the box has no x2; {empty}",
        "line 8: there is no file name; add it",
        "line 9: ignore must be one of 0, 1, false, true, got 'yes'",
        "line 10: occlusion must be one of 0, 1, 2, got 'heavy'",
        f"line 11: image_width must be a number, got 'ninety'; {words}",
    ]
    assert [row.image for row in table.malformed] == ["a.jpg"] * 5 + [None] + ["a.jpg"] * 3
    assert (table.image_names, table.num_boxes) == (["a.jpg"], 1)


def test_a_line_with_many_faults_is_listed_once(read):
    table = read("a.jpg,1,2,3,4,p\nb.jpg,x,y,3,4,p\n,x,2,3,,p\n")
    assert [row.row for row in table.malformed] == [2, 3]


def test_another_size_of_an_image_is_malformed(read):
    header = "filename,x1,y1,x2,y2,class,image_width,image_height\n"
    table = read(header + "a.jpg,,,,,,90,80\nb.jpg,,,,,,5,5\na.jpg,1,2,3,4,p,90,81\n")
    assert [(row.row, row.message) for row in table.malformed] == [
        (4, "line 4: a.jpg is 90x81 here and 90x80 above; an image has one size")
    ]
    assert table.heights.tolist() == [80, 5]
    table = read(header + '"a\nb.jpg",,,,,,90,80\n"a\nb.jpg",,,,,,5,5\n')
    assert [row.message for row in table.malformed] == [
        "line 4: a b.jpg is 5x5 here and 90x80 above; an image has one size"
    ]
    table = read(header + "a.jpg,x,2,3,4,p,7,7\na.jpg,1,2,3,4,p,90,81\n")
    assert [row.row for row in table.malformed] == [2]  # what it says of sizes does not count
    assert (table.heights.tolist(), table.widths.tolist()) == ([81], [90])


def test_words_that_name_no_class_are_unknown(read):
    text = "a.jpg,1,2,3,4,person\na.jpg,1,2,3,4,cat\na.jpg,1,2,3,4,\na.jpg,1,2,3,4,-1\n"
    table = read(text + "a.jpg,1,2,3,4,1\na.jpg,1,2,3,4,2\n", classes=["dog", "person"])
    unknown = UNKNOWN_CATEGORY
    assert table.categories.tolist() == [1, unknown, unknown, -1, 1, unknown]
    assert table.category_words == {2: "cat", 3: "nothing", 6: "2"}
    assert table.is_region.tolist() == [False, False, False, True, False, False]
    table = read(text)
    assert table.class_names == ("cat", "person")
    assert table.category_words == {3: "nothing"}


def test_a_class_of_malformed_lines_alone_is_none(read):
    assert read("a.jpg,1,2,3,4,p\nb.jpg,1,2,3,four,q\n").class_names == ("p",)


def test_one_class_needs_no_column(read):
    table = read("a.jpg,1,2,3,4\n", classes=["person"])
    assert (table.class_names, table.categories.tolist()) == (("person",), [0])


def test_boxes_of_corner_and_size_become_corners(read):
    table = read("a.jpg,1,2,3,4,p\n", box_format="xywh")
    assert (table.box_format, table.boxes_xyxy.tolist()) == ("xywh", [[1, 2, 4, 6]])


cells = st.text('ab", \n\r;é\u2028\x0b', max_size=6)


def quoted(cells):
    text = io.StringIO()
    csv.writer(text, lineterminator="", quoting=csv.QUOTE_ALL).writerow(cells)
    return text.getvalue()


@given(rows=st.lists(st.lists(cells, min_size=1, max_size=2), max_size=6))
@settings(max_examples=60)
def test_records_begin_on_the_line_on_which_they_begin(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    rows = [["p"], *rows]
    texts = [quoted(["x.jpg", *"1234", "p", *note]) for note in rows]
    path.write_bytes("\n".join(["filename,x1,y1,x2,y2,class,note", *texts]).encode())
    lines = first_lines(texts, 2)[:-1]
    table = read_label_table(path)
    assert table.box_rows.tolist() == [
        line for line, note in zip(lines, rows, strict=True) if len(note) == 1
    ]
    assert [row.row for row in table.malformed] == [
        line for line, note in zip(lines, rows, strict=True) if len(note) == 2
    ]


def test_the_face_masks_have_the_known_numbers(shared_data):
    tables = [
        read_label_table(shared_data / "face_mask" / split / "_annotations.csv")
        for split in ("train", "valid", "test")
    ]
    assert [table.num_images for table in tables] == [594, 169, 85]
    counts = sum(np.bincount(table.categories, minlength=3) for table in tables)
    assert dict(zip(tables[0].class_names, counts.tolist(), strict=True)) == {
        "with_mask": 3184, "without_mask": 716, "mask_weared_incorrect": 121,
    }  # fmt: skip
    assert [(t.malformed, t.category_words, t.repeated) for t in tables] == [([], {}, {})] * 3
