import copy
import logging

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from d2pd.d2 import build_lr_scheduler, get_cfg
from d2pd.errors import WeightsError
from d2pd.training.checkpoints.optimizer_state import apply_configured_rates, track_parameter_names

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


def test_the_current_rate_of_each_group_is_restored():
    model, optimizer = build(bias_lr=0.5)
    track_parameter_names(optimizer, model)
    for group in optimizer.param_groups:
        group["lr"] /= 4
    saved = copy.deepcopy(optimizer.state_dict())
    other, others = build(order=("c", "b", "a"), bias_lr=0.5)
    track_parameter_names(others, other)
    others.load_state_dict(saved)
    assert [group["lr"] for group in others.param_groups] == [0.025, 0.125]


@pytest.mark.parametrize("with_names", [True, False])
@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("SGD", {"initial_lr": 0.7, "weight_decay": 0.3, "momentum": 0.5, "nesterov": True}),
        ("AdamW", {"initial_lr": 0.7, "weight_decay": 0.3, "betas": (0.5, 0.6), "eps": 0.1}),
    ],
)
def test_options_are_those_that_the_optimizer_was_built_with(kind, changed, with_names):
    model, optimizer = build(kind)
    if with_names:
        track_parameter_names(optimizer, model)
    train(model, optimizer)
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.1
    saved = copy.deepcopy(optimizer.state_dict())
    other, others = build(kind)
    for group in others.param_groups:
        group.update(changed)
    track_parameter_names(others, other)
    others.load_state_dict(saved)
    for group in others.param_groups:
        assert {key: group[key] for key in changed} == changed
    assert_same_states(state_by_name(model, optimizer), state_by_name(other, others))


class Halving(LRScheduler):
    """A rate by base rate and iteration alone, with the state of Detectron2's."""

    def state_dict(self):
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self):
        return [base * 0.5 ** (self.last_epoch / 3) for base in self.base_lrs]


def scheduled(base_lr=0.1):
    model, optimizer = build(bias_lr=2 * base_lr)
    for group in optimizer.param_groups:
        group["lr"] = base_lr if group is optimizer.param_groups[0] else 2 * base_lr
    track_parameter_names(optimizer, model)
    return optimizer, Halving(optimizer)


def rates_of(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def saved_after(steps):
    optimizer, schedule = scheduled()
    for _ in range(steps):
        optimizer.step()
        schedule.step()
    return optimizer, schedule


def load(optimizer, schedule, source):
    schedule.load_state_dict(copy.deepcopy(source[1].state_dict()))
    optimizer.load_state_dict(copy.deepcopy(source[0].state_dict()))
    apply_configured_rates(optimizer, schedule)


def test_with_an_unchanged_configuration_the_rates_are_the_same_bits():
    source, other = saved_after(7), scheduled()
    load(*other, source)
    assert rates_of(other[0]) == rates_of(source[0])
    for optimizer, schedule in (source, other):
        optimizer.step()
        schedule.step()
    assert rates_of(other[0]) == rates_of(source[0])
    assert other[1].get_last_lr() == source[1].get_last_lr()


def test_another_base_rate_counts_from_the_resume_on():
    source, other = saved_after(6), scheduled(base_lr=0.001)
    load(*other, source)
    assert rates_of(other[0]) == [0.001 * 0.5**2, 0.002 * 0.5**2]
    assert other[1].base_lrs == [0.001, 0.002]
    assert other[1].last_epoch == 6


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


@pytest.mark.parametrize("grouping", ["reversed", "one group", "a group each"])
def test_the_state_follows_the_names_whatever_the_groups(grouping):
    model, optimizer = build(bias_lr=0.5)
    track_parameter_names(optimizer, model)
    train(model, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    other, others = build(bias_lr=0.7)
    if grouping == "reversed":
        others.param_groups.reverse()
    else:
        parameters = list(other.parameters())
        groups = [{"params": [p]} for p in parameters] if "each" in grouping else parameters
        others = torch.optim.SGD(groups, lr=0.3, momentum=0.9)
    track_parameter_names(others, other)
    others.load_state_dict(saved)
    assert_same_states(state_by_name(model, optimizer), state_by_name(other, others))


@pytest.mark.parametrize(("saved_kind", "kind"), [("SGD", "Adam"), ("AdamW", "SGD")])
def test_the_state_of_another_kind_of_optimizer_is_refused(saved_kind, kind):
    model, optimizer = build(saved_kind)
    track_parameter_names(optimizer, model)
    train(model, optimizer)
    other, others = build(kind)
    track_parameter_names(others, other)
    with pytest.raises(WeightsError, match=rf"keeps .* of a\.weight, and {kind} keeps .*OPTIMIZER"):
        others.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("value", [5, "x", torch.zeros(()), [1.0]])
def test_a_momentum_that_is_none_is_refused(value):
    model, optimizer = build()
    track_parameter_names(optimizer, model)
    train(model, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["momentum_buffer"] = value
    with pytest.raises(WeightsError, match=r"momentum_buffer of shape .* for a\.weight"):
        optimizer.load_state_dict(saved)


def test_a_foreign_parameter_is_a_programming_error():
    _, optimizer = build()
    with pytest.raises(ValueError, match="not in the model"):
        track_parameter_names(optimizer, Model())


@pytest.mark.parametrize("name", ["WarmupMultiStepLR", "WarmupCosineLR"])
def test_the_rates_of_the_engines_schedules_are_the_same_bits(name):
    def built():
        cfg = get_cfg()
        cfg.SOLVER.LR_SCHEDULER_NAME = name
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = 30, (13, 22), 7
        model, optimizer = build(bias_lr=0.37)
        track_parameter_names(optimizer, model)
        return optimizer, build_lr_scheduler(cfg, optimizer)

    source = built()
    for _ in range(29):
        source[0].step()
        source[1].step()
        other = built()
        load(*other, source)
        assert rates_of(other[0]) == rates_of(source[0])
