"""Lines of a CSV label file are changed in its text, and nothing else of it is."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.audit.csv_text import CsvLayout, CsvText
from d2pd.data.audit.spelled_box import SpelledBox
from d2pd.data.audit.stored_text import StoredText

COLUMNS = {"filename": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "class": 5}


def read(text: str, separator: str = ",", box_format: str = "xyxy", **columns) -> CsvText:
    return CsvText(text, CsvLayout(separator, COLUMNS | columns, False, box_format))


def test_lines_are_found_as_they_stand_whatever_their_ends():
    text = read('a.jpg,1,2,3,4,"c\n""d"""\r\nb.jpg, 1.50 ,2,3,"4",e\r\r\n c')
    assert text.row_text("line", 1) == 'a.jpg,1,2,3,4,"c\n""d"""'
    assert text.row_text("line", 3) == 'b.jpg, 1.50 ,2,3,"4",e'
    assert text.row_text("line", 4) == ""
    assert text.row_text("line", 5) == " c"
    assert text.box(3) == SpelledBox(("1.50", "2", "3", "4"), is_xywh=False)


def test_a_line_goes_with_its_end_and_others_stay():
    text = read('a,1\r\n"b\n",2\nc,3')
    assert text.edited({("line", 1): None}) == '"b\n",2\nc,3'
    assert text.edited({("line", 2): None}) == "a,1\r\nc,3"
    assert text.edited({("line", 4): None, ("line", 1): "x"}) == 'x\r\n"b\n",2\n'
    assert text.edited({}) == 'a,1\r\n"b\n",2\nc,3'


def test_a_quote_inside_a_cell_is_a_letter_as_for_the_reader():
    text = read('a"b,1,2,3,4,c\nd,5,6,7,8,"e"f"\ng,1,1,2,2,h\n')
    assert text.row_text("line", 2) == 'd,5,6,7,8,"e"f"'
    assert text.row_text("line", 3) == "g,1,1,2,2,h"


def test_a_quote_without_end_goes_to_the_end_as_for_the_reader():
    text = read('a,1,2,3,4,c\nd,5,6,7,8,"e""\ng,1\n')
    assert text.rows == [1, 2]


def test_a_new_box_leaves_blanks_and_quotes_about_its_numbers():
    text = read('"a;b.jpg"; -1 ;"2.0";3;"4;";c\n', ";")
    assert text.with_box(1, SpelledBox(("0", "2.0", "30", "4"), False)) == (
        '"a;b.jpg"; 0 ;"2.0";30;"4";c'
    )


def test_corner_and_size_are_told_from_two_corners():
    text = read("a,1,2,3,4,c\n", box_format="xywh", w=3, h=4)
    assert text.box(1).corners == (1, 2, 4, 6)


def test_a_line_without_its_box_still_names_the_image_and_its_size():
    text = read('"a,b.jpg",1,2,3,4,cat,640,0,1\n', image_width=6, ignore=7, occlusion=8)
    assert text.without_box(1) == '"a,b.jpg",,,,,,640,,'


PLAIN = st.text(st.characters(exclude_characters='",\r\n\0', codec="utf-8"))
QUOTED = st.text(st.sampled_from('ab "\n\r,')).map(lambda text: '"' + text.replace('"', '""') + '"')
LINE = st.tuples(QUOTED, PLAIN | QUOTED, PLAIN | QUOTED).map(",".join)


def test_a_line_that_ends_before_its_class_can_lose_its_box():
    assert read("a.jpg,1,2,3,4\nb.jpg,1,2,3,4,c\n").without_box(1) == "a.jpg,,,,"


@given(lines=st.lists(LINE, max_size=5), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_cells_are_those_that_csv_reads(lines, end):
    content = "".join(line + end for line in lines)
    text = read(content)
    assert [text.row_text("line", row) for row in text.rows] == lines
    expected = list(csv.reader(io.StringIO(content, newline="")))
    assert [[cell.strip() for cell in row] for row in expected] == [
        text.contents(row) for row in text.rows
    ]
    assert text.edited({("line", row): None for row in text.rows}) == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_bytes_come_back_as_they_were(encoding):
    content = '{"é": "\u4e2d\U0001f600"}\r\n'.encode(encoding)
    stored = StoredText.decode(content)
    assert stored.text == '{"é": "\u4e2d\U0001f600"}\r\n'
    assert stored.encode() == content


def test_the_other_byte_order_comes_back_too():
    content = b"\xfe\xff" + "a,1\n".encode("utf-16-be")
    assert StoredText.decode(content).with_text("b").encode() == b"\xfe\xff\x00b"
