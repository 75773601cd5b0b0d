"""What a run ended with: kept, found again, compared with what was expected."""

import json
import math

import pytest

from d2pd.training.results import (
    UnexpectedResultError,
    check_expected,
    read_results,
    write_results,
)

RESULTS = {"bbox": {"AP": 40.0, "APs": math.nan}, "final": {"bbox": {"AP": 38.5}}}


def test_results_come_back_for_their_iteration_only_nan_included(tmp_path):
    path = write_results(tmp_path, 19, RESULTS)
    found = read_results(tmp_path, 19)
    assert found["final"] == RESULTS["final"]
    assert found["bbox"]["AP"] == 40.0
    assert math.isnan(found["bbox"]["APs"])
    assert read_results(tmp_path, 18) is None
    json.loads(path.read_text(), parse_constant=pytest.fail)  # strict readers take it


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"iteration": 19}', '{"iteration": 19, "results": 3}']
)
def test_results_that_are_not_there_or_damaged_are_none(tmp_path, text):
    assert read_results(tmp_path, 19) is None
    (tmp_path / "results.json").write_text(text)
    assert read_results(tmp_path, 19) is None


def test_expected_results_are_compared_within_their_tolerance():
    results = {"bbox": {"AP": 40.0, "AP50": 60.0}}
    check_expected([["bbox", "AP", 40.4, 0.5], ["bbox", "AP50", 60.0, 0.0]], results)
    with pytest.raises(UnexpectedResultError, match=r"bbox/AP is 40.00, expected 41 ± 0.5"):
        check_expected([["bbox", "AP", 41, 0.5]], results)
    with pytest.raises(UnexpectedResultError, match="bbox/AR is nan"):
        check_expected([["bbox", "AR", 1, 0.5]], results)
    with pytest.raises(UnexpectedResultError, match="final/bbox is nan"):
        check_expected([["final", "bbox", 1, 0.5]], {"final": results})
