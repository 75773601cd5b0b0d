import os
import pickle
import random
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from d2pd.errors import MissingFileError, WeightsError
from d2pd.training.weights.weights_file import read_checkpoint, read_weights


class Touch:
    """Makes a file when it is unpickled freely."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def state():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()


def save_pickle(path: Path, content) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def as_arrays(state):
    return {name: tensor.numpy() for name, tensor in state.items()}


def assert_same(read, state):
    assert list(read) == list(state)
    for name, tensor in state.items():
        torch.testing.assert_close(read[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("container", [None, "model", "state_dict", "model_state"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_torch_file_is_read_in_each_form(tmp_path, state, container, is_zip):
    content = state if container is None else {container: state, "iteration": 3}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
    assert_same(read_weights(tmp_path / "w.pth").state, state)


def test_the_prefix_of_a_wrapped_model_goes(tmp_path, state):
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.pth")
    assert_same(read_weights(tmp_path / "w.pth").state, state)


def test_the_versions_of_the_modules_are_kept(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").versions["1"] == {"version": 2}


def test_a_detectron2_pickle_is_read_with_its_author(tmp_path, state):
    content = {"model": as_arrays(state), "__author__": "someone", "matching_heuristics": True}
    weights = read_weights(save_pickle(tmp_path / "w.pkl", content))
    assert_same(weights.state, state)
    assert weights.origin == "someone"


def test_detectron_blobs_come_without_their_momenta(tmp_path):
    blobs = {"fc6_w": np.ones((2, 2), "f4"), "fc6_w_momentum": np.ones((2, 2), "f4"), "lr": 0.1}
    weights = read_weights(save_pickle(tmp_path / "w.pkl", {"blobs": blobs, "cfg": "text"}))
    assert list(weights.state) == ["fc6_w"]


def test_the_content_decides_and_not_the_suffix(tmp_path, state):
    torch.save(state, tmp_path / "w.pkl")
    save_pickle(tmp_path / "w.pth", as_arrays(state))
    assert_same(read_weights(tmp_path / "w.pkl").state, state)
    assert_same(read_weights(tmp_path / "w.pth").state, state)


def test_the_rest_of_a_checkpoint_is_returned(tmp_path, state):
    torch.save({"model": state, "iteration": 7, "trainer": {"a": [1]}}, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth")[1] == {"iteration": 7, "trainer": {"a": [1]}}


def test_numpy_scalars_in_a_torch_file_are_read(tmp_path, state):
    rest = {"best": np.float64(31.5), "count": np.int64(4), "flag": np.bool_(True)}
    torch.save({"model": state, **rest}, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth")[1] == {"best": 31.5, "count": 4, "flag": True}


def test_arrays_in_a_torch_file_are_read(tmp_path, state):
    torch.save({"model": as_arrays(state)}, tmp_path / "w.pth")
    assert_same(read_weights(tmp_path / "w.pth").state, state)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_hostile_torch_file_is_refused_and_nothing_happens(tmp_path, state, is_zip):
    target, path = tmp_path / "touched", tmp_path / "w.pth"
    content = {"model": state, "extra": Touch(target)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(WeightsError, match=r"w\.pth asks for posix\.mkdir.*nothing was loaded"):
        read_weights(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # it was hostile


def test_a_hostile_pickle_is_refused_and_nothing_happens(tmp_path, state):
    target = tmp_path / "touched"
    content = {"model": {**as_arrays(state), "x": Touch(target)}, "__author__": "a"}
    path = save_pickle(tmp_path / "w.pkl", content)
    with pytest.raises(WeightsError, match=r"w\.pkl asks for posix\.mkdir.*nothing was loaded"):
        read_weights(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists()


def test_a_dictionary_with_a_false_method_is_read_as_a_dictionary(tmp_path):
    content = pickle.dumps(OrderedDict(w=np.ones(2, "f4")), protocol=2)
    (tmp_path / "w.pkl").write_bytes(content[:-1] + b"}S'items'\nNsb.")
    assert pickle.loads((tmp_path / "w.pkl").read_bytes()).items is None
    assert_same(read_weights(tmp_path / "w.pkl").state, {"w": torch.ones(2)})


def test_a_flipped_byte_never_changes_a_weight_in_silence(tmp_path, state):
    path = tmp_path / "w.pth"
    torch.save(state, path)
    whole = path.read_bytes()
    refusals = []
    for at in random.Random(0).sample(range(len(whole)), 150):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        try:
            read = read_weights(path).state
        except WeightsError as error:
            refusals.append(str(error))
        else:
            assert_same(read, state)
    assert len(refusals) > 30
    assert all("w.pth" in text and "\n" not in text for text in refusals)


def test_a_flipped_byte_in_a_weight_is_found(tmp_path, state):
    path = tmp_path / "w.pth"
    torch.save(state, path)
    at = path.read_bytes().index(state["0.weight"].numpy().tobytes()[:64]) + 2
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)  # torch does not see it
    with pytest.raises(WeightsError, match=r"damaged \(checksum of \S+ differs\)"):
        read_weights(path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_truncated_torch_file_is_an_error(tmp_path, state, is_zip):
    path = tmp_path / "w.pth"
    torch.save({"model": state}, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for size in (1, 3, 40, 200, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match=r"w\.pth .*(cut off|damaged|text)"):
            read_weights(path)


def test_a_truncated_pickle_is_an_error(tmp_path, state):
    path = save_pickle(tmp_path / "w.pkl", {"model": as_arrays(state), "__author__": "a"})
    whole = path.read_bytes()
    for size in (2, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match=r"w\.pkl is cut off or damaged"):
            read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is text .*DOCTYPE.*download page"),
        (b"\n\n  <html>", "is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is text .*git-lfs"),
        (pickle.dumps([1, 2]), "holds a list, not tensors by name"),
        (pickle.dumps({"a": 1}), "holds no tensors by name"),
        (b"PK\x03\x04 and then something else", "cut off or damaged"),
    ],
)
def test_what_is_no_weights_file_is_told_in_one_line(tmp_path, content, message):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_weights(tmp_path / "w.pth")
    assert "w.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(tmp_path, state):
    state["0.bias"][1] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"0\.bias holds numbers that are not finite"):
        read_weights(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.pth is not there"):
        read_weights(tmp_path / "nowhere.pth")
