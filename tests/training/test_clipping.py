"""Clipping of gradients: the same as in the optimizer class, where Detectron2 has it."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d2pd.config_keys import default_config
from d2pd.d2 import maybe_add_gradient_clipping
from d2pd.errors import ConfigError
from d2pd.training.clipping import build_clipping


def config(kind, limit, order=2.0):
    cfg = default_config()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = kind
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = limit
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = order
    return cfg


def with_gradients(*gradients):
    parameters = [nn.Parameter(torch.zeros(len(g))) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


NUMBERS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=4)


@settings(deadline=None)
@given(
    st.lists(NUMBERS, min_size=1, max_size=3),
    st.sampled_from(["value", "norm"]),
    st.floats(0.01, 100),
    st.sampled_from([1.0, 2.0, float("inf")]),
)
def test_weights_are_those_of_an_optimizer_that_clips_by_itself(gradients, kind, limit, order):
    cfg = config(kind, limit, order)
    theirs = with_gradients(*gradients)
    ours = copy.deepcopy(theirs)
    for mine, their in zip(ours, theirs, strict=True):
        mine.grad = their.grad.clone()
    maybe_add_gradient_clipping(cfg, torch.optim.SGD)(theirs, lr=1.0).step()
    build_clipping(cfg)(ours)
    torch.optim.SGD(ours, lr=1.0).step()
    for mine, their in zip(ours, theirs, strict=True):
        assert torch.equal(mine, their)


def test_each_parameter_is_clipped_by_itself_to_hand_computed_numbers():
    parameters = with_gradients([3.0, 4.0], [0.3, 0.4])
    build_clipping(config("norm", 1.0))(parameters)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)
    assert torch.equal(parameters[1].grad, torch.tensor([0.3, 0.4]))
    parameters = with_gradients([3.0, -4.0, 0.5])
    build_clipping(config("value", 1.0))(parameters)
    assert torch.equal(parameters[0].grad, torch.tensor([1.0, -1.0, 0.5]))


@pytest.mark.parametrize("kind", ["value", "norm"])
def test_parameter_without_gradient_is_passed_over(kind):
    unused = nn.Parameter(torch.zeros(2))
    (used,) = with_gradients([30.0, 40.0])
    build_clipping(config(kind, 1.0))([unused, used])
    assert unused.grad is None
    assert used.grad.max() <= 1.0


def test_nothing_is_clipped_unless_asked_for():
    (parameter,) = with_gradients([30.0, 40.0])
    build_clipping(default_config())([parameter])
    assert torch.equal(parameter.grad, torch.tensor([30.0, 40.0]))


def test_unknown_kind_names_the_key_and_the_allowed_words():
    with pytest.raises(ConfigError, match=r"CLIP_TYPE is 'size'; allowed: value, norm"):
        build_clipping(config("size", 1.0))


@pytest.mark.parametrize("limit", [-1.0, 0.0, float("nan")])
def test_limit_that_is_not_above_zero_is_refused(limit):
    with pytest.raises(ConfigError, match=r"CLIP_VALUE is .*; it must be above 0"):
        build_clipping(config("value", limit))
    with pytest.raises(ConfigError, match=r"NORM_TYPE is .*; it must be above 0"):
        build_clipping(config("norm", 1.0, order=limit))
