"""What a terminal or a spreadsheet would take for a command stays text."""

import pytest

from d2pd.printable import inert_cell, printable


def test_what_steers_a_terminal_is_written_as_its_code():
    assert printable("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb\\nc\\u202ed"
    assert printable("é ü.jpg") == "é ü.jpg"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_formula_is_text_in_a_spreadsheet(start):
    assert inert_cell(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


@pytest.mark.parametrize("value", ["a=b.jpg", "", 'say "no"', -5, 1.5, None])
def test_all_else_stays_as_it_is(value):
    assert inert_cell(value) == value
