"""The training cell of a notebook: run once, cut off, run again, run after its end."""

import shutil

import pytest
from easydict import EasyDict
from run_toys import (
    QUICK,
    TINY,
    Killed,
    all_rows,
    assert_equal,
    assert_same_weights,
    at_step,
    checkpoints,
    log_of,
    rows,
)

from d2pd.config import load_config
from d2pd.errors import RunInterrupted, UserError
from d2pd.evaluation.build import predictions_path
from d2pd.notebook import training
from d2pd.notebook.training import train_or_resume
from d2pd.training.interruption import Interruption, StopRequest

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture
def config_file(quick_opts, tmp_path):
    opts = [*quick_opts, *TINY, "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.MAX_ITER", "6"]
    path = tmp_path / "tiny.yaml"
    path.write_text(load_config(QUICK, opts).dump())
    return path


@pytest.fixture
def options(tmp_path):
    (tmp_path / "My Drive").mkdir()
    return EasyDict(output=tmp_path / "run", mirror=tmp_path / "My Drive/run 1", gpu=None)


def lose_machine(options):
    """Leave the mirror alone; another folder, as this process still has the old log open."""
    shutil.rmtree(options.output)
    options.output = options.output.with_name("new machine")


def cut_off(monkeypatch, options, config_file, at):
    def kill(iteration):
        if iteration == at:
            raise Killed

    with at_step(monkeypatch, kill), pytest.raises(Killed):
        train_or_resume(options, config_file)


def test_after_the_machine_is_gone_it_goes_on_from_drive_and_ends_as_if_never_cut_off(
    monkeypatch, options, config_file, tmp_path
):
    cut_off(monkeypatch, options, config_file, at=5)
    lose_machine(options)

    results = train_or_resume(options, config_file)

    assert "going on from model_0000003.pth in the mirror" in log_of(options.output)
    assert "Starting training from iteration 4" in log_of(options.output)
    whole = EasyDict(output=tmp_path / "whole", gpu=None)
    assert_equal(train_or_resume(whole, config_file), results, "results")
    assert_equal(rows(options.output), rows(whole.output), "metrics.json")
    assert_same_weights(options.output, whole.output)


def test_after_its_end_it_gives_the_results_and_trains_nothing(options, config_file):
    results = train_or_resume(options, config_file)
    before = {p: p.stat().st_mtime_ns for p in options.output.glob("model_*.pth")}

    assert_equal(train_or_resume(options, config_file), results, "results")
    assert {p: p.stat().st_mtime_ns for p in options.output.glob("model_*.pth")} == before
    assert log_of(options.output).count("Starting training") == 1


def test_after_its_end_and_the_machine_is_gone_detections_are_made_again(options, config_file):
    results = train_or_resume(options, config_file)
    lose_machine(options)

    assert_equal(train_or_resume(options, config_file), results, "results")
    assert "Starting training" not in log_of(options.output)
    assert predictions_path(options.output, "synthetic_val").is_file()
    assert [row["iteration"] for row in all_rows(options.output)] == [5]


def test_more_iterations_train_on(options, config_file):
    train_or_resume(options, config_file)
    train_or_resume({**options, "max_iter": 8}, config_file)
    assert "model_0000007.pth" in checkpoints(options.output)
    assert "Starting training from iteration 6" in log_of(options.output)


def test_cut_off_before_its_first_checkpoint_it_starts_anew(monkeypatch, options, config_file):
    told = []
    monkeypatch.setattr(training.logger, "warning", lambda *words: told.append(words[0]))
    cut_off(monkeypatch, options, config_file, at=1)
    (options.output / "metrics.json").write_text('{"iteration": 0}\n')

    train_or_resume(options, config_file)

    assert [row["iteration"] for row in all_rows(options.output)] == [5]
    assert told[-1] == "The run in %s had saved nothing yet: it starts anew"


def test_results_whose_weights_are_gone_are_not_deleted(options, config_file):
    options.output.mkdir()
    (options.output / "results.json").write_text('{"iteration": 5, "results": {}}')
    (options.output / "metrics.json").write_text('{"iteration": 5}\n')
    with pytest.raises(UserError, match="already holds a run"):
        train_or_resume(options, config_file)
    assert (options.output / "results.json").is_file()


def test_a_drive_that_is_not_mounted_stops_it_before_anything_is_written(options, config_file):
    options.mirror = options.output.parent / "not mounted" / "run"
    with pytest.raises(UserError, match="mount the drive"):
        train_or_resume(options, config_file)
    assert not options.output.exists()


def test_the_stop_button_tells_to_run_the_cell_again(monkeypatch, options, config_file):
    stop = StopRequest("stopped by SIGINT", 130)
    monkeypatch.setattr(Interruption, "request", lambda _: stop)
    with pytest.raises(RunInterrupted, match=r"SIGINT.*\(in a notebook: run the cell again\)"):
        train_or_resume(options, config_file)
