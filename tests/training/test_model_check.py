"""What a model's own check says, in one line."""

import pytest

from d2pd.training.culprits.model_check import MODEL_CHECKS, told


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FloatingPointError("boxes contain\n  Inf or NaN."), "boxes contain Inf or NaN"),
        (AssertionError(), "assertion without a message"),
    ],
)
def test_one_line_says_what_and_where(error, text):
    with pytest.raises(MODEL_CHECKS) as caught:
        raise error
    assert told(caught.value) == f"{text} (test_model_check.py:{caught.tb.tb_lineno})"
