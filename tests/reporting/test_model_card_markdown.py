"""Text of files in Markdown, and thresholds in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.reporting.model_card.markdown import code, counted, rounded_down, sentence


@given(st.floats(min_value=5e-324, max_value=1e300))
def test_a_threshold_in_three_digits_lets_in_what_has_its_score(score):
    shown = float(rounded_down(score))

    assert shown <= score
    assert shown > 0.989 * score or score < 1e-300  # where floats have few digits themselves


@pytest.mark.parametrize(
    ("score", "shown"), [(0.9, "0.9"), (0.57, "0.57"), (0.18079, "0.18"), (1.0, "1"), (0.0, "0")]
)
def test_thresholds_are_as_short_as_they_can_be(score, shown):
    assert rounded_down(score) == shown


def test_text_of_files_is_one_line_without_markup():
    assert code("a`b|c\nd") == "`a'b/c d`"
    assert code("") == "–"
    assert code("x" * 500) == f"`{'x' * 119}…`"
    assert sentence("<b>_a_ and snake_case|*") == r"\<b\>\_a\_ and snake_case/\*"
    assert sentence("https://x www.y a@b") == r"https:\//x www\.y a\@b"
    assert counted(1, "image") == "1 image"
    assert counted(2000, "image") == "2,000 images"
