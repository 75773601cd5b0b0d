"""The state of the random generators survives a file that holds plain data only."""

import io
import random

import numpy as np
import torch

from d2pd.training.random_state import random_state, set_random_state


def draw():
    normal = (np.random.standard_normal(), random.gauss(0, 1))
    return torch.rand(3).tolist(), np.random.rand(), random.random(), normal


def test_state_from_a_file_gives_the_same_numbers_in_the_middle_of_a_pair_of_normals():
    np.random.standard_normal(), random.gauss(0, 1)  # half of a pair is kept for the next call
    buffer = io.BytesIO()
    torch.save(random_state(), buffer)
    expected = [draw() for _ in range(3)]
    buffer.seek(0)
    set_random_state(torch.load(buffer, weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_asking_for_the_state_changes_nothing_and_later_draws_do_not_change_it():
    state = random_state()
    expected = draw()
    set_random_state(state)
    random_state()
    assert draw() == expected
    set_random_state(state)
    assert draw() == expected


def test_gpus_that_this_machine_lacks_are_left_out(monkeypatch):
    state = {**random_state(), "cuda": [torch.zeros(16, dtype=torch.uint8)] * 99}
    expected = draw()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    set_random_state(state)
    assert draw() == expected
