import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_toys import Model, Run, assert_same_model, cut, flip, resumed, stock_content
from torchvision.models import resnet18

from d2pd.d2 import DetectionCheckpointer
from d2pd.errors import MissingFileError, UserError, WeightsError
from d2pd.training.checkpoints.archive import check_archive, read_seal
from d2pd.training.checkpoints.checkpoint_choice import choose_checkpoint
from d2pd.training.checkpoints.checkpointer import Checkpointer


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_resumed_run_goes_on_exactly(tmp_path, order):
    first = Run(tmp_path).train(5)
    first.save()
    second = Run(tmp_path, order, seed=9)
    rest = second.checkpointer.resume_or_load("", resume=True)
    assert rest == {"iteration": 4, "pending": False}
    assert (second.iter, second.schedule.last_epoch) == (4, 5)
    first.train(5)
    second.train(5)
    assert_same_model(first.model, second.model)
    assert second.optimizer.param_groups[0]["lr"] == first.optimizer.param_groups[0]["lr"]


def test_an_optimizer_given_by_itself_is_matched_by_name_too(tmp_path):
    first = Run(tmp_path).train(3)
    Checkpointer(first.model, str(tmp_path), optimizer=first.optimizer).save("w")
    other = Model(("b", "a"))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    Checkpointer(other, optimizer=optimizer).load(str(tmp_path / "w.pth"))
    torch.testing.assert_close(
        optimizer.state[other.a.weight], first.optimizer.state[first.model.a.weight]
    )


def test_the_file_is_detectron2s_and_each_reads_the_other(tmp_path):
    run = Run(tmp_path).train(2)
    content = torch.load(run.save(), weights_only=True)
    assert list(content["trainer"]) == ["iteration", "hooks", "_trainer"]

    theirs = Run(tmp_path / "d2", seed=5)
    stock = DetectionCheckpointer(theirs.model, str(tmp_path), trainer=theirs)
    assert stock.resume_or_load("", resume=True)["iteration"] == 1
    assert_same_model(theirs.model, run.model)

    (tmp_path / "d2").mkdir()
    theirs.train(2)
    stock.save_dir = str(tmp_path / "d2")
    stock.save("model_0000003", iteration=3)
    ours = Run(tmp_path / "d2", seed=6)
    assert ours.checkpointer.resume_or_load("", resume=True) == {"iteration": 3}
    assert_same_model(ours.model, theirs.model)
    assert ours.iter == 3


def test_weights_alone_leave_the_run_at_its_start(tmp_path):
    path = Run(tmp_path).train(3).save()
    run = Run(tmp_path / "new", seed=4)
    run.checkpointer.resume_or_load(str(path), resume=False)
    assert run.iter == -1
    assert not run.optimizer.state
    assert_same_model(run.model, torch_model(path))


def torch_model(path):
    model = Model()
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    return model


def test_no_weights_change_nothing(tmp_path):
    run = Run(tmp_path)
    assert run.checkpointer.resume_or_load("", resume=False) == {}
    assert_same_model(run.model, Run(tmp_path).model)


def test_a_detector_on_other_classes_lists_what_starts_anew(tmp_path, build_detector, caplog):
    source, model = build_detector(num_classes=80, seed=1), build_detector(num_classes=1)
    Checkpointer(source, str(tmp_path)).save("coco")
    before = model.roi_heads.box_predictor.cls_score.weight.clone()
    with caplog.at_level(logging.INFO):
        Checkpointer(model).load(str(tmp_path / "coco.pth"), checkpointables=[])
    assert "roi_heads.box_predictor.cls_score.weight (81x32 in the file, 2x32 here)" in caplog.text
    assert torch.equal(model.roi_heads.box_predictor.cls_score.weight, before)
    box_heads = source.roi_heads.box_head, model.roi_heads.box_head
    assert torch.equal(box_heads[0].fc1.weight, box_heads[1].fc1.weight)


def test_a_torchvision_backbone_is_loaded_and_its_pixels_are_warned_of(
    tmp_path, build_detector, caplog
):
    source, model = resnet18(weights=None), build_detector(norm="BN")
    torch.save(source.state_dict(), tmp_path / "r18.pth")
    with caplog.at_level(logging.INFO):
        Checkpointer(model).load(str(tmp_path / "r18.pth"))
    conv = model.backbone.bottom_up.res5[1].conv2.weight
    assert torch.equal(conv, source.layer4[1].conv2.weight)
    assert "100% of the parameters of backbone.bottom_up" in caplog.text
    assert "set INPUT.FORMAT RGB" in caplog.text


def test_folded_norms_without_statistics_get_neutral_ones(tmp_path, build_detector):
    model = build_detector(norm="FrozenBN")
    state = model.backbone.bottom_up.state_dict()
    arrays = {name: t.numpy() for name, t in state.items() if "running" not in name}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "a"}))
    norm = model.backbone.bottom_up.stem.conv1.norm
    norm.running_mean.fill_(3)
    Checkpointer(model).load(str(tmp_path / "w.pkl"))
    assert norm.running_mean.eq(0).all()


def test_norms_that_a_newer_file_lacks_are_reported_and_kept(tmp_path, build_detector, caplog):
    model = build_detector(norm="FrozenBN")
    name = "backbone.bottom_up.stem.conv1.norm.running_mean"
    state = model.state_dict()
    del state[name]
    torch.save(state, tmp_path / "w.pth")  # with the version of each module
    model.backbone.bottom_up.stem.conv1.norm.running_mean.fill_(3)
    Checkpointer(model).load(str(tmp_path / "w.pth"))
    assert f"These are not in w.pth: {name}" in caplog.text
    assert model.backbone.bottom_up.stem.conv1.norm.running_mean.eq(3).all()


class Touch:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("is_pickle", [True, False])
def test_hostile_files_are_refused_and_nothing_happens(tmp_path, resume, is_pickle):
    run = Run(tmp_path)
    content = {"model": run.model.state_dict(), "trainer": Touch(tmp_path / "touched")}
    path = tmp_path / "model_final.pth"
    path.write_bytes(pickle.dumps(content)) if is_pickle else torch.save(content, path)
    with pytest.raises(WeightsError, match="could run code, so nothing was loaded") as caught:
        run.checkpointer.resume_or_load(str(path), resume=resume)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()


def test_a_hostile_newest_checkpoint_is_passed_over(tmp_path, caplog):
    run = Run(tmp_path).train(2)
    run.save()
    content = {"model": run.model.state_dict(), "trainer": Touch(tmp_path / "touched")}
    torch.save(content, tmp_path / "model_0000005.pth")
    assert resumed(tmp_path).iter == 1
    assert "model_0000005.pth asks for posix.mkdir" in caplog.text
    assert not (tmp_path / "touched").exists()


def test_files_and_marks_of_a_training(tmp_path):
    run = Run(tmp_path, run={"engine": "toy"}).train(3)
    content = torch.load(run.save(pending=True), weights_only=True)
    assert list(content) == ["model", "trainer", "iteration", "pending", "run"]
    assert (content["iteration"], content["pending"]) == (2, True)
    assert content["run"] == {"engine": "toy"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    assert torch.load(run.save(), weights_only=True)["pending"] is False
    final = torch.load(run.save_final(), weights_only=True)
    assert list(final) == list(content)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert sorted(os.listdir(tmp_path)) == [
        *("last_checkpoint", "model_0000002.pth", "model_final.pth")
    ]


def test_every_file_is_sealed(tmp_path):
    run = Run(tmp_path).train(1)
    for path in (run.save(), run.save_final(), run.save_best()):
        check_archive(path)
        assert read_seal(path) is not None


def test_the_best_model_is_its_weights_and_why_they_are_kept(tmp_path):
    run = Run(tmp_path).train(2)
    run.save()
    content = torch.load(run.save_best("model_best_bbox-AP"), weights_only=True)
    assert list(content) == ["model", "metric", "iteration", "config"]
    assert content["metric"] == {"name": "bbox/AP", "value": 31.5, "mode": "max"}
    assert (content["iteration"], content["config"]) == (1, "A: 1")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    model = Model()
    Checkpointer(model).load(str(tmp_path / "model_best_bbox-AP.pth"))
    assert_same_model(model, run.model)


def test_a_best_model_cannot_take_the_name_of_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="model_best"):
        Run(tmp_path).save_best("model_final")
    assert os.listdir(tmp_path) == []


def test_best_models_are_no_checkpoint_to_go_on_from(tmp_path):
    run = Run(tmp_path).train(1)
    run.save_best()
    assert not run.checkpointer.has_checkpoint()
    with pytest.raises(MissingFileError, match="cannot resume: no model_<iteration>.pth"):
        run.checkpointer.resume()


def test_detectron2s_own_hooks_may_save_too(tmp_path):
    run = Run(tmp_path).train(1)
    run.checkpointer.save("model_0000000", iteration=0)
    run.checkpointer.save("model_best", bbox=3.0)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000000.pth"
    assert resumed(tmp_path).iter == 0


def test_only_the_newest_are_kept(tmp_path):
    run = Run(tmp_path, keep=2)
    for _ in range(4):
        run.train(1).save()
    run.save_best()
    run.save_final()
    assert sorted(os.listdir(tmp_path)) == [
        *("last_checkpoint", "model_0000002.pth", "model_0000003.pth"),
        *("model_best.pth", "model_final.pth"),
    ]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newer_file_does_not_cost_the_one_just_written(tmp_path, keep):
    run = Run(tmp_path).train(3)
    run.save()
    cut(run.train(7).save())
    again = resumed(tmp_path, keep=keep)
    assert again.iter == 2
    again.train(2).save()
    assert resumed(tmp_path).iter == 4
    again.train(6).save()  # past the damaged one
    assert resumed(tmp_path).iter == 10


def test_a_longer_training_goes_on_from_the_final_model(tmp_path):
    first = Run(tmp_path).train(4)
    first.save_final()
    second = resumed(tmp_path)
    assert_same_model(second.train(3).model, first.train(3).model)


def test_the_newest_whole_checkpoint_is_resumed_and_the_log_says_why(tmp_path, caplog):
    run = Run(tmp_path).train(800)
    whole = run.save()
    broken = run.train(200).save()
    flip(broken, broken.read_bytes().index(run.model.a.weight.detach().numpy().tobytes()) + 2)
    with caplog.at_level(logging.INFO):
        again = resumed(tmp_path)
    assert again.iter == 799
    found = [r for r in caplog.records if r.name == "d2pd.training.checkpoints.checkpoint_choice"]
    assert found[0].levelno == logging.WARNING
    assert found[0].getMessage() == (
        "model_0000999.pth is damaged (checksum of data/0 differs): going on from "
        "model_0000799.pth, iteration 799"
    )
    assert whole.exists()
    assert broken.exists()  # nothing is thrown away


def test_a_newer_file_than_the_tag_names_is_taken(tmp_path, caplog):
    run = Run(tmp_path).train(1)
    first = run.save()
    run.train(1).save()
    (tmp_path / "last_checkpoint").write_text(first.name)  # as a kill before the tag leaves it
    with caplog.at_level(logging.INFO):
        assert resumed(tmp_path).iter == 1
    assert f"last_checkpoint names {first.name}, and the newest whole" in caplog.text


@pytest.mark.parametrize(
    "tag", [b"../model_0000001.pth", b"/etc/passwd", b"a\\b", b"\xff\x00" * 999, b".", b"", None]
)
def test_what_the_tag_holds_does_not_matter(tmp_path, tag, caplog):
    Run(tmp_path).train(1).save()
    (tmp_path / "last_checkpoint").unlink()
    if tag is not None:
        (tmp_path / "last_checkpoint").write_bytes(tag)
    with caplog.at_level(logging.INFO):
        assert resumed(tmp_path).iter == 0
    assert "last_checkpoint names" not in caplog.text


def test_nothing_to_resume_is_an_error_and_not_a_start(tmp_path):
    with pytest.raises(MissingFileError, match="cannot resume: .*start one without --resume"):
        Run(tmp_path).checkpointer.resume_or_load("", resume=True)
    with pytest.raises(MissingFileError, match="cannot resume"):
        Run("").checkpointer.resume()


def test_an_evaluation_takes_the_newest_weights_or_else_those_given(tmp_path):
    trained, other = Run(tmp_path / "a").train(3), Run(tmp_path / "b", seed=3).train(1)
    trained.save()
    path = other.save()
    for folder, expected in ((tmp_path / "a", trained), (tmp_path / "none", other)):
        model = Model()
        Checkpointer(model, str(folder)).resume_or_load(str(path), resume=True)
        assert_same_model(model, expected.model)


def test_an_evaluation_takes_a_final_model_of_weights_alone(tmp_path):
    run = Run(tmp_path).train(1)
    run.save()
    torch.save(run.train(1).model.state_dict(), tmp_path / "model_final.pth")
    model = Model()
    Checkpointer(model, str(tmp_path)).resume_or_load("", resume=True)
    assert_same_model(model, run.model)


def test_a_hand_copied_final_model_of_stock_detectron2_is_resumed(tmp_path, caplog):
    theirs = Run(tmp_path / "theirs").train(5)
    (tmp_path / "ours").mkdir()
    torch.save(stock_content(theirs), tmp_path / "ours/model_final.pth")
    again = resumed(tmp_path / "ours")
    assert again.iter == 4
    assert "no parameter names" in caplog.text
    assert_same_model(again.train(3).model, theirs.train(3).model)


def test_a_checkpoint_of_another_model_is_not_resumed(tmp_path):
    Run(tmp_path, classes=5).train(1).save()
    with pytest.raises(WeightsError, match=r"of another model: 2 parameters differ, such as last"):
        resumed(tmp_path, classes=2)


def test_weights_without_a_training_are_not_resumed(tmp_path):
    Checkpointer(Model(), str(tmp_path)).save("model_final")
    with pytest.raises(WeightsError, match=r"without the state of a training \(trainer\).*WEIGHTS"):
        resumed(tmp_path)


def test_a_state_that_the_training_cannot_take_up_is_one_line(tmp_path):
    run = Run(tmp_path).train(1)
    state = run.state_dict()
    del state["hooks"]
    torch.save({"model": run.model.state_dict(), "trainer": state}, tmp_path / "model_final.pth")
    with pytest.raises(WeightsError, match=r"cannot take up \(KeyError: 'hooks'\)") as caught:
        resumed(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"MODEL\.WEIGHTS .*nowhere\.pth"):
        Run(tmp_path).checkpointer.load(str(tmp_path / "nowhere.pth"))


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path):
    torch.save({"a.weight": torch.ones(3, 3), "z": torch.ones(1)}, tmp_path / "w.pth")
    run = Run(tmp_path)
    with pytest.raises(WeightsError, match="does not fit"):
        run.checkpointer.load(str(tmp_path / "w.pth"))
    assert_same_model(run.model, Run(tmp_path).model)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from checkpoint_toys import Run
from d2pd import atomic_file
from d2pd.training.checkpoints import checkpoint_file

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def die_half_way(data, file):
    file.write(b"half")
    file.flush()
    die()

def save_twice(moment):
    run = Run(Path(sys.argv[1], moment)).train(2)
    run.save()
    run.train(8)
    if moment == "writing":
        checkpoint_file.torch.save = die_half_way
    elif moment == "renaming":
        atomic_file.os.replace = die
    else:
        checkpoint_file.write_tag = die
    run.save()

for moment in ("writing", "renaming", "tagging"):
    child = os.fork()
    if not child:
        save_twice(moment)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""


def run_script(script, *args):
    """Run a script that knows the toys; return what it prints."""
    command = [sys.executable, "-c", script, *map(str, args)]
    done = subprocess.run(command, timeout=300, check=True, capture_output=True, text=True)
    return done.stdout


def test_a_kill_while_saving_costs_at_most_that_checkpoint(tmp_path):
    run_script(KILLED, tmp_path, Path(__file__).parent)
    for moment, iteration in (("writing", 1), ("renaming", 1), ("tagging", 9)):
        folder = tmp_path / moment
        assert (folder / "last_checkpoint").read_text() == "model_0000001.pth"
        again = resumed(folder)
        assert again.iter == iteration
        again.train(1).save()
        assert not list(folder.glob(".*.part"))  # the half file is cleared away


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from checkpoint_toys import Run
from d2pd.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for share in (0, 1, 3, 7, 9):
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    run = Run(Path(sys.argv[1], str(share))).train(1)
    size = run.save().stat().st_size
    limits = (size * share // 10, resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    try:
        run.train(1).save()
    except UserError as error:
        print(error)
"""


def test_a_disk_that_is_really_full_leaves_the_checkpoint_before(tmp_path):
    lines = run_script(FULL, tmp_path, Path(__file__).parent).splitlines()
    assert len(lines) == 5
    assert all("1.pth ([Errno 27] File too large): make room" in line for line in lines)
    for folder in tmp_path.iterdir():
        assert sorted(os.listdir(folder)) == ["last_checkpoint", "model_0000000.pth"]
        assert resumed(folder).iter == 0


class FullDisk:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, content):
        self.room -= len(content)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(content)


@pytest.mark.parametrize("room", [0, 1, 100, 5000])
def test_a_disk_that_fills_is_one_line_and_the_checkpoint_before_stays(tmp_path, monkeypatch, room):
    run = Run(tmp_path).train(1)
    run.save()
    save = torch.save
    monkeypatch.setattr(
        "d2pd.training.checkpoints.checkpoint_file.torch.save",
        lambda content, file: save(content, FullDisk(file, room)),
    )
    with pytest.raises(UserError, match=r"cannot write .*0000001\.pth .*No space left") as caught:
        run.train(1).save()
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000000.pth"]


def test_what_reads_back_wrong_does_not_get_its_name(tmp_path, monkeypatch):
    run = Run(tmp_path).train(1)
    before = run.save().read_bytes()
    sync = os.fsync

    def spoil(handle):  # as a disk or a network drive may
        sync(handle)
        os.pwrite(handle, b"\0\1\2\3", os.fstat(handle).st_size // 2)

    with monkeypatch.context() as patch:
        patch.setattr("d2pd.atomic_file.os.fsync", spoil)
        with pytest.raises(UserError, match=r"0000000\.pth is not kept, .* is damaged") as caught:
            run.save()
    assert "\n" not in str(caught.value)
    assert (tmp_path / "model_0000000.pth").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000000.pth"]


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    run = Run(tmp_path, keep=1).train(1)
    run.save()
    run.train(1).model.a.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="not kept, .* a.weight holds numbers that are not finite"):
        run.save()
    assert resumed(tmp_path).iter == 0


def test_an_old_checkpoint_that_cannot_be_deleted_is_a_warning(tmp_path, monkeypatch, caplog):
    run = Run(tmp_path, keep=1).train(1)
    run.save()

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("d2pd.training.checkpoints.checkpointer.prune", refuse)
    run.train(1).save()
    assert "An old checkpoint cannot be deleted" in caplog.text
    assert resumed(tmp_path).iter == 1


def test_a_checkpointer_without_a_folder_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for checkpointer in (
        Checkpointer(Model()),
        Checkpointer(Model(), str(tmp_path), save_to_disk=False, mirror_dir=str(tmp_path / "m")),
    ):
        checkpointer.save("w")
        checkpointer.save_iteration(1, pending=False)
        checkpointer.save_final(1)
        checkpointer.save_best(
            "model_best", iteration=1, metric="m", value=1.0, mode="min", config_text=""
        )
    assert os.listdir(tmp_path) == []


def test_state_that_could_not_be_read_again_is_refused(tmp_path):
    with pytest.raises(TypeError, match="extra is a set"):
        Checkpointer(Model(), str(tmp_path)).save("w", extra={1})
    assert os.listdir(tmp_path) == []


def test_a_choice_made_before_is_not_made_again(tmp_path):
    run = Run(tmp_path).train(1)
    run.save()
    choice = choose_checkpoint(tmp_path)
    run.train(1).save()
    again = Run(tmp_path)
    assert again.checkpointer.resume(choice)["iteration"] == 0
    assert again.iter == 0
