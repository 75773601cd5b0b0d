"""Schedules, parameter groups and gradient clipping."""

from typing import Any

import pytest
import torch
from contract_recording import Contract
from contract_toys import raised
from torch import nn

from d2pd.d2 import (
    CfgNode,
    DefaultTrainer,
    build_lr_scheduler,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
)

SCHEDULES: dict[str, dict[str, Any]] = {
    "steps": {"LR_SCHEDULER_NAME": "WarmupMultiStepLR", "STEPS": (8, 16)},
    "no steps": {"LR_SCHEDULER_NAME": "WarmupMultiStepLR", "STEPS": ()},
    "steps beyond the end": {"LR_SCHEDULER_NAME": "WarmupMultiStepLR", "STEPS": (8, 30)},
    "cosine": {"LR_SCHEDULER_NAME": "WarmupCosineLR"},
    "cosine to an end": {"LR_SCHEDULER_NAME": "WarmupCosineLR", "BASE_LR_END": 0.1},
    "fixed gamma": {
        "LR_SCHEDULER_NAME": "WarmupStepWithFixedGammaLR",
        "NUM_DECAYS": 3,
        "GAMMA": 0.5,
    },
    "constant warm-up": {"WARMUP_METHOD": "constant", "STEPS": (8,)},
    "no warm-up": {"WARMUP_ITERS": 0, "STEPS": (8,)},
    "warm-up of the whole run": {"WARMUP_ITERS": 50, "STEPS": ()},
    "rescaled cosine": {"LR_SCHEDULER_NAME": "WarmupCosineLR", "RESCALE_INTERVAL": True},
    "rescaled steps": {"STEPS": (8, 16), "RESCALE_INTERVAL": True},
}


def with_solver(cfg: CfgNode, settings: dict[str, Any]) -> CfgNode:
    cfg = cfg.clone()
    common = {
        "MAX_ITER": 20,
        "BASE_LR": 1.0,
        "WARMUP_ITERS": 4,
        "WARMUP_FACTOR": 0.25,
        "GAMMA": 0.1,
    }
    for name, value in {**common, **settings}.items():
        cfg.SOLVER[name] = value
    return cfg


def two_groups() -> torch.optim.SGD:
    first, second = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    return torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 2.0}], lr=1.0)


def rates_of(cfg: CfgNode, steps: int = 20) -> list[list[float]]:
    optimizer = two_groups()
    schedule = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if len(rates) < steps:
            schedule.step()
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(contract: Contract, cfg: CfgNode, name: str) -> None:
    rates = rates_of(with_solver(cfg, SCHEDULES[name]))
    first = [one for one, _ in rates]
    assert all(two == pytest.approx(2 * one) for one, two in rates)
    if name == "steps":
        # A quarter, rising to 1 at iteration 4; a tenth from 8, a hundredth from 16.
        expected = [0.25, 0.4375, 0.625, 0.8125, *[1.0] * 4, *[0.1] * 8, *[0.01] * 4]
        assert first == pytest.approx(expected)
    if name == "fixed gamma":
        assert set(first[4:]) <= {1.0, 0.5, 0.25, 0.125}
    if name == "no warm-up":
        assert first == pytest.approx([1.0] * 8 + [0.1] * 12)
    contract({"rates": first})


def test_state_of_a_schedule(contract: Contract, cfg: CfgNode) -> None:
    cfg = with_solver(cfg, SCHEDULES["cosine"])
    optimizer = two_groups()
    schedule = build_lr_scheduler(cfg, optimizer)
    for _ in range(7):
        optimizer.step()
        schedule.step()
    state = schedule.state_dict()
    assert state == {"base_lrs": [1.0, 2.0], "last_epoch": 7}
    other = build_lr_scheduler(cfg, two_groups())
    other.load_state_dict(state)
    other.optimizer.step()
    other.step()
    contract({"state": state, "next": other.get_last_lr(), "epoch": other.last_epoch})


def test_the_last_step_of_a_schedule(contract: Contract, cfg: CfgNode) -> None:
    """fvcore's schedule of equal steps fails at the end of the run, which a hook reaches."""
    observed = {}
    for name in ("steps", "cosine", "fixed gamma"):
        optimizer = two_groups()
        schedule = build_lr_scheduler(with_solver(cfg, SCHEDULES[name]), optimizer)
        optimizer.step()
        observed[name] = [raised(schedule.step) for _ in range(20)][-1]
    assert observed == {"steps": "returned", "cosine": "returned", "fixed gamma": "IndexError"}
    contract(observed)


def test_schedules_that_are_refused(contract: Contract, cfg: CfgNode) -> None:
    def build(**settings: Any) -> str:
        return raised(build_lr_scheduler, with_solver(cfg, settings), two_groups())

    observed = {
        "name": build(LR_SCHEDULER_NAME="NoSuchLR"),
        "method": build(WARMUP_METHOD="sudden"),
        "no iterations": build(MAX_ITER=0),
        # Beyond MAX_ITER they are left out, at MAX_ITER they are not.
        "step at the end": build(STEPS=(8, 20)),
    }
    assert observed["name"] == "ValueError"
    above = build(LR_SCHEDULER_NAME="WarmupCosineLR", BASE_LR_END=2.0)
    assert above != "returned"
    contract(observed)


class Net(nn.Module):
    """Convolution, two norms, a linear layer, a frozen one, and a shared parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.block = nn.Sequential(nn.GroupNorm(1, 2), nn.Linear(2, 2))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.shared = nn.Linear(2, 2)
        self.shared.weight = self.block[1].weight
        self.scale = nn.Parameter(torch.ones(1))


def with_names(groups: list[dict[str, Any]], net: nn.Module) -> list[dict[str, Any]]:
    """Put the names of parameters in their place."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return [
        {
            key: [names[id(each)] for each in value] if key == "params" else value
            for key, value in sorted(group.items())
        }
        for group in groups
    ]


def groups_of(**arguments: Any) -> list[dict[str, Any]]:
    net = Net()
    return with_names(get_default_optimizer_params(net, **arguments), net)


GROUPS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "rate": {"base_lr": 0.1},
    "decay of norms": {"base_lr": 0.1, "weight_decay": 0.01, "weight_decay_norm": 0.0},
    "bias": {"base_lr": 0.1, "bias_lr_factor": 2.0, "weight_decay_bias": 0.5},
    "bias as the rest": {"base_lr": 0.1, "weight_decay": 0.01, "bias_lr_factor": 1.0},
    "factor by name": {
        "base_lr": 0.1,
        "lr_factor_func": lambda name: 0.5 if "block" in name else 1,
    },
    "overrides": {"base_lr": 0.1, "overrides": {"scale": {"lr": 9.0, "weight_decay": 0.0}}},
    "all": {
        "base_lr": 0.1,
        "weight_decay": 0.01,
        "weight_decay_norm": 0.0,
        "bias_lr_factor": 2.0,
        "weight_decay_bias": 0.0,
    },
}


@pytest.mark.parametrize("name", GROUPS)
def test_parameter_groups(contract: Contract, name: str) -> None:
    groups = groups_of(**GROUPS[name])
    everything = [each for group in groups for each in group["params"]]
    assert len(everything) == len(set(everything)) == 10
    assert not any("frozen" in each for each in everything)
    if name == "nothing":
        assert len(groups) == 1
    if name == "bias":
        assert next(group["lr"] for group in groups if "conv.bias" in group["params"]) == 0.2
    contract({"groups": groups})


def test_groups_that_are_refused(contract: Contract) -> None:
    observed = {
        "factor without rate": raised(groups_of, bias_lr_factor=2.0),
        "bias twice": raised(
            groups_of, base_lr=0.1, bias_lr_factor=2.0, overrides={"bias": {"lr": 1.0}}
        ),
    }
    assert observed["bias twice"] == "ValueError"
    without_rate = raised(groups_of, lr_factor_func=lambda name: 1.0)
    assert without_rate != "returned"
    contract(observed)


def test_the_default_optimizer(contract: Contract, cfg: CfgNode) -> None:
    settings = {
        "BASE_LR": 0.5,
        "MOMENTUM": 0.8,
        "NESTEROV": True,
        "WEIGHT_DECAY": 0.01,
        "WEIGHT_DECAY_NORM": 0.02,
        "WEIGHT_DECAY_BIAS": 0.03,
        "BIAS_LR_FACTOR": 2.0,
    }
    for name, value in settings.items():
        cfg.SOLVER[name] = value
    net = Net()
    optimizer = DefaultTrainer.build_optimizer(cfg, net)
    kept = ("lr", "momentum", "nesterov", "weight_decay", "params")
    groups = [{name: group[name] for name in kept} for group in optimizer.param_groups]
    rates = {each: group["lr"] for group in with_names(groups, net) for each in group["params"]}
    assert rates["conv.bias"] == 1.0
    assert rates["conv.weight"] == 0.5
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    clipping = type(DefaultTrainer.build_optimizer(cfg, net)).__name__
    contract(
        {
            "class": type(optimizer).__name__,
            "groups": with_names(groups, net),
            "defaults": {name: optimizer.defaults[name] for name in kept[:4]},
            "clipping": clipping,
        }
    )


CLIPS: dict[str, dict[str, Any]] = {
    "off": {"ENABLED": False},
    "value": {"ENABLED": True, "CLIP_TYPE": "value", "CLIP_VALUE": 0.5},
    "norm": {"ENABLED": True, "CLIP_TYPE": "norm", "CLIP_VALUE": 1.0, "NORM_TYPE": 2.0},
    "largest": {"ENABLED": True, "CLIP_TYPE": "norm", "CLIP_VALUE": 1.0, "NORM_TYPE": float("inf")},
}


def clipped_step(cfg: CfgNode, settings: dict[str, Any], *, instance: bool) -> dict[str, Any]:
    """Return by how much each parameter moves against gradients (3, 4) and (0.1, -2)."""
    cfg = cfg.clone()
    for name, value in settings.items():
        cfg.SOLVER.CLIP_GRADIENTS[name] = value
    params = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    for parameter, gradient in zip(params, ((3.0, 4.0), (0.1, -2.0)), strict=True):
        parameter.grad = torch.tensor(gradient)
    optimizer: Any
    if instance:
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD(params, lr=1.0))
    else:
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD)(params, lr=1.0)
    optimizer.step()
    return {"moved": [-each.detach() for each in params], "class": type(optimizer).__name__}


@pytest.mark.parametrize("instance", [True, False], ids=["instance", "class"])
@pytest.mark.parametrize("name", CLIPS)
def test_clipping(contract: Contract, cfg: CfgNode, name: str, instance: bool) -> None:
    observed = clipped_step(cfg, CLIPS[name], instance=instance)
    moved = [each.tolist() for each in observed["moved"]]
    if name == "off":
        assert observed["class"] == "SGD"
    if name == "value":
        assert moved == [[0.5, 0.5], [pytest.approx(0.1), -0.5]]
    if name == "norm":  # each parameter by itself: 3, 4 has norm 5
        assert moved[0] == pytest.approx([0.6, 0.8], rel=1e-5)
    contract(observed)


def test_clipping_of_another_type_is_refused(contract: Contract, cfg: CfgNode) -> None:
    how = raised(clipped_step, cfg, {"ENABLED": True, "CLIP_TYPE": "full"}, instance=False)
    assert how == "ValueError"
    contract({"how": how})
