"""The optimizer that a configuration asks for."""

import pytest
import torch
from torch import nn

from d2pd.config_keys import default_config
from d2pd.d2 import maybe_add_gradient_clipping
from d2pd.training.optimizer import build_optimizer


@pytest.fixture
def cfg():
    cfg = default_config()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY = 0.5, 0.8, 0.01
    return cfg


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_kind_rate_and_decay_are_those_of_the_configuration(cfg, name):
    cfg.SOLVER.OPTIMIZER = name
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    optimizer = build_optimizer(cfg, build_model())
    assert type(optimizer) is getattr(torch.optim, name)  # the step clips, not a class of its own
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01, 0.0}
    if name == "SGD":
        assert optimizer.param_groups[0]["momentum"] == 0.8


def test_state_of_an_optimizer_that_clipped_by_itself_is_taken(cfg):
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    model = build_model()
    optimizer = build_optimizer(cfg, model)
    clipping = maybe_add_gradient_clipping(cfg, torch.optim.SGD)(
        [{**group, "params": list(group["params"])} for group in optimizer.param_groups], lr=1.0
    )
    model(torch.rand(4, 3)).sum().backward()
    clipping.step()
    optimizer.load_state_dict(clipping.state_dict())
    for parameter in model.parameters():
        assert torch.equal(
            optimizer.state[parameter]["momentum_buffer"],
            clipping.state[parameter]["momentum_buffer"],
        )


def test_frozen_parameter_is_left_out(cfg):
    model = build_model()
    model[0].weight.requires_grad_(False)
    held = {id(p) for group in build_optimizer(cfg, model).param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
