"""The table of an ablation: means over seeds, and a reason for every number that is not there."""

import math

import pytest

from d2pd.training.ablation.table import (
    COLUMNS,
    Row,
    format_duration,
    format_table,
    make_row,
    summarise,
)


def row(name, seed, ap=None, seconds=0.0, why=""):
    results = None if ap is None else results_of(ap)
    return make_row(name, seed, results, seconds, why)


def results_of(ap):
    rates = {f"reasonable/{split}": 2 * ap for split in ("all", "day", "night")}
    return {"bbox": {"AP": ap, "AP50": 3 * ap, "APs": 0.0}, "MR": {**rates, "far/all": 99.0}}


def test_columns_are_taken_from_the_results():
    found = row("a", 1, 10.0, 5.0)
    expected = {"MR all": 20.0, "MR day": 20.0, "MR night": 20.0, "AP": 10.0, "AP50": 30.0}
    assert found == Row("a", 1, expected, {}, 5.0, "")


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ({"bbox": {}}, "the results hold no MR/reasonable/night"),
        ({"MR": {"reasonable/night": math.nan}}, "there is no label to find"),
        (
            {"MR": {"person/reasonable/all": 1.0}},
            "the results hold no MR/reasonable/night (but person/reasonable/all)",
        ),
    ],
)
def test_every_missing_value_has_a_reason(results, reason):
    found = make_row("a", 1, results, 0.0, "")
    assert found.missing["MR night"] == reason
    assert set(found.missing) | set(found.values) == set(COLUMNS)


def test_data_without_miss_rates_has_no_columns_of_them_and_nothing_amiss():
    of_faces = make_row("a", 0, {"bbox": {"AP": 10.0, "AP50": 30.0}}, 65.0, "")
    assert not of_faces.missing
    assert format_table([of_faces]).splitlines() == [
        "| run | seed | AP    | AP50  | time       |",
        "|-----|------|-------|-------|------------|",
        "| a   | 0    | 10.00 | 30.00 | 1 min 05 s |",
    ]
    text = format_table([of_faces, row("a", 1, why="not run yet")])
    assert "MR" not in text
    assert text.endswith("\n- a seed 1: not run yet")


def test_run_without_results_lacks_all_for_its_reason():
    assert row("a", 1, why="not run yet").missing == dict.fromkeys(COLUMNS, "not run yet")


def test_mean_and_deviation_over_seeds_by_hand():
    rows = [row("a", 0, 10.0, 60.0), row("a", 1, 14.0, 120.0), row("b", 0, 1.0, 9.0)]
    summary = summarise([*rows, row("a", 2, why="failed")])
    assert list(summary) == ["a", "b"]
    ap = summary["a"]["AP"]
    # Deviation of 10 and 14 with n - 1: sqrt(((-2)^2 + 2^2) / 1).
    assert (ap.mean, ap.deviation, ap.number) == (12.0, pytest.approx(math.sqrt(8)), 2)
    assert summary["a"]["time"].mean == 90.0
    assert math.isnan(summary["b"]["AP"].deviation)


def test_table_of_one_seed_has_one_row_a_run_and_no_deviation():
    text = format_table([row("a", 4, 10.0, 65.0), row("longer", 4, 11.0, 3700.0)])
    assert text.splitlines() == [
        "| run    | seed | MR all | MR day | MR night | AP    | AP50  | time       |",
        "|--------|------|--------|--------|----------|-------|-------|------------|",
        "| a      | 4    | 20.00  | 20.00  | 20.00    | 10.00 | 30.00 | 1 min 05 s |",
        "| longer | 4    | 22.00  | 22.00  | 22.00    | 11.00 | 33.00 | 1 h 01 min |",
    ]


def test_table_of_several_seeds_says_how_many_the_mean_is_of():
    failed = row("a", 2, why="not finished, exit code 2: no memory")
    text = format_table([row("a", 0, 10.0), row("a", 1, 14.0), failed])
    assert "| a   | 0, 1, 2 | 24.00 ± 5.66 (2 of 3) |" in text
    assert "\nEach seed:\n" in text
    assert "| a   | 1    | 28.00  |" in text
    assert "| a   | 2    | -      |" in text
    assert text.endswith("\n- a seed 2: not finished, exit code 2: no memory")


def test_runs_with_the_same_reason_share_a_line():
    lines = format_table([row("a", 0, why="not run yet"), row("b", 0, why="not run yet")])
    assert lines.splitlines()[-1] == "- a seed 0, b seed 0: not run yet"


def test_reason_of_some_columns_names_them():
    results = results_of(10.0)
    results["MR"]["reasonable/night"] = math.nan
    last = format_table([make_row("a", 0, results, 1.0, "")]).splitlines()[-1]
    assert last == "- a seed 0 (MR night): there is no label to find"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations_are_readable(seconds, text):
    assert format_duration(seconds) == text
