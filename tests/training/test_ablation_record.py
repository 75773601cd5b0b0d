"""What the folder of a run tells the ablation: skip, start, go on, or leave alone."""

import json
import os

import pytest

from d2pd.errors import UserError
from d2pd.training.ablation.record import (
    LOG,
    NAME,
    REFUSE,
    RESTART,
    RESUME,
    SKIP,
    START,
    Attempt,
    RunRecord,
    begin_attempt,
    differences,
    read_record,
    standing_of,
)
from d2pd.training.results import write_results

CONFIG = {"SEED": 1, "SOLVER.MAX_ITER": 5}


def begun(folder, *attempts, config=CONFIG, log=""):
    RunRecord(config, list(attempts)).write(folder)
    (folder / LOG).write_text(log)


def standing(folder, config=CONFIG):
    return standing_of(folder, config, defaults={})


def test_folder_that_is_not_there_or_empty_is_started(tmp_path):
    assert standing(tmp_path / "none") == standing(tmp_path)
    assert (standing(tmp_path).step, standing(tmp_path).why) == (START, "not run yet")


def test_results_end_a_run(tmp_path):
    begun(tmp_path, Attempt(0.0, 7.0, 2), Attempt(9.0, 5.0, 0))
    write_results(tmp_path, 4, {"bbox": {"AP": 12.5}})
    found = standing(tmp_path)
    assert (found.step, found.why, found.seconds) == (SKIP, "", 12.0)
    assert found.results == {"bbox": {"AP": 12.5}}


def test_results_that_were_not_expected_stay_with_what_was_said(tmp_path):
    begun(tmp_path, Attempt(0.0, 7.0, 2), log="d2pd: TEST.EXPECTED_RESULTS: bbox/AP is 1\n")
    write_results(tmp_path, 4, {"bbox": {"AP": 1.0}})
    found = standing(tmp_path)
    assert found.step == SKIP
    assert found.why == "finished, exit code 2: TEST.EXPECTED_RESULTS: bbox/AP is 1"


@pytest.mark.parametrize(
    ("files", "step"),
    [
        ([], START),
        (["metrics.json"], RESTART),
        (["metrics.json", "model_0000003.pth"], RESUME),
        (["model_final.pth"], RESUME),
    ],
)
def test_unfinished_run_goes_on_from_a_checkpoint_and_else_anew(tmp_path, files, step):
    begun(tmp_path, Attempt(0.0, 7.0, 137), log="Traceback\nKilled\n")
    for name in files:
        (tmp_path / name).write_text("something")
    found = standing(tmp_path)
    assert (found.step, found.results) == (step, None)
    assert found.why == "not finished, exit code 137: Killed"


def test_run_of_another_configuration_is_left_alone(tmp_path):
    begun(tmp_path, Attempt(0.0, 7.0, 0))
    write_results(tmp_path, 4, {"bbox": {"AP": 12.5}})
    found = standing(tmp_path, {**CONFIG, "SOLVER.MAX_ITER": 6})
    assert (found.step, found.results) == (REFUSE, None)
    assert "another configuration (SOLVER.MAX_ITER: 5 -> 6): delete it" in found.why


def test_run_that_failed_before_it_began_takes_the_corrected_configuration(tmp_path):
    begun(tmp_path, Attempt(0.0, 7.0, 2), log="d2pd: no weights\n")
    assert standing(tmp_path, {**CONFIG, "SOLVER.MAX_ITER": 6}).step == START


def test_run_that_someone_else_started_is_left_alone(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    found = standing(tmp_path)
    assert found.step == REFUSE
    assert "did not start (metrics.json)" in found.why


@pytest.mark.parametrize("text", ["", "[]", '{"config": 3, "attempts": []}', '{"config": {}}'])
def test_broken_record_is_left_alone_and_named(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    assert standing(tmp_path).step == REFUSE
    with pytest.raises(UserError, match=f"{NAME} cannot be read"):
        read_record(tmp_path)


def test_keys_that_do_not_change_figures_may_differ():
    before = {"OUTPUT_DIR": "a", "MODEL.DEVICE": "cpu", "CHECKPOINT.KEEP": 3, "SEED": 1}
    now = {"OUTPUT_DIR": "b", "MODEL.DEVICE": "cuda", "CHECKPOINT.KEEP": 1, "SEED": 1}
    assert differences(before, now, {}) == []
    assert differences(before, {**now, "SEED": 2}, {}) == ["SEED: 1 -> 2"]


def test_key_that_an_older_record_lacks_counts_as_its_default():
    defaults = {"NEW": 3}
    assert differences({}, {"NEW": 3}, defaults) == []
    assert differences({}, {"NEW": 4}, defaults) == ["NEW: 3 -> 4"]
    assert differences({"GONE": 1}, {}, {}) == ["GONE: 1 -> null"]


def test_many_differences_are_counted(tmp_path):
    config = {f"KEY_{number}": 0 for number in range(9)}
    begun(tmp_path, config=config)
    (tmp_path / "metrics.json").write_text("{}")
    why = standing(tmp_path, dict.fromkeys(config, 1)).why
    assert "KEY_2: 0 -> 1; and 6 more)" in why
    assert "KEY_3" not in why


def test_attempt_whose_end_nobody_saw_lasted_till_its_last_word(tmp_path):
    begun(tmp_path, Attempt(100.0, 7.0, 75), Attempt(1000.0))
    os.utime(tmp_path / LOG, (1030.0, 1030.0))
    assert standing(tmp_path).seconds == 37.0
    record, attempt = begin_attempt(tmp_path, CONFIG)
    (tmp_path / LOG).write_text("more")
    assert [old.seconds for old in record.attempts] == [7.0, 30.0, None]
    assert attempt is record.attempts[-1]
    assert len(json.loads((tmp_path / NAME).read_text())["attempts"]) == 3


def test_reason_is_what_was_said_to_the_user_not_what_came_before(tmp_path):
    log = "a line\nd2pd: one thing is in the way of this run:\n  1. no weights\n\n"
    begun(tmp_path, Attempt(0.0, 1.0, 2), log=log)
    why = "not finished, exit code 2: one thing is in the way of this run: 1. no weights"
    assert standing(tmp_path).why == why
    begun(tmp_path, Attempt(0.0, 1.0, 2), log=f"d2pd: {'x' * 1000}")
    assert len(standing(tmp_path).why) < 400


@pytest.mark.parametrize("code", [75, 130, 143])
def test_run_that_was_stopped_says_how_it_goes_on(tmp_path, code):
    begun(tmp_path, Attempt(0.0, 7.0, code), log="d2pd: stopped: --resume goes on from there\n")
    assert standing(tmp_path).why == "not finished: stopped; the same command goes on with it"
