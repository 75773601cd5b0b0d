import enum
import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from d2pd.d2 import DetectionCheckpointer
from d2pd.errors import MissingFileError, UserError, WeightsError
from d2pd.training.checkpoint import Checkpointer, plain


class Model(nn.Module):
    def __init__(self, order=("a", "b"), classes=2):
        super().__init__()
        for name in order:
            self.add_module(name, nn.Linear(3, 3))
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, classes)

    def forward(self, x):
        return self.last(self.norm(self.b(self.a(x))))


class Run:
    """A training with the state of Detectron2's trainer, nested as there."""

    def __init__(self, folder: Path, order=("a", "b"), classes=2, seed=0, steps=20):
        torch.manual_seed(seed)
        self.model = Model(order, classes)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.iter = 0
        self.checkpointer = Checkpointer(self.model, str(folder), trainer=self)

    def train(self, steps):
        for _ in range(steps):
            torch.manual_seed(self.iter)
            loss = self.model(torch.randn(4, 3)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.iter += 1
        return self

    def save(self, name=None):
        name = name or f"model_{self.iter:07d}"
        self.checkpointer.save(name, iteration=self.iter)
        return Path(self.checkpointer.save_dir) / f"{name}.pth"

    def state_dict(self):
        return {
            "iteration": self.iter,
            "hooks": {"LRScheduler": self.schedule.state_dict()},
            "_trainer": {"optimizer": self.optimizer.state_dict()},
        }

    def load_state_dict(self, state):
        self.iter = state["iteration"]
        self.schedule.load_state_dict(state["hooks"]["LRScheduler"])
        self.optimizer.load_state_dict(state["_trainer"]["optimizer"])


def assert_same_model(one, other):
    theirs = other.state_dict()
    assert one.state_dict().keys() == theirs.keys()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_resumed_run_goes_on_exactly(tmp_path, order):
    first = Run(tmp_path).train(5)
    first.save()
    second = Run(tmp_path, order, seed=9)
    assert second.checkpointer.resume_or_load("", resume=True) == {"iteration": 5}
    assert (second.iter, second.schedule.last_epoch) == (5, 5)
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
    assert list(content) == ["model", "trainer", "iteration"]
    assert list(content["trainer"]) == ["iteration", "hooks", "_trainer"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"

    theirs = Run(tmp_path / "d2", seed=5)
    stock = DetectionCheckpointer(theirs.model, str(tmp_path), trainer=theirs)
    assert stock.resume_or_load("", resume=True) == {"iteration": 2}
    assert_same_model(theirs.model, run.model)

    (tmp_path / "d2").mkdir()
    theirs.train(2)
    stock.save_dir = str(tmp_path / "d2")
    stock.save("model_0000003", iteration=4)
    ours = Run(tmp_path / "d2", seed=6)
    assert ours.checkpointer.resume_or_load("", resume=True) == {"iteration": 4}
    assert_same_model(ours.model, theirs.model)
    assert ours.iter == 4


def test_weights_alone_leave_the_run_at_its_start(tmp_path):
    path = Run(tmp_path).train(3).save()
    run = Run(tmp_path / "new", seed=4)
    run.checkpointer.resume_or_load(str(path), resume=False)
    assert run.iter == 0
    assert not run.optimizer.state
    assert_same_model(run.model, torch_model(path))


def torch_model(path):
    model = Model()
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    return model


def test_no_weights_change_nothing(tmp_path):
    run = Run(tmp_path)
    assert run.checkpointer.resume_or_load("", resume=True) == {}
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
@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_hostile_files_are_refused_and_nothing_happens(tmp_path, resume, suffix):
    run = Run(tmp_path)
    content = {"model": run.model.state_dict(), "trainer": Touch(tmp_path / "touched")}
    path = tmp_path / f"w.{suffix}"
    torch.save(content, path) if suffix == "pth" else path.write_bytes(pickle.dumps(content))
    (tmp_path / "last_checkpoint").write_text(path.name)
    with pytest.raises(WeightsError, match="could run code, so nothing was loaded"):
        run.checkpointer.resume_or_load(str(path), resume=resume)
    assert not (tmp_path / "touched").exists()


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-400])


def test_a_truncated_newest_checkpoint_names_the_one_before(tmp_path):
    run = Run(tmp_path)
    whole = run.train(2).save()
    broken = run.train(2).save()
    truncate(broken)
    with pytest.raises(WeightsError) as caught:
        Run(tmp_path).checkpointer.resume_or_load("", resume=True)
    text = str(caught.value)
    assert "\n" not in text
    assert f"cannot resume: {broken} is cut off or damaged" in text
    assert f"{whole.name} (iteration 2) is whole: to go on from it, write that name into" in text
    assert broken.exists()  # nothing is thrown away

    (tmp_path / "last_checkpoint").write_text(whole.name)  # the advice works
    again = Run(tmp_path)
    again.checkpointer.resume_or_load("", resume=True)
    assert again.iter == 2


def test_a_truncated_only_checkpoint_says_that_there_is_no_other(tmp_path):
    truncate(Run(tmp_path).train(1).save())
    with pytest.raises(WeightsError, match="no other checkpoint in .* is whole: start anew"):
        Run(tmp_path).checkpointer.resume_or_load("", resume=True)


@pytest.mark.parametrize("tag", [None, "", "  \n"])
def test_checkpoints_that_nothing_names_are_not_passed_over(tmp_path, tag):
    path = Run(tmp_path).train(1).save()
    (tmp_path / "last_checkpoint").unlink()
    if tag is not None:
        (tmp_path / "last_checkpoint").write_text(tag)
    with pytest.raises(WeightsError, match=rf"no last_checkpoint.*{path.name} \(iteration 1\)"):
        Run(tmp_path).checkpointer.resume_or_load("", resume=True)


@pytest.mark.parametrize(
    "tag", [b"../model_0000001.pth", b"/etc/passwd", b"a\\b", b"\xff\x00", b"."]
)
def test_a_tag_that_is_no_name_of_a_file_of_the_folder_is_refused(tmp_path, tag):
    Run(tmp_path).train(1).save()
    (tmp_path / "last_checkpoint").write_bytes(tag)
    with pytest.raises(
        WeightsError, match="not the name of a file in .*model_0000001.pth"
    ) as caught:
        Run(tmp_path).checkpointer.resume_or_load("", resume=True)
    assert "\n" not in str(caught.value)


def test_an_empty_tag_is_no_checkpoint(tmp_path):
    (tmp_path / "last_checkpoint").write_text("")
    assert not Run(tmp_path).checkpointer.has_checkpoint()


def test_a_named_checkpoint_that_is_gone_is_an_error(tmp_path):
    run = Run(tmp_path).train(1)
    older = run.save()
    run.train(1).save().unlink()
    with pytest.raises(WeightsError, match=rf"0000002\.pth is not there.*{older.name}"):
        Run(tmp_path).checkpointer.resume_or_load("", resume=True)


def test_a_newer_checkpoint_than_the_named_one_is_warned_of(tmp_path, caplog):
    run = Run(tmp_path).train(1)
    first = run.save()
    second = run.train(1).save()
    os.utime(first, (1, 1))
    (tmp_path / "last_checkpoint").write_text(first.name)
    with caplog.at_level(logging.WARNING):
        Run(tmp_path).checkpointer.resume_or_load("", resume=True)
    assert f"last_checkpoint names {first.name}, though {second.name} is newer" in caplog.text


def test_a_checkpoint_of_another_model_is_not_resumed(tmp_path):
    Run(tmp_path, classes=5).train(1).save()
    with pytest.raises(WeightsError, match=r"of another model: 2 parameters differ, such as last"):
        Run(tmp_path, classes=2).checkpointer.resume_or_load("", resume=True)


def test_weights_without_a_training_are_not_resumed(tmp_path):
    Checkpointer(Model(), str(tmp_path)).save("model_final")
    with pytest.raises(WeightsError, match=r"without the state of a training \(trainer\).*WEIGHTS"):
        Run(tmp_path).checkpointer.resume_or_load("", resume=True)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"MODEL\.WEIGHTS .*nowhere\.pth"):
        Run(tmp_path).checkpointer.load(str(tmp_path / "nowhere.pth"))


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path):
    torch.save({"a.weight": torch.ones(3, 3), "z": torch.ones(1)}, tmp_path / "w.pth")
    run = Run(tmp_path)
    with pytest.raises(WeightsError, match="does not fit"):
        run.checkpointer.load(str(tmp_path / "w.pth"))
    assert_same_model(run.model, Run(tmp_path).model)


SAVE_AND_DIE = """
import os, signal, sys, torch
from torch import nn
from d2pd.training import checkpoint
write = torch.save
def die_half_way(data, file):
    write(data, file)
    file.truncate(200)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.torch.save = die_half_way
checkpoint.Checkpointer(nn.Linear(2, 2), sys.argv[1]).save("model_0000009")
"""


def test_a_save_that_is_killed_leaves_the_one_before_as_the_newest(tmp_path):
    run = Run(tmp_path).train(2)
    run.save()
    command = [sys.executable, "-c", SAVE_AND_DIE, str(tmp_path)]
    assert subprocess.run(command, timeout=120, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "model_0000009.pth").exists()
    again = Run(tmp_path, seed=3)
    again.checkpointer.resume_or_load("", resume=True)
    assert again.iter == 2


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    run = Run(tmp_path).train(1)
    run.save()

    def full(data, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("d2pd.training.checkpoint.torch.save", full)
    with pytest.raises(UserError, match=r"cannot write .*0000002\.pth .*No space left") as caught:
        run.train(1).save()
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]


def test_a_checkpointer_without_a_folder_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Checkpointer(Model()).save("w")
    Checkpointer(Model(), str(tmp_path), save_to_disk=False).save("w")
    assert os.listdir(tmp_path) == []


def test_state_becomes_plain_data():
    state = {"best": np.float64(2.5), np.int64(3): [np.bool_(True), Path("a/b")], "t": (1, None)}
    read = plain(state, "trainer")
    assert read == {"best": 2.5, 3: [True, "a/b"], "t": (1, None)}
    assert [type(key) for key in read] == [str, int, str]
    assert type(read["best"]) is float


@pytest.mark.parametrize("value", [np.zeros(2), object(), enum.IntEnum("E", "A").A, {1, 2}])
def test_state_that_could_not_be_read_again_is_refused_with_its_place(tmp_path, value):
    with pytest.raises(TypeError, match=r"^trainer\.hooks\[1\] is a \w+, which a checkpoint"):
        plain({"hooks": [1, value]}, "trainer")
    with pytest.raises(TypeError, match="extra is a"):
        Checkpointer(Model(), str(tmp_path)).save("w", extra=value)
    assert os.listdir(tmp_path) == []
