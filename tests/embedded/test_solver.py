import pytest
import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from d2pd.embedded.config import get_cfg
from d2pd.embedded.lr_scheduler import LRMultiplier, WarmupParamScheduler
from d2pd.embedded.solver import (
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)
from d2pd.errors import ConfigError


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.tied = self.conv
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def settings(groups):
    return [
        ({k: v for k, v in g.items() if k != "params"}, [tuple(p.shape) for p in g["params"]])
        for g in groups
    ]


def rates(scheduler, optimizer, count):
    seen = []
    for _ in range(count - 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


def solver_cfg(**keys):
    cfg = get_cfg()
    for key, value in keys.items():
        cfg.SOLVER[key] = value
    return cfg


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.1, 0.2, 0.3])), min_size=1))
def test_reducing_keeps_every_parameter_once_with_its_last_setting(rows):
    reduced = reduce_param_groups([{"params": [p], "lr": lr} for p, lr in rows])
    flat = [(p, group["lr"]) for group in reduced for p in group["params"]]
    assert dict(flat) == dict(rows)
    assert len(flat) == len({p for p, _ in rows})
    assert len({group["lr"] for group in reduced}) == len(reduced)


def test_reducing_carries_names():
    groups = reduce_param_groups(
        [
            {"params": ["a", "b"], "param_names": ["na", "nb"], "lr": 1.0},
            {"params": ["c"], "param_names": ["nc"], "lr": 2.0},
            {"params": ["b"], "lr": 2.0},
        ]
    )
    assert groups == [
        {"params": ["a"], "param_names": ["na"], "lr": 1.0},
        {"params": ["b", "c"], "param_names": ["nb", "nc"], "lr": 2.0},
    ]


def test_groups_by_kind_of_parameter():
    groups = get_default_optimizer_params(
        Model(),
        base_lr=0.1,
        weight_decay=0.01,
        weight_decay_norm=0.0,
        bias_lr_factor=2.0,
        weight_decay_bias=0.5,
    )
    assert settings(groups) == [
        ({"lr": 0.1, "weight_decay": 0.01}, [(4, 3, 1, 1)]),
        ({"lr": 0.2, "weight_decay": 0.5}, [(4,), (4,)]),
        ({"lr": 0.1, "weight_decay": 0.0}, [(4,)]),
    ]


def test_rate_by_name_and_overrides():
    groups = get_default_optimizer_params(
        Model(),
        base_lr=1.0,
        lr_factor_func=lambda name: 0.5 if name.startswith("norm.") else 1.0,
        overrides={"bias": {"lr": 3.0}},
    )
    assert settings(groups) == [
        ({"lr": 1.0}, [(4, 3, 1, 1)]),
        ({"lr": 3.0}, [(4,), (4,)]),
        ({"lr": 0.5}, [(4,)]),
    ]
    assert settings(get_default_optimizer_params(Model())) == [
        ({}, [(4, 3, 1, 1), (4,), (4,), (4,)])
    ]


@pytest.mark.parametrize("keys", [{"bias_lr_factor": 2.0}, {"lr_factor_func": lambda name: 1.0}])
def test_factors_need_a_rate(keys):
    with pytest.raises(ValueError, match="need base_lr"):
        get_default_optimizer_params(Model(), **keys)
    with pytest.raises(ValueError, match="bias is set by"):
        get_default_optimizer_params(
            Model(), base_lr=1.0, bias_lr_factor=2.0, overrides={"bias": {}}
        )


def test_groups_are_detectron2s():
    theirs = pytest.importorskip("detectron2.solver.build").get_default_optimizer_params
    model = Model()
    for keys in (
        {},
        {"base_lr": 0.1, "weight_decay_norm": 0.0},
        {"base_lr": 0.1, "bias_lr_factor": 2.0, "weight_decay_bias": 0.0, "weight_decay": 0.1},
        {"base_lr": 0.1, "lr_factor_func": len, "overrides": {"weight": {"lr": 9.0}}},
    ):
        assert get_default_optimizer_params(model, **keys) == theirs(model, **keys)


@pytest.mark.parametrize(("kind", "expected"), [("value", [1.0, 0.5]), ("norm", [0.9922, 0.124])])
def test_clipping_happens_before_the_step(kind, expected):
    cfg = solver_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = kind
    weight = nn.Parameter(torch.zeros(2))
    unused = nn.Parameter(torch.zeros(1))
    for optimizer in (
        maybe_add_gradient_clipping(cfg, torch.optim.SGD)([weight, unused], lr=1.0),
        maybe_add_gradient_clipping(cfg, torch.optim.SGD([weight, unused], lr=1.0)),
    ):
        weight.data.zero_()
        weight.grad = torch.tensor([4.0, 0.5])
        optimizer.step()
        torch.testing.assert_close(-weight.data, torch.tensor(expected), atol=1e-3, rtol=0)
        assert isinstance(optimizer, torch.optim.SGD)
        assert type(optimizer).__name__ == "SGDWithGradientClip"


def test_no_clipping_leaves_the_class():
    assert maybe_add_gradient_clipping(get_cfg(), torch.optim.AdamW) is torch.optim.AdamW
    cfg = solver_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.merge_from_list(["ENABLED", True, "CLIP_TYPE", "both"])
    with pytest.raises(ConfigError, match="'both': allowed are value, norm"):
        maybe_add_gradient_clipping(cfg, torch.optim.SGD)


def test_default_optimizer_is_sgd_with_the_keys_of_solver():
    optimizer = build_optimizer(solver_cfg(BASE_LR=0.5, WEIGHT_DECAY=0.2), Model())
    assert type(optimizer) is torch.optim.SGD
    seen = [(g["lr"], g["weight_decay"], g["momentum"]) for g in optimizer.param_groups]
    assert seen == [(0.5, 0.2, 0.9), (0.5, 0.0, 0.9)]


def schedule(multiplier, count=20, lr=4.0):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    return rates(LRMultiplier(optimizer, multiplier, count), optimizer, count)


def test_warm_up_rises_in_a_line_and_then_follows_the_schedule():
    steps = MultiStepParamScheduler([1, 0.1], milestones=[10], num_updates=20)
    seen = schedule(WarmupParamScheduler(steps, 0.5, 4 / 20))
    assert seen == pytest.approx([2.0, 2.5, 3.0, 3.5] + [4.0] * 6 + [0.4] * 10)
    seen = schedule(WarmupParamScheduler(steps, 0.25, 4 / 20, "constant"))
    assert seen == pytest.approx([1.0] * 4 + [4.0] * 6 + [0.4] * 10)


def test_rescaled_interval_starts_the_schedule_after_the_warm_up():
    line = LinearParamScheduler(1.0, 0.0)
    fixed = schedule(WarmupParamScheduler(line, 0.5, 0.5))
    rescaled = schedule(WarmupParamScheduler(line, 0.5, 0.5, rescale_interval=True))
    assert (fixed[10], rescaled[10]) == pytest.approx((2.0, 4.0))
    assert (fixed[15], rescaled[15]) == pytest.approx((1.0, 2.0))


def test_schedule_keeps_the_ratio_of_the_groups_and_resumes():
    def make():
        parameters = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
        optimizer = torch.optim.SGD(parameters)
        return optimizer, LRMultiplier(optimizer, CosineParamScheduler(1, 0), 10)

    optimizer, scheduler = make()
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert second == pytest.approx(first / 10)
    assert scheduler.state_dict() == {"base_lrs": [1.0, 0.1], "last_epoch": 4}
    other_optimizer, other = make()
    other.load_state_dict(scheduler.state_dict())
    other_optimizer.load_state_dict(optimizer.state_dict())
    for each, its_optimizer in ((scheduler, optimizer), (other, other_optimizer)):
        its_optimizer.step()
        each.step()
    assert [g["lr"] for g in other_optimizer.param_groups] == [
        g["lr"] for g in optimizer.param_groups
    ]


def built(cfg, count):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    return rates(build_lr_scheduler(cfg, optimizer), optimizer, count)


def test_schedules_by_name():
    common = {"MAX_ITER": 10, "BASE_LR": 1.0, "WARMUP_ITERS": 0}
    steps = built(solver_cfg(STEPS=(5, 50), GAMMA=0.5, **common), 10)
    assert steps == pytest.approx([1.0] * 5 + [0.5] * 5)
    cosine = built(solver_cfg(LR_SCHEDULER_NAME="WarmupCosineLR", BASE_LR_END=0.5, **common), 10)
    assert (cosine[0], cosine[5]) == pytest.approx((1.0, 0.75))
    gamma = built(
        solver_cfg(
            LR_SCHEDULER_NAME="WarmupStepWithFixedGammaLR", NUM_DECAYS=1, GAMMA=0.1, **common
        ),
        10,
    )
    assert gamma == pytest.approx([1.0] * 5 + [0.1] * 5)


def test_a_warm_up_longer_than_the_run_fills_it():
    seen = built(solver_cfg(MAX_ITER=4, WARMUP_ITERS=400, WARMUP_FACTOR=0.5, STEPS=()), 4)
    assert seen == pytest.approx([0.0005, 0.000625, 0.00075, 0.000875])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"LR_SCHEDULER_NAME": "Wild"}, "LR_SCHEDULER_NAME is 'Wild': allowed are Warmup"),
        ({"WARMUP_METHOD": "slow"}, "WARMUP_METHOD is 'slow': allowed are linear, constant"),
        ({"LR_SCHEDULER_NAME": "WarmupCosineLR", "BASE_LR_END": 1.0}, "BASE_LR_END is 1.0"),
    ],
)
def test_words_that_mean_nothing_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        built(solver_cfg(**keys), 1)


def test_multiplier_must_be_a_schedule():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="must be a ParamScheduler, got 0.5"):
        LRMultiplier(optimizer, 0.5, 10)
