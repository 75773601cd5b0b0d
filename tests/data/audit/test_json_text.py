"""Rows of a JSON label file are changed in its text, and nothing else of it is."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.audit.json_text import JsonText, element_spans, member_spans
from d2pd.data.audit.spelled_box import SpelledBox, spell

TEXT = """\
{"info": {"images": [1, 2], "a": "\\"}]"},
 "images" : [ {"id": 1, "im_name": "s/v/a"},
   {"id": 2, "im_name": "s/v/b]}"} ,
   {"id": 3, "im_name": "s/v/\\u00e9" } ],
 "annotations": [
  {"bbox": [ 1, 2.50, 3e1, 4 ], "height": 4, "area": 120.0, "width": "30"},
  {"id": 7, "bbox": [0,0,0,0], "bbox": [-2.5,0,10,20.0], "height": 20, "area": 200, "x": [{}]}
 ],
 "categories": []
}
"""


def test_rows_are_found_as_they_stand():
    text = JsonText(TEXT)
    assert text.row_text("image", 1) == '{"id": 2, "im_name": "s/v/b]}"}'
    assert text.row_text("image", 2) == '{"id": 3, "im_name": "s/v/\\u00e9" }'
    assert text.row_text("annotation", 0).startswith('{"bbox": [ 1, 2.50,')
    assert text.box(0) == SpelledBox(("1", "2.50", "3e1", "4"), is_xywh=True)


def test_of_a_key_twice_the_last_counts_as_for_readers():
    assert JsonText(TEXT).box(1).texts == ("-2.5", "0", "10", "20.0")


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ([0], '[ {"id": 2, "im_name": "s/v/b]}"} ,\n   {"id": 3, "im_name": "s/v/\\u00e9" } ]'),
        ([1], '[ {"id": 1, "im_name": "s/v/a"} ,\n   {"id": 3, "im_name": "s/v/\\u00e9" } ]'),
        ([2], '[ {"id": 1, "im_name": "s/v/a"},\n   {"id": 2, "im_name": "s/v/b]}"} ]'),
        ([0, 2], '[ {"id": 2, "im_name": "s/v/b]}"} ]'),
        ([0, 1, 2], "[  ]"),
    ],
)
def test_a_row_that_goes_takes_the_comma_before_it_along(gone, left):
    before = TEXT[TEXT.index('[ {"id": 1') : TEXT.index(',\n "annotations"')]
    edited = JsonText(TEXT).edited({("image", row): None for row in gone})
    assert edited == TEXT.replace(before, left)


def test_nothing_edited_is_the_same_text():
    assert JsonText(TEXT).edited({}) == TEXT


def test_new_text_of_a_row_takes_its_place():
    edited = JsonText(TEXT).edited({("annotation", 0): "{}", ("image", 1): None})
    assert json.loads(edited)["annotations"][0] == {}
    assert [row["id"] for row in json.loads(edited)["images"]] == [1, 3]
    assert edited.startswith(TEXT[:60])


def test_a_new_box_changes_its_numbers_and_sizes_that_said_the_same():
    text = JsonText(TEXT)
    box = text.box(1).clipped(height=15, width=100)
    assert text.with_box(1, box) == (
        '{"id": 7, "bbox": [0,0,0,0], "bbox": [0.0,0,7.5,15.0], "height": 15, "area": 112.5, '
        '"x": [{}]}'
    )


def test_sizes_that_said_something_else_stay():
    text = JsonText('{"images":[],"annotations":[{"bbox":[-1,0,4,4],"area":9,"height":NaN}]}')
    box = text.box(0).clipped(height=9, width=9)
    assert text.with_box(0, box) == '{"bbox":[0,0,3,4],"area":9,"height":NaN}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=st.dictionaries(st.text(), JSON), indent=st.sampled_from([None, 0, 3]))
def test_spans_hold_the_values_of_an_object(value, indent):
    text = json.dumps(value, indent=indent)
    spans = member_spans(text, 0)
    found = {key: json.loads(text[start:end]) for key, (start, end) in spans.items()}
    assert json.dumps(found) == json.dumps(value)


@given(value=st.lists(JSON), indent=st.sampled_from([None, 0, 3]))
def test_spans_hold_the_elements_of_an_array(value, indent):
    text = json.dumps(value, indent=indent)
    found = [json.loads(text[start:end]) for start, end in element_spans(text, 0)]
    assert json.dumps(found) == json.dumps(value)


@pytest.mark.parametrize(
    ("value", "like", "spelled"),
    [
        ("20", "30", "20"),
        ("20", "30.0", "20.0"),
        ("20.50", "30", "20.5"),
        ("9.9", "1e1", "9.9"),
        ("20", "3E1", "20.0"),
        ("1E+2", "7", "100"),
    ],
)
def test_numbers_are_spelled_like_the_one_before(value, like, spelled):
    assert spell(Decimal(value), like) == spelled


@pytest.mark.parametrize(
    ("texts", "is_xywh", "size", "clipped"),
    [
        (("630.1", "5", "20", "7"), True, (512, 640), ("630.1", "5", "9.9", "7")),
        (("-3", "500", "10.50", "20"), True, (512, 640), ("0", "500", "7.5", "12")),
        (("-3", "5.0", "700", "600.0"), False, (512, 640), ("0", "5.0", "640", "512.0")),
        (("-3", "-4.0", "700", "600"), False, (0, 0), ("0", "0.0", "700", "600")),
        (("1.10", "2e0", "3.30", "4"), True, (9, 9), ("1.10", "2e0", "3.30", "4")),
        (("650", "5", "20", "7"), True, (512, 640), ("640", "5", "0", "7")),
    ],
)
def test_a_box_is_cut_to_its_image_and_other_numbers_keep_their_text(texts, is_xywh, size, clipped):
    assert SpelledBox(texts, is_xywh).clipped(*size) == SpelledBox(clipped, is_xywh)


FINITE = st.floats(-1e4, 1e4).map(repr)


@given(texts=st.tuples(FINITE, FINITE, FINITE, FINITE), is_xywh=st.booleans())
def test_cutting_gives_the_corners_that_readers_would_cut_to_and_twice_is_once(texts, is_xywh):
    box = SpelledBox(texts, is_xywh)
    clipped = box.clipped(height=512, width=640)
    expected = [min(max(v, 0), limit) for v, limit in zip(box.corners, (640, 512) * 2, strict=True)]
    assert clipped.corners == pytest.approx(expected, abs=1e-9)
    assert clipped.clipped(height=512, width=640).corners == clipped.corners


def test_exponents_that_decimals_lack_say_something_else():
    row = '{"bbox": [1e-9999999999999999999, -5, 3, 40], "width": 1e9999999999999999999, "area": 7}'
    text = JsonText(f'{{"images": [], "annotations": [{row}]}}')
    clipped = text.box(0).clipped(50, 2)
    assert clipped.texts == ("1e-9999999999999999999", "0", "2", "35")
    assert text.with_box(0, clipped) == row.replace("-5, 3, 40", "0, 2, 35")
