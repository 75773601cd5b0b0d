"""A run killed in its last moments is finished by a resume."""

import shutil

import pytest
from run_toys import THIN, Killed, assert_equal, assert_same_run, log_of, read, run_main

from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.hooks.pictures import Pictures
from d2pd.training.hooks.write_rows import WriteRows
from d2pd.training.interruption import TRY_AGAIN, Interruption, StopRequest

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture(scope="module")
def opts(quick_opts):
    return [*quick_opts, *THIN, "SOLVER.MAX_ITER", "6", "TEST.EVAL_PERIOD", "2"]


@pytest.fixture(scope="module")
def whole(opts, tmp_path_factory, without_pictures):
    output = tmp_path_factory.mktemp("whole") / "run"
    run_main(output, opts)
    return output


@pytest.mark.parametrize(
    ("place", "name"),
    [(Pictures, "after_step"), (WriteRows, "after_step"), (Checkpointer, "save_final")],
)
def test_killed_behind_the_last_decisions_it_still_gets_its_row_and_its_final_model(
    place, name, opts, whole, tmp_path, monkeypatch
):
    output = tmp_path / "run"
    own = getattr(place, name)

    def kill(self, *args):
        if args == (5,) or self.trainer.iter == 5:
            raise Killed
        own(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, kill)
        patch.setattr(WriteRows, "after_train", lambda _: None)  # a SIGKILL runs nothing
        with pytest.raises(Killed):
            run_main(output, opts)
    assert not (output / "model_final.pth").exists()
    run_main(output, opts, "--resume")
    assert_same_run(output, whole)


def test_time_limit_does_not_break_the_evaluation_of_a_run_that_is_done(
    opts, whole, tmp_path, monkeypatch
):
    over = StopRequest("stopped by the time limit", TRY_AGAIN)
    monkeypatch.setattr(Interruption, "request", lambda _: over)
    output = shutil.copytree(whole, tmp_path / "run")
    (output / "results.json").unlink()
    run_main(output, opts, "--resume")
    assert (output / "results.json").read_bytes() == (whole / "results.json").read_bytes()


def test_evaluation_says_which_checkpoint_it_takes_and_which_it_passes_over(opts, whole, tmp_path):
    output = shutil.copytree(whole, tmp_path / "run")
    (output / "model_final.pth").write_bytes(b"")
    run_main(output, opts, "--resume", "--eval-only")
    assert "model_final.pth is empty: going on from model_0000005.pth" in log_of(output)


def test_fewer_iterations_than_a_decided_checkpoint_has_end_with_a_final_model(
    opts, whole, tmp_path
):
    output = shutil.copytree(whole, tmp_path / "run")
    for name in ("model_final.pth", "model_0000005.pth", "results.json"):
        (output / name).unlink()
    run_main(output, [*opts, "SOLVER.MAX_ITER", "3"], "--resume")
    final = read(output / "model_final.pth")
    assert final["iteration"] == final["trainer"]["iteration"] == 3
    assert_equal(final["model"], read(output / "model_0000003.pth")["model"], "model")
    run_main(output, opts, "--resume")
    assert_same_run(output, whole)
