"""Precision: what a detector computes in 16 bits, and the loss scale."""

import math

import pytest
import torch
from torch import nn

from d2pd.config_keys import default_config
from d2pd.d2 import Boxes, EventStorage, Instances
from d2pd.training.precision import Precision, build_precision


@pytest.mark.parametrize(
    ("is_enabled", "asked", "name"),
    [(False, "fp16", "fp32"), (True, "fp16", "fp16"), (True, "bf16", "bf16")],
)
def test_builder_reads_the_precision_only_where_it_is_enabled(is_enabled, asked, name):
    cfg = default_config()
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = is_enabled, asked
    precision = build_precision(cfg, "cpu")
    assert (precision.name, precision.is_scaled) == (name, name == "fp16")


def picture(boxes):
    instances = Instances((64, 96))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    return {"image": image, "instances": instances, "height": 64, "width": 96}


def test_detector_trains_on_a_cpu_in_every_precision_to_nearly_the_same_losses(build_detector):
    batch = [picture([[10, 10, 40, 50]]), picture([])]
    found = {}
    for name in ("fp32", "bf16", "fp16"):
        model = build_detector(norm="BN").train()
        precision = Precision(name)
        precision.load_state_dict({**precision.state_dict(), "scale": 256.0})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        torch.manual_seed(0)
        with EventStorage(0), precision.autocast():
            losses = model(batch)
        precision.backward(sum(losses.values()))
        precision.unscale(optimizer)
        norm = float(
            nn.utils.get_total_norm([p.grad for p in model.parameters() if p.requires_grad])
        )
        assert {p.grad.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        found[name] = {**{k: float(v.detach()) for k, v in losses.items()}, "norm": norm}
    for name in ("bf16", "fp16"):
        assert found[name] != found["fp32"]
        assert found[name] == pytest.approx(found["fp32"], rel=0.1, abs=0.02)


def step_with_gradient(precision, value):
    weight = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    precision.backward(weight * value)
    precision.unscale(optimizer)
    return weight, optimizer


def test_overflow_skips_the_step_and_halves_the_scale():
    precision = Precision("fp16")
    weight, optimizer = step_with_gradient(precision, math.inf)
    precision.step(optimizer)
    assert (weight.item(), precision.scale) == (1.0, 32768)
    weight, optimizer = step_with_gradient(precision, 0.25)
    precision.step(optimizer)
    assert (weight.item(), precision.scale) == (0.75, 32768)


def test_scale_doubles_after_two_thousand_steps():
    precision = Precision("fp16")
    precision.load_state_dict({**precision.state_dict(), "_growth_tracker": 1999})
    precision.step(step_with_gradient(precision, 0.25)[1])
    assert precision.scale == 131072


def test_step_that_is_forgotten_leaves_the_state_and_the_next_one_works():
    precision = Precision("fp16")
    precision.step(step_with_gradient(precision, 0.25)[1])
    before = precision.state_dict()
    step_with_gradient(precision, math.inf)
    precision.forget()
    precision.forget()
    assert precision.state_dict() == before
    weight, optimizer = step_with_gradient(precision, 0.25)
    precision.step(optimizer)
    assert weight.item() == 0.75


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_without_scale_a_step_is_a_plain_step(name):
    precision = Precision(name)
    precision.forget()
    weight, optimizer = step_with_gradient(precision, 0.25)
    assert weight.grad == 0.25
    precision.step(optimizer)
    assert (weight.item(), precision.scale, precision.state_dict()) == (0.75, 1.0, {})
    precision.load_state_dict(Precision("fp16").state_dict())  # of a run in another precision
    assert precision.scale == 1.0
