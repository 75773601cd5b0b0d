"""Whole runs whose files are damaged, lost or of another run, and what a resume makes of it."""

import errno
import logging
import os
import shutil

import pytest
import torch
import yaml
from checkpoint_toys import cut, flip
from run_toys import (
    TINY,
    TinyBackbone,
    assert_equal,
    assert_same_run,
    assert_same_weights,
    at_step,
    checkpoints,
    copied_before_steps,
    log_of,
    read,
    rows,
    run_main,
    times,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from d2pd.d2 import BACKBONE_REGISTRY
from d2pd.errors import UserError, WeightsError
from d2pd.evaluation.evaluators import CocoEvaluator

pytestmark = pytest.mark.usefixtures("without_pictures")

STEPS = 8


@pytest.fixture(scope="module")
def opts(quick_opts):
    """Evaluated after iterations 3 and 7, saved there and after 1 and 5."""
    settings = ["SOLVER.MAX_ITER", str(STEPS), "TEST.EVAL_PERIOD", "4"]
    return [*quick_opts, *TINY, *settings, "SOLVER.CHECKPOINT_PERIOD", "2", "CHECKPOINT.KEEP", "2"]


def mirrored(mirror):
    return ["CHECKPOINT.MIRROR_DIR", str(mirror)]


@pytest.fixture(scope="module")
def copies(opts, without_pictures, tmp_path_factory):
    """Copies of a run before each of its steps: ``<step>/run``, ``<step>/mirror`` beside it."""
    base = tmp_path_factory.mktemp("storage")
    (base / "mirror").mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        copied_before_steps(patch, base / "run", base / "copies", also=[base / "mirror"]),
    ):
        run_main(base / "run", [*opts, *mirrored(base / "mirror")])
    return base / "copies"


@pytest.fixture(scope="module")
def whole(copies):
    """The folder of that run at its end."""
    return copies.parent / "run"


@pytest.fixture
def killed(copies, tmp_path):
    """Give a copy of the run as a kill before a step would leave it."""

    def copy(step):
        return shutil.copytree(copies / str(step) / "run", tmp_path / "killed")

    return copy


def test_period_and_keep_say_what_is_there(copies, whole):
    saved = {step: checkpoints(copies / str(step) / "run") for step in range(STEPS)}
    best = ["model_best.pth"]
    assert saved[1] == []
    assert saved[2] == saved[3] == ["model_0000001.pth"]
    assert saved[4] == saved[5] == ["model_0000001.pth", "model_0000003.pth", *best]
    assert saved[6] == saved[7] == ["model_0000003.pth", "model_0000005.pth", *best]
    ended = ["model_0000005.pth", "model_0000007.pth", *best, "model_final.pth"]
    assert checkpoints(whole) == checkpoints(copies.parent / "mirror") == sorted(ended)
    assert (copies / "6/run/last_checkpoint").read_text() == "model_0000005.pth"


def test_warning_of_each_evaluation_is_logged_once(opts, tmp_path, monkeypatch):
    said = []

    def warn(evaluator, *_):
        said.append("AP is NaN")
        logging.getLogger(CocoEvaluator.__module__).warning(said[-1])

    monkeypatch.setattr(CocoEvaluator, "_log", warn)
    run_main(tmp_path, opts)
    assert len(said) == 2
    assert log_of(tmp_path).count("AP is NaN") == 1


def test_keep_0_keeps_all(opts, tmp_path):
    run_main(tmp_path, [*opts, "CHECKPOINT.KEEP", "0", "TEST.EVAL_PERIOD", "0"])
    numbered = [f"model_000000{number}.pth" for number in (1, 3, 5, 7)]
    assert checkpoints(tmp_path) == [*numbered, "model_best.pth", "model_final.pth"]


def flip_in_the_middle(path):
    flip(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, flip_in_the_middle, empty])
def test_a_damaged_newest_checkpoint_costs_steps_and_no_bit(opts, whole, killed, harm):
    output = killed(6)
    harm(output / "model_0000005.pth")
    run_main(output, opts, "--resume")
    log = log_of(output)
    passed_over = [line for line in log.splitlines() if "going on from model_0000003.pth" in line]
    assert len(passed_over) == 1
    assert " WARNING: model_0000005.pth " in passed_over[0]
    assert "The run goes on exactly" in log
    assert_same_run(output, whole)


def test_no_whole_checkpoint_is_an_error_and_no_start_at_0(opts, killed):
    output = killed(6)
    for path in output.glob("model_0*.pth"):
        cut(path)
    before = times(output)
    with pytest.raises(UserError, match=r"model_0000005\.pth .*model_0000003\.pth"):
        run_main(output, opts, "--resume")
    assert times(output) == before


def test_the_mirror_alone_brings_everything_back(opts, copies, whole, tmp_path):
    mirror = shutil.copytree(copies / "7/mirror", tmp_path / "mirror")
    assert "metrics.json" in os.listdir(mirror)
    output = tmp_path / "new"
    run_main(output, [*opts, *mirrored(mirror)], "--resume")
    assert f"in the mirror {mirror}, iteration 5" in log_of(output)
    assert_same_run(output, whole)
    assert [row["iteration"] for row in rows(output)] == [3, 7]
    assert (mirror / "model_final.pth").read_bytes() == (output / "model_final.pth").read_bytes()
    for name in ("metrics.json", "results.json", "model_best.pth"):
        assert (mirror / name).read_bytes() == (output / name).read_bytes()


def test_a_mirror_with_more_than_the_folder_is_gone_on_from(opts, copies, whole, killed):
    output = killed(2)
    mirror = shutil.copytree(copies / "7/mirror", output.parent / "mirror")
    run_main(output, [*opts, *mirrored(mirror)], "--resume")
    assert f"going on from model_0000005.pth in the mirror {mirror}" in log_of(output)
    assert_same_weights(output, whole)


def test_a_mirror_that_vanishes_is_a_warning_and_one_more_at_the_end_and_nothing_is_lost(
    opts, whole, monkeypatch, tmp_path
):
    output, mirror = tmp_path / "run", tmp_path / "mirror"
    mirror.mkdir()

    def unplug(iteration):
        if iteration == 4:
            assert (mirror / "model_0000003.pth").is_file()
            shutil.rmtree(mirror)

    with at_step(monkeypatch, unplug):
        run_main(output, [*opts, *mirrored(mirror)])
    assert_same_run(output, whole)
    log = log_of(output)
    assert log.count("is not up to date (there is no such folder)") == 1
    assert log.count(f"the mirror {mirror} lacks what came last") == 1
    assert not mirror.exists()


def test_a_full_disk_ends_the_run_in_one_line_and_costs_nothing(opts, whole, monkeypatch, tmp_path):
    output, sync, saves = tmp_path / "run", os.fsync, []

    def fill(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        saves.append(path) if path.endswith(".pth.part") else None
        if len(saves) >= 2 and path.startswith(f"{output}/"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        with pytest.raises(UserError) as caught:
            run_main(output, opts)
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith(f"cannot write the checkpoint {output}/model_0000003.pth ([Errno 28] No")
    assert "make room or choose another OUTPUT_DIR" in told
    assert [path.name for path in output.rglob("*model*")] == ["model_0000001.pth"]
    assert_equal(read(output / "model_0000001.pth")["iteration"], 1, "iteration")

    run_main(output, opts, "--resume")
    assert "going on from model_0000001.pth, iteration 1" in log_of(output)
    assert_same_run(output, whole)


def test_the_scalars_of_detectron2_are_in_metrics_json(whole):
    names = {
        *("fast_rcnn/cls_accuracy", "fast_rcnn/fg_cls_accuracy", "fast_rcnn/false_negative"),
        *("rpn/num_pos_anchors", "rpn/num_neg_anchors"),
        *("roi_head/num_fg_samples", "roi_head/num_bg_samples"),
    }
    last = rows(whole)[-1]
    assert names <= set(last)
    assert last["rpn/num_pos_anchors"] > 0
    assert 0 <= last["fast_rcnn/cls_accuracy"] <= 1


def as_stock_writes_it(content):
    """Leave of a checkpoint what stock Detectron2's trainer has in its own."""
    trainer = content["trainer"]
    optimizer = trainer["_trainer"]["optimizer"]
    for group in optimizer["param_groups"]:
        del group["param_names"]
    schedule = trainer["hooks"]["LRScheduler"]
    stock = {"iteration": trainer["iteration"], "hooks": {"LRScheduler": schedule}}
    stock["_trainer"] = {"iteration": trainer["_trainer"]["iteration"], "optimizer": optimizer}
    return {"model": content["model"], "trainer": stock, "iteration": content["iteration"]}


def test_a_final_model_of_stock_detectron2_alone_is_gone_on_from(opts, copies, whole, tmp_path):
    content = as_stock_writes_it(read(copies / "6/run/model_0000005.pth"))
    torch.save(content, tmp_path / "model_final.pth")
    run_main(tmp_path, opts, "--resume")
    assert "going on from model_final.pth, iteration 5" in log_of(tmp_path)
    assert "does not say what run it is of" in log_of(tmp_path)
    assert_same_weights(tmp_path, whole)
    assert [row["iteration"] for row in rows(tmp_path)] == [7]


@BACKBONE_REGISTRY.register()
def build_other_backbone(cfg, input_shape):
    """Build one whose weights have the same names and shapes."""
    return TinyBackbone()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (["MODEL.BACKBONE.NAME", "build_other_backbone"], "MODEL.BACKBONE.NAME"),
        (["MODEL.ROI_BOX_HEAD.FC_DIM", "16"], "MODEL.ROI_BOX_HEAD.FC_DIM: 32 -> 16"),
        (["SOLVER.OPTIMIZER", "SGD"], 'SOLVER.OPTIMIZER: "AdamW" -> "SGD"'),
    ],
)
def test_another_model_is_refused_before_anything_is_written(opts, killed, other, named):
    output = killed(6)
    before = times(output)
    with pytest.raises(WeightsError, match="is of another model") as caught:
        run_main(output, [*opts, *other], "--resume")
    assert named in str(caught.value)
    assert times(output) == before


def test_another_class_list_is_refused_before_anything_is_written(
    opts, drawn_root, killed, tmp_path
):
    output, root = killed(6), shutil.copytree(drawn_root, tmp_path / "renamed")
    classes = ["DATASETS.ROOT", str(root)]
    for name, split in (("synthetic_train", "train20"), ("synthetic_val", "test20")):
        file = root / f"synthetic/{split}.json"
        labels = file.read_text()
        file.write_text(labels.replace('"person"', '"walker"'))
        assert file.read_text() != labels
        classes += [f"DATASETS.REGISTER.{name}.CLASSES", "['walker']"]
    before = times(output)
    with pytest.raises(WeightsError, match="is of another model") as caught:
        run_main(output, [*opts, *classes], "--resume")
    assert 'classes: ["person"] -> ["walker"]' in str(caught.value)
    assert times(output) == before


def test_a_longer_training_goes_on_and_says_that_it_is_no_longer_exact(opts, killed):
    output = killed(6)
    run_main(output, [*opts, "SOLVER.MAX_ITER", "10"], "--resume")
    assert " WARNING: No longer exact: SOLVER.MAX_ITER: 8 -> 10" in log_of(output)
    assert "The run goes on exactly" not in log_of(output)
    assert read(output / "model_final.pth")["iteration"] == 9
    assert [row["iteration"] for row in rows(output)] == [3, 7, 9]


def test_other_periods_are_told_and_change_no_weight(opts, whole, killed):
    output = killed(6)
    run_main(output, [*opts, "TEST.EVAL_PERIOD", "1", "CHECKPOINT.KEEP", "0"], "--resume")
    told = "Changes what is measured and decided from here on, no weights: TEST.EVAL_PERIOD: 4 -> 1"
    assert told in log_of(output)
    assert_same_weights(output, whole)
    assert [row["iteration"] for row in rows(output) if "bbox/AP" in row] == [3, 6, 7]


def test_what_is_no_longer_wanted_of_a_checkpoint_is_told_in_words(opts, whole, killed):
    """A pending evaluation that other periods have none of, and the state of hooks left out."""
    output = killed(4)
    content = read(output / "model_0000003.pth")
    content["pending"] = True
    content["trainer"]["hooks"]["EarlyStopping"] = {}
    torch.save(content, output / "model_0000003.pth")
    run_main(output, [*opts, "TEST.EVAL_PERIOD", "3"], "--resume")
    log = log_of(output)
    assert "iteration 3 was pending; with the periods of now there is none" in log
    assert "it comes first" not in log
    assert "EarlyStopping is not part of this run any more: what it had decided is forgott" in log
    assert "There is no hook" not in log
    assert "Cannot find the hook" not in log
    assert_same_weights(output, whole)


def test_a_killed_run_is_not_started_over_unless_that_is_asked_for(opts, whole, killed):
    output = killed(6)
    (output / "notes.txt").write_text("mine")
    before = times(output)
    with pytest.raises(UserError, match="already holds a run"):
        run_main(output, opts)
    assert times(output) == before

    run_main(output, opts, "--overwrite")
    assert_same_run(output, whole)
    assert checkpoints(output) == checkpoints(whole)
    assert (output / "notes.txt").read_text() == "mine"
    assert (output / "run.log").read_text().count("=== started") == 1
    assert len(list(output.glob("events.out.tfevents.*"))) == 1


def test_a_mirror_that_holds_a_run_is_not_written_over(opts, copies, tmp_path):
    mirror = shutil.copytree(copies / "7/mirror", tmp_path / "mirror")
    before = times(mirror)
    with pytest.raises(UserError, match=r"CHECKPOINT\.MIRROR_DIR .* already holds a run"):
        run_main(tmp_path / "new", [*opts, *mirrored(mirror)])
    assert times(mirror) == before
    assert not (tmp_path / "new").exists()


def test_epochs_become_iterations_once(opts, tmp_path):
    # Six iterations of two images see each of twelve once.
    lengths = ["SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "1", "TEST.EVAL_PERIOD", "1"]
    epochs = [*opts, *lengths, "SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.UNIT", "epoch"]
    run_main(tmp_path, epochs)
    cfg = yaml.safe_load((tmp_path / "config.yaml").read_text())
    solver = cfg["SOLVER"]
    assert (solver["UNIT"], solver["MAX_ITER"], solver["WARMUP_ITERS"]) == ("iter", 12, 6)
    assert (solver["CHECKPOINT_PERIOD"], cfg["TEST"]["EVAL_PERIOD"]) == (6, 6)
    assert [row["iteration"] for row in rows(tmp_path)] == [5, 11]
    assert "SOLVER.MAX_ITER 2 epochs = 12 iterations of 2 images" in log_of(tmp_path)

    run_main(tmp_path, epochs, "--resume")
    assert "all 12 iterations are done" in log_of(tmp_path)


def test_event_files_hold_every_step_once_after_going_back_behind_a_row(
    opts, copies, whole, killed
):
    output = killed(6)
    shutil.copy(copies / "2/run/model_0000001.pth", output)
    for name in ("model_0000003.pth", "model_0000005.pth"):
        cut(output / name)
    assert [row["iteration"] for row in rows(output)] == [3]
    with (output / "metrics.json").open("a") as file:
        file.write('{"iteration": 4, "total_loss": 9.0}\n{"iteration": 5, "total_l')
    run_main(output, opts, "--resume")
    assert "going on from model_0000001.pth, iteration 1" in log_of(output)
    assert "cut 2 rows after iteration 1 and 1 that were not whole" in log_of(output)
    assert_same_run(output, whole)

    assert len(list(output.glob("events.out.tfevents.*"))) == 2
    events = EventAccumulator(str(output))
    events.Reload()
    names = set(rows(output)[0]) - {"iteration"}
    assert names <= set(events.Tags()["scalars"])
    for name in names:
        found, told = events.Scalars(name), rows(output)
        assert [event.step for event in found] == [row["iteration"] for row in told], name
        values = [row[name] for row in told]
        assert [event.value for event in found] == pytest.approx(values, rel=1e-6, nan_ok=True)
