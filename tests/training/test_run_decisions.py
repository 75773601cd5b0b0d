"""Whole runs that stop early and keep the best model, by metrics real and written by hand."""

import math

import pytest
import torch
from run_toys import (
    TINY,
    Killed,
    all_rows,
    assert_equal,
    assert_same_files,
    assert_same_weights,
    at_step,
    checkpoints,
    log_of,
    read,
    rows,
    run_main,
    script,
    times,
)

from d2pd.errors import ConfigError
from d2pd.training.isolation import ForwardState

pytestmark = pytest.mark.usefixtures("without_pictures")

LEFT = "early_stopping/patience_left"


@pytest.fixture(scope="module")
def opts(quick_opts):
    return [*quick_opts, *TINY, "SOLVER.MAX_ITER", "12", "TEST.EVAL_PERIOD", "2"]


def stopping(metric, patience):
    return ["EARLY_STOPPING.METRIC", metric, "EARLY_STOPPING.PATIENCE", str(patience)]


def unchanged_part(output):
    """Return when the files of a run were written, without the log and what it is told of."""
    written = times(output)
    return {path: at for path, at in written.items() if path.suffix in (".pth", ".json")} | {
        path: written[path] for path in (output / "run.log", output / "last_checkpoint")
    }


# Better than 30 by iteration 7 only: patience 2 ends after iteration 5, patience 3 after 11.
VALUES = {1: 30.0, 3: 20.0, 5: math.nan, 7: 40.0, 9: 10.0, 11: 5.0}


def test_a_stop_by_validation_loss_ends_with_an_evaluation_and_tells_why(
    opts, without_pictures, tmp_path
):
    # Nothing is better than the first value by so much.
    never = ["EARLY_STOPPING.MIN_DELTA", "1e9", "VALIDATION.PERIOD", "2", "TEST.EVAL_PERIOD", "0"]
    results = run_main(tmp_path, [*opts, *stopping("val/total_loss", 2), *never])

    found = all_rows(tmp_path)
    assert [row["iteration"] for row in found] == [1, 3, 5, 5]
    assert "bbox/AP" not in found[1]
    assert found[2]["bbox/AP"] == results["bbox"]["AP"]
    assert [row[LEFT] for row in found[:3]] == [2, 1, 0]
    reason = "val/total_loss has not improved on"
    assert found[3]["stopped"].startswith(reason)
    assert "by more than 1e+09 for 2 evaluations" in found[3]["stopped"]
    final = read(tmp_path / "model_final.pth")
    assert final["iteration"] == 5
    assert final["pending"] is False
    for name in ("run.log", "log.txt"):
        assert f"stopped after iteration 5: {reason}" in (tmp_path / name).read_text()


def test_a_miss_rate_stops_and_chooses_the_best_model(opts, without_pictures, tmp_path):
    name = "MR/reasonable/all"
    best = ["BEST_CHECKPOINT.METRIC", f"('{name}', 'bbox/AP')", "EARLY_STOPPING.MIN_DELTA", "1e9"]
    results = run_main(tmp_path, [*opts, *stopping(name, 2), *best])

    found = all_rows(tmp_path)
    assert [row["iteration"] for row in found] == [1, 3, 5, 5]
    assert found[3]["stopped"].startswith(f"{name} has not improved on")
    assert results["MR"]["reasonable/all"] == found[2][name]
    lowest = min(row[name] for row in found[:3])
    assert found[2][f"best/{name}"] == lowest
    why = read(tmp_path / "model_best.pth")["metric"]
    assert why == {"name": name, "value": lowest, "mode": "min"}


@pytest.fixture(scope="module")
def patient(opts, without_pictures, tmp_path_factory):
    """The folder of a run with a patience that VALUES do not use up."""
    output = tmp_path_factory.mktemp("patient") / "run"
    with pytest.MonkeyPatch.context() as patch:
        script(patch, VALUES)
        results = run_main(output, [*opts, *stopping("bbox/AP", 3)])
    assert results == {"bbox": {"AP": 5.0}}
    assert all_rows(output)[-1]["iteration"] == 11
    return output


def test_a_stopped_run_says_so_on_resume_and_more_patience_ends_as_if_it_had_it_from_the_start(
    opts, patient, monkeypatch, tmp_path
):
    script(monkeypatch, VALUES)
    results = run_main(tmp_path, [*opts, *stopping("bbox/AP", 2)])
    assert [row["iteration"] for row in all_rows(tmp_path)] == [1, 3, 5, 5]
    assert math.isnan(results["bbox"]["AP"])
    before = unchanged_part(tmp_path)

    again = run_main(tmp_path, [*opts, *stopping("bbox/AP", 2)], "--resume")
    assert_equal(again, results, "results")
    assert unchanged_part(tmp_path) == before
    said = "stopped early after iteration 5: bbox/AP has not improved on 30 (iteration 1) for 2 "
    assert f"{said}evaluations; EARLY_STOPPING.PATIENCE 4 trains on" in log_of(tmp_path)

    run_main(tmp_path, [*opts, *stopping("bbox/AP", 3)], "--resume")
    assert_same_files(tmp_path, patient, "model_best.pth")
    assert_same_weights(tmp_path, patient)
    states = [read(folder / "model_final.pth")["trainer"] for folder in (tmp_path, patient)]
    for state in states:
        del state["hooks"]["ScalarHistory"]  # before the resume there was less patience left
    assert_equal(*states, "state")
    ours, theirs = rows(tmp_path), rows(patient)
    assert_equal(ours[3:], theirs[3:], "rows after the resume")
    for row in (*ours, *theirs):
        del row[LEFT]
    assert_equal(ours, theirs, "rows")


def test_a_value_beyond_the_bound_stops_at_once(opts, monkeypatch, tmp_path):
    script(monkeypatch, VALUES)
    bound = ["EARLY_STOPPING.DIVERGENCE_THRESHOLD", "25.0"]
    run_main(tmp_path, [*opts, *stopping("bbox/AP", 9), *bound])
    assert all_rows(tmp_path)[-1] == {
        "iteration": 3,
        "stopped": "bbox/AP is 20, worse than EARLY_STOPPING.DIVERGENCE_THRESHOLD 25",
    }


def test_best_model_is_what_it_claims_to_be(opts, tmp_path, monkeypatch):
    tags = []

    def note(folder, name):
        tags.append(name)
        (folder / "last_checkpoint").write_text(name)

    for module in ("checkpointer", "checkpoint_file"):
        monkeypatch.setattr(f"d2pd.training.checkpoints.{module}.write_tag", note)
    learning = ["SOLVER.BASE_LR", "0.02"]
    run_main(tmp_path / "run", [*opts, *learning])

    best = read(tmp_path / "run/model_best.pth")
    assert set(best) == {"model", "metric", "iteration", "config", "run"}
    values = {row["iteration"]: row["bbox/AP"] for row in rows(tmp_path / "run")}
    value = max(values.values())
    assert value > 0
    assert best["metric"] == {"name": "bbox/AP", "value": value, "mode": "max"}
    assert values[best["iteration"]] == value
    assert best["iteration"] < 11  # else the final model would do as well
    assert "BASE_LR: 0.02" in best["config"]
    assert [row["best/bbox/AP"] for row in rows(tmp_path / "run")][-1] == value

    weights = ["MODEL.WEIGHTS", str(tmp_path / "run/model_best.pth")]
    again = run_main(tmp_path / "alone", [*opts, *weights], "--eval-only")
    assert again["bbox"]["AP"] == value
    assert tags
    assert not [name for name in tags if "best" in name]


def test_best_model_is_remembered_across_a_resume(opts, monkeypatch, tmp_path):
    script(monkeypatch, {1: math.nan, 3: 50.0, 5: 40.0, 7: math.nan, 9: 50.0, 11: 60.0})

    def kill(iteration):
        if iteration == 4:
            raise Killed

    with at_step(monkeypatch, kill), pytest.raises(Killed):
        run_main(tmp_path, opts)
    best = read(tmp_path / "model_best.pth")
    assert (best["iteration"], best["metric"]["value"]) == (3, 50.0)
    assert "best/bbox/AP" not in rows(tmp_path)[0]  # NaN is no best

    at = (tmp_path / "model_best.pth").stat().st_mtime_ns
    seen = {}

    def look(iteration):
        seen[iteration] = (tmp_path / "model_best.pth").stat().st_mtime_ns

    with at_step(monkeypatch, look):
        run_main(tmp_path, opts, "--resume")
    assert min(seen) == 4
    assert set(seen.values()) == {at}  # worse, NaN and equal: none replaces it
    best = read(tmp_path / "model_best.pth")
    assert (best["iteration"], best["metric"]["value"]) == (11, 60.0)
    assert [row["best/bbox/AP"] for row in rows(tmp_path)[1:]] == [50, 50, 50, 50, 60]


def test_several_metrics_keep_a_best_model_each(opts, monkeypatch, tmp_path):
    script(monkeypatch, VALUES)
    both = ["BEST_CHECKPOINT.METRIC", "('bbox/AP', 'val/total_loss')"]
    run_main(tmp_path, [*opts, *both])
    losses = {row["iteration"]: row["val/total_loss"] for row in rows(tmp_path)}
    least = min(losses, key=losses.get)
    by_loss = read(tmp_path / "model_best_val_total_loss.pth")
    assert by_loss["metric"] == {"name": "val/total_loss", "value": losses[least], "mode": "min"}
    assert by_loss["iteration"] == least
    assert read(tmp_path / "model_best.pth")["iteration"] == 7
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_choosing_by_a_dataset_named_as_test_warns_once(opts, tmp_path):
    entry = "DATASETS.REGISTER.thermal_test"
    named = [f"{entry}.FORMAT", "synthetic", f"{entry}.ANNOTATIONS", "synthetic/test20.json"]
    named += [f"{entry}.IMAGES", "synthetic/images", "DATASETS.TEST", "('thermal_test',)"]
    few = ["SOLVER.MAX_ITER", "4", *stopping("val/total_loss", 5)]
    run_main(tmp_path, [*opts, *named, *few])
    log = log_of(tmp_path)
    assert log.count("named as test") == 1
    assert (
        "thermal_test is named as test, but chooses the best model (by bbox/AP) and when to" in log
    )


@pytest.mark.parametrize("section", ["EARLY_STOPPING", "BEST_CHECKPOINT"])
def test_an_absent_metric_lists_those_that_are_there(opts, tmp_path, section):
    value = "('bbox/AP99',)" if section == "BEST_CHECKPOINT" else "bbox/AP99"
    with pytest.raises(ConfigError) as caught:
        run_main(tmp_path, [*opts, f"{section}.METRIC", value])
    told = str(caught.value)
    assert told.startswith(f"{section}.METRIC bbox/AP99 was not logged by the evaluation after ")
    assert "iteration 1; name one of those that are there: MR/far/all, " in told
    assert " MR/reasonable/all, " in told
    assert " bbox/AP, bbox/AP-person, " in told
    assert told.endswith("val/total_loss")
    assert read(tmp_path / "model_0000001.pth")["pending"] is True  # nothing trained is lost


@pytest.fixture(scope="module")
def unmeasured(opts, without_pictures, tmp_path_factory):
    """The folder of six steps without any validation or evaluation."""
    output = tmp_path_factory.mktemp("unmeasured")
    run_main(output, [*opts, "SOLVER.MAX_ITER", "6", "DATASETS.TEST", "()"])
    assert checkpoints(output) == ["model_final.pth"]
    return output


@pytest.mark.parametrize(("period", "measured"), [(0, [5]), (1, [*range(6)]), (4, [3, 5])])
def test_validation_loss_changes_no_weight(
    opts, unmeasured, monkeypatch, tmp_path, period, measured
):
    script(monkeypatch, {5: 1.0})
    settings = ["SOLVER.MAX_ITER", "6", "TEST.EVAL_PERIOD", "0", "VALIDATION.PERIOD", str(period)]
    run_main(tmp_path, [*opts, *settings])
    assert_same_weights(tmp_path, unmeasured)
    states = [read(folder / "model_final.pth")["trainer"] for folder in (tmp_path, unmeasured)]
    assert_equal(*(state["_trainer"] for state in states), "optimizer, random generators")
    assert [row["iteration"] for row in rows(tmp_path) if "val/total_loss" in row] == measured


def test_a_validation_loss_that_left_a_trace_would_be_noticed(
    opts, unmeasured, monkeypatch, tmp_path
):
    monkeypatch.setattr(ForwardState, "restore", lambda self: None)
    monkeypatch.setattr("d2pd.training.validation.loss_mode", lambda model: torch.no_grad())
    settings = ["SOLVER.MAX_ITER", "6", "TEST.EVAL_PERIOD", "0", "VALIDATION.PERIOD", "1"]
    run_main(tmp_path, [*opts, *settings])
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path, unmeasured)
