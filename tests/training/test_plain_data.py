import enum
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from d2pd.training.checkpoints.plain_data import plain


def test_state_becomes_plain_data():
    state = {"best": np.float64(2.5), np.int64(3): [np.bool_(True), Path("a/b")], "t": (1, None)}
    read = plain(state, "trainer")
    assert read == {"best": 2.5, 3: [True, "a/b"], "t": (1, None)}
    assert [type(key) for key in read] == [str, int, str]
    assert type(read["best"]) is float


@pytest.mark.parametrize("value", [np.zeros(2), object(), enum.IntEnum("E", "A").A, {1, 2}])
def test_state_that_could_not_be_read_again_is_refused_with_its_place(value):
    with pytest.raises(TypeError, match=r"^trainer\.hooks\[1\] is a \w+, which a checkpoint"):
        plain({"hooks": [1, value]}, "trainer")


def test_tensors_keep_their_storage_and_lose_all_else():
    tensor, parameter = torch.ones(2), nn.Parameter(torch.ones(2))
    tensor.note = "x"
    read = plain([tensor, parameter], "x")
    assert [type(entry) for entry in read] == [torch.Tensor, torch.Tensor]
    assert [entry.data_ptr() for entry in read] == [tensor.data_ptr(), parameter.data_ptr()]
    assert not hasattr(read[0], "note")


def test_a_container_within_itself_twice_many_times_over_ends():
    value = [1]
    for _ in range(200):
        value = [value, value]
    read = plain(value, "x")
    assert read[0] is read[1]


def test_a_container_without_end_is_an_error():
    value = []
    value.append(value)
    with pytest.raises(RecursionError):
        plain(value, "x")
