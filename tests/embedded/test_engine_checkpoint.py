import pickle

import pytest
import torch
from torch import nn

from d2pd.embedded.checkpoint import DetectionCheckpointer
from d2pd.errors import MissingFileError, WeightsError


class Model(nn.Module):
    def __init__(self, out=2):
        super().__init__()
        self.head = nn.Linear(3, out)
        self.register_buffer("pixel_mean", torch.zeros(3))


def same(a, b):
    return all(torch.equal(a.state_dict()[key], b.state_dict()[key]) for key in a.state_dict())


def test_model_and_extras_come_back(tmp_path):
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    model.head.weight.sum().backward()
    optimizer.step()
    saver = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
    saver.save("model_0000001", iteration=1)
    saver.save("model_0000003", iteration=3)
    other = Model()
    other_optimizer = torch.optim.SGD(other.parameters(), lr=9.0, momentum=0.9)
    loader = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    assert loader.resume_or_load("unused", resume=True) == {"iteration": 3}
    assert same(model, other)
    assert other_optimizer.param_groups[0]["lr"] == 0.5
    torch.testing.assert_close(
        other_optimizer.state_dict()["state"], optimizer.state_dict()["state"], rtol=0, atol=0
    )


def test_weights_alone_leave_the_rest(tmp_path):
    model, other = Model(), Model()
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    optimizer = torch.optim.SGD(other.parameters(), lr=9.0)
    loader = DetectionCheckpointer(other, "", optimizer=optimizer)
    loader.resume_or_load(str(tmp_path / "plain.pth"), resume=False)
    assert same(model, other)
    assert optimizer.param_groups[0]["lr"] == 9.0
    assert DetectionCheckpointer(model).load("") == {}


def test_buffers_that_a_model_makes_itself_are_not_reported(tmp_path, caplog):
    state = {"head.weight": torch.ones(2, 3), "head.bias": torch.ones(2)}
    state["proposal_generator.anchor_generator.cell_anchors.0"] = torch.ones(1)
    torch.save({"model": state}, tmp_path / "old.pth")
    DetectionCheckpointer(Model()).load(str(tmp_path / "old.pth"))
    assert "not found in the checkpoint" not in caplog.text
    assert "not used by the model" not in caplog.text


def test_other_shapes_are_skipped_and_reported(tmp_path, caplog):
    DetectionCheckpointer(Model(out=5), str(tmp_path)).save("five")
    model = Model(out=2)
    before = model.head.weight.clone()
    DetectionCheckpointer(model).load(str(tmp_path / "five.pth"))
    assert torch.equal(model.head.weight, before)
    assert "head.weight" in caplog.text


def test_nothing_is_written_where_writing_is_off(tmp_path):
    DetectionCheckpointer(Model(), str(tmp_path), save_to_disk=False).save("x")
    assert list(tmp_path.iterdir()) == []


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_hostile_file_runs_nothing(tmp_path):
    marker = tmp_path / "ran"
    torch.save({"model": Bomb(str(marker))}, tmp_path / "bomb.pth")
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb(str(marker))))
    for name in ("bomb.pth", "bomb.pkl"):
        with pytest.raises(WeightsError, match="not a torch file that can be read safely"):
            DetectionCheckpointer(Model()).load(str(tmp_path / name))
    assert not marker.exists()


def test_missing_and_truncated_files_are_told(tmp_path):
    with pytest.raises(MissingFileError, match=r"nothing\.pth does not exist"):
        DetectionCheckpointer(Model()).load(str(tmp_path / "nothing.pth"))
    DetectionCheckpointer(Model(), str(tmp_path)).save("whole")
    data = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"half\.pth") as caught:
        DetectionCheckpointer(Model()).load(str(tmp_path / "half.pth"))
    assert "\n" not in str(caught.value)
