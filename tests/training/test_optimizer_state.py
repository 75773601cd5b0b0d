import copy
import logging

import pytest
import torch
from torch import nn

from d2pd.errors import WeightsError
from d2pd.training.optimizer_state import track_parameter_names

OPTIMIZERS = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "Adam": lambda groups: torch.optim.Adam(groups, lr=0.1),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.1),
}


class Model(nn.Module):
    """Layers of one shape, registered in the order given."""

    def __init__(self, order=("a", "b", "c"), size=3):
        super().__init__()
        for name in order:
            self.add_module(name, nn.Linear(size, size))


def build(kind="SGD", order=("a", "b", "c"), size=3, bias_lr=None):
    torch.manual_seed(0)
    model = Model(order, size)
    weights = [p for n, p in model.named_parameters() if n.endswith("weight")]
    biases = [p for n, p in model.named_parameters() if n.endswith("bias")]
    second = {"params": biases} if bias_lr is None else {"params": biases, "lr": bias_lr}
    optimizer = OPTIMIZERS[kind]([{"params": weights}, second])
    return model, optimizer


def train(model, optimizer, steps=3):
    for step in range(steps):
        optimizer.zero_grad()
        for name, parameter in model.named_parameters():
            parameter.grad = torch.full_like(parameter, float(sum(map(ord, name)) + step))
        optimizer.step()


def state_by_name(model, optimizer):
    return {name: dict(optimizer.state[p]) for name, p in model.named_parameters()}


def assert_same_states(one, other):
    assert one.keys() == other.keys()
    for name, entries in one.items():
        assert entries
        for key, value in entries.items():
            torch.testing.assert_close(other[name][key], value, rtol=0, atol=0)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "b")])
def test_the_state_follows_the_names_whatever_the_order(kind, order):
    model, optimizer = build(kind)
    track_parameter_names(optimizer, model)
    train(model, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    other, others = build(kind, order)
    track_parameter_names(others, other)
    others.load_state_dict(saved)
    assert_same_states(state_by_name(model, optimizer), state_by_name(other, others))


def test_by_position_the_momenta_would_have_been_swapped():
    model, optimizer = build()
    train(model, optimizer)
    other, others = build(order=("c", "a", "b"))
    others.load_state_dict(optimizer.state_dict())
    momentum = others.state[other.a.weight]["momentum_buffer"]
    torch.testing.assert_close(momentum, optimizer.state[model.b.weight]["momentum_buffer"])
    assert not torch.equal(momentum, optimizer.state[model.a.weight]["momentum_buffer"])


def test_training_goes_on_as_if_never_stopped():
    model, optimizer = build("Adam")
    track_parameter_names(optimizer, model)
    train(model, optimizer)
    other, others = build("Adam", ("b", "c", "a"))
    track_parameter_names(others, other)
    other.load_state_dict(model.state_dict())
    others.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer)
    train(other, others)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=0, atol=0)


def test_the_names_are_stored_and_an_optimizer_without_them_reads_the_file():
    model, optimizer = build()
    track_parameter_names(optimizer, model)
    train(model, optimizer)
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["param_names"] == ["a.weight", "b.weight", "c.weight"]
    other, others = build()
    others.load_state_dict(saved)  # stock Detectron2: by position
    assert_same_states(state_by_name(model, optimizer), state_by_name(other, others))


def test_options_of_the_groups_are_restored():
    model, optimizer = build(bias_lr=0.5)
    track_parameter_names(optimizer, model)
    for group in optimizer.param_groups:
        group["lr"] /= 4
    saved = copy.deepcopy(optimizer.state_dict())
    other, others = build(order=("c", "b", "a"), bias_lr=0.5)
    track_parameter_names(others, other)
    others.load_state_dict(saved)
    assert [group["lr"] for group in others.param_groups] == [0.025, 0.125]


def test_a_parameter_that_has_no_state_yet_has_none_after():
    model, optimizer = build()
    track_parameter_names(optimizer, model)
    model.b.weight.grad = torch.ones(3, 3)
    optimizer.step()
    other, others = build(order=("b", "a", "c"))
    track_parameter_names(others, other)
    others.load_state_dict(optimizer.state_dict())
    assert set(others.state) == {other.b.weight}


def test_tracking_twice_changes_nothing():
    model, optimizer = build()
    for _ in range(2):
        track_parameter_names(optimizer, model)
    train(model, optimizer)
    other, others = build(order=("c", "b", "a"))
    for _ in range(2):
        track_parameter_names(others, other)
    others.load_state_dict(optimizer.state_dict())
    assert_same_states(state_by_name(model, optimizer), state_by_name(other, others))


def test_a_state_without_names_is_taken_by_position_with_a_warning(caplog):
    model, optimizer = build()
    train(model, optimizer)
    other, others = build()
    track_parameter_names(others, other)
    with caplog.at_level(logging.WARNING):
        others.load_state_dict(optimizer.state_dict())
    assert "no parameter names" in caplog.text
    assert_same_states(state_by_name(model, optimizer), state_by_name(other, others))


def test_a_state_without_names_of_another_model_is_refused():
    model, optimizer = build(size=4)
    train(model, optimizer)
    other, others = build()
    track_parameter_names(others, other)
    with pytest.raises(WeightsError, match=r"momentum_buffer of shape \(4, 4\) for a\.weight"):
        others.load_state_dict(optimizer.state_dict())
    _, fewer = build(order=("a", "b"))
    with pytest.raises(WeightsError, match=r"groups of \[2, 2\] parameters, this one of \[3, 3\]"):
        others.load_state_dict(fewer.state_dict())


def test_other_parameters_are_refused_and_named():
    model, optimizer = build(order=("a", "b", "d"))
    track_parameter_names(optimizer, model)
    other, others = build()
    track_parameter_names(others, other)
    with pytest.raises(
        WeightsError,
        match=r"2 learnt now and not then \(c\.bias, c\.weight\); 2 learnt then .*\(d\.bias",
    ):
        others.load_state_dict(optimizer.state_dict())


def test_another_shape_under_the_same_name_is_refused():
    model, optimizer = build(size=4)
    track_parameter_names(optimizer, model)
    train(model, optimizer)
    other, others = build()
    track_parameter_names(others, other)
    with pytest.raises(WeightsError, match=r"\(4, 4\) for a\.weight, whose shape is \(3, 3\)"):
        others.load_state_dict(optimizer.state_dict())


def test_groups_that_moved_to_another_base_rate_are_refused():
    model, optimizer = build(bias_lr=0.5)
    track_parameter_names(optimizer, model)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)  # sets initial_lr
    saved = optimizer.state_dict()
    other, others = build(bias_lr=0.5)
    others.param_groups.reverse()
    track_parameter_names(others, other)
    with pytest.raises(WeightsError, match="other parameter groups"):
        others.load_state_dict(saved)


def test_a_foreign_parameter_is_a_programming_error():
    _, optimizer = build()
    with pytest.raises(ValueError, match="not in the model"):
        track_parameter_names(optimizer, Model())
