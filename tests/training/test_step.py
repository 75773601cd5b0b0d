"""The step: what it does to the weights, what it logs, and what its state holds."""

import io
import logging
import random

import numpy as np
import pytest
import torch
from step_toys import NAN, Toy, sample
from torch import nn

from d2pd.config_keys import default_config
from d2pd.d2 import EventStorage, TrainerBase
from d2pd.errors import ConfigError
from d2pd.training.clipping import clip_norms
from d2pd.training.culprits.culprit import TARGETS, Violation
from d2pd.training.culprits.evidence import Evidence
from d2pd.training.culprits.non_finite import DivergedError, Guard
from d2pd.training.culprits.sample_faults import TargetError
from d2pd.training.precision import Precision
from d2pd.training.step import Step, build_step


class WithMemory(nn.Module):
    """Batch statistics, and numbers drawn from three generators, in every forward pass."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.linear = nn.Linear(2, 1)

    def forward(self, batch):
        values = torch.tensor([s["value"] for s in batch])
        rows = torch.cat([values.outer(torch.ones(2)), torch.eye(2)])
        noise = torch.rand(()) + np.random.rand() + random.random()
        return {"loss_a": self.linear(self.norm(rows)).mean() + rows.mean() * noise}


@pytest.fixture
def make_step(tmp_path):
    def make(model, batches, *, lr=0.1, momentum=0.0, policy="abort", budget=0, seed=3, **kwargs):
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        guard = Guard(Evidence(tmp_path / "non_finite"), policy=policy, budget=budget)
        return Step(model, batches, optimizer, num_classes=1, seed=seed, guard=guard, **kwargs)

    return make


def run(step, steps=1):
    """Run steps with a storage of their own, which comes back."""
    with EventStorage(step.iter) as storage:
        for _ in range(steps):
            step.run_step()
            step.iter += 1
            storage.step()
    return storage


def logged(storage):
    return {name: value for name, (value, _) in storage.latest().items()}


def test_one_step_subtracts_rate_times_gradient_and_logs_the_losses(make_step):
    model = Toy()
    found = logged(run(make_step(model, [[sample(3.0)]])))
    assert model.weight.item() == pytest.approx(2.0 - 0.1 * 3.0)
    assert found.pop("data_time") >= 0
    assert found == pytest.approx({"loss_a": 6, "loss_b": 0, "total_loss": 6, "grad_norm": 3})


def test_gradients_do_not_pile_up_from_step_to_step(make_step):
    model = Toy()
    run(make_step(model, [[sample(1.0)], [sample(1.0)]]), steps=2)
    assert model.weight.item() == pytest.approx(2.0 - 0.1 - 0.1)


def test_draws_depend_on_seed_and_iteration_and_not_on_the_past(make_step):
    def weight_after(iteration, seed=3, drawn_before=0):
        model = Toy(noise=1.0)
        step = make_step(model, [[sample(1.0)]], seed=seed)
        step.iter = iteration
        torch.rand(drawn_before)
        run(step)
        return model.weight.item()

    torch.manual_seed(3 * 1_000_003 + 7)
    drawn = torch.rand(()).item()
    assert weight_after(7) == pytest.approx(2.0 - 0.1 * (1.0 + drawn))
    assert weight_after(7) == weight_after(7, drawn_before=5)
    assert weight_after(7) != weight_after(8)
    assert weight_after(7) != weight_after(7, seed=4)


def test_each_part_draws_by_a_seed_of_its_own(make_step):
    model = Toy(noise=1.0)
    step = make_step(model, [[sample(0.0), sample(0.0)]], lr=1.0, accumulate=2)
    step.iter = 5
    run(step)
    drawn = []
    for part in range(2):
        torch.manual_seed(3 * 1_000_003 + 5 * 2 + part)
        drawn.append(torch.rand(()))
    torch.testing.assert_close(model.weight.detach(), 2.0 - (drawn[0] + drawn[1]) / 2)


def test_two_parts_of_a_batch_do_what_the_whole_batch_does(make_step):
    batch = [sample(value) for value in (1.0, 2.0, 5.0, -3.0)]
    whole, divided = Toy(), Toy()
    one = logged(run(make_step(whole, [batch])))
    other = logged(run(make_step(divided, [batch], accumulate=2)))
    assert divided.weight.item() == pytest.approx(whole.weight.item())
    del one["data_time"], other["data_time"]
    assert other == pytest.approx(one)


def test_gradient_is_clipped_after_it_is_logged_and_before_it_is_used(make_step):
    model = Toy()
    found = logged(run(make_step(model, [[sample(3.0)]], clip=clip_norms(0.5, 2.0))))
    assert found["grad_norm"] == pytest.approx(3.0)
    assert model.weight.item() == pytest.approx(2.0 - 0.1 * 0.5)


# -- policy ---------------------------------------------------------------------------------------


def test_abort_leaves_the_weights_and_the_message_is_one_line(make_step, tmp_path):
    model = Toy()
    step = make_step(model, [[sample(NAN, name="x/bad.png", row=7), sample(name="y.png")]])
    step.iter = 41
    with pytest.raises(DivergedError) as caught:
        run(step)
    text = str(caught.value)
    assert text.startswith("iteration 41: the loss is not finite (loss_a=nan, loss_b=0); verdict: ")
    assert "image: x/bad.png (row 7): not finite by itself, unlike other images" in text
    assert str(tmp_path / "non_finite/iter_0000041_rank0.json") in text
    assert "\n" not in text
    assert model.weight.item() == 2.0


def test_target_that_breaks_the_contract_stops_before_the_forward_pass(make_step):
    class Unreached(Toy):
        def forward(self, batch):
            raise NotImplementedError

    bad = sample(boxes=((0, 0, 4, 8), (5, 5, 5, 9)), name="b.png", row=3)
    with pytest.raises(
        TargetError, match=r"verdict: data: b\.png \(row 3\): target box 1 \[5\.0, 5\.0, 5\.0, 9"
    ):
        run(make_step(Unreached(), [[sample(), bad]]))


def state_of(step):
    buffer = io.BytesIO()
    everything = {"model": step.model.state_dict(), "trainer": step.state_dict()}
    everything["trainer"].pop("skipped_steps")
    torch.save(everything, buffer)
    return buffer.getvalue()


class NanGradient(WithMemory):
    """A value of -1 gives a finite loss whose gradient is not."""

    def forward(self, batch):
        losses = super().forward(batch)
        if any(s["value"] == -1 for s in batch):
            losses["loss_a"] = losses["loss_a"] + (self.linear.weight.sum() * 0).sqrt()
        return losses


@pytest.mark.parametrize("where", ["targets", "loss", "gradient"])
def test_skip_leaves_everything_to_the_bit_as_it_was(make_step, caplog, where):
    sound = [sample(1.0), sample(2.0)]
    bad = {
        "targets": [sample(2.0), sample(boxes=((5, 5, 5, 9),))],
        "loss": [sample(NAN), sample(2.0)],
        "gradient": [sample(-1.0), sample(2.0)],
    }[where]
    torch.manual_seed(0)
    model = NanGradient()
    step = make_step(model, [sound, bad, sound], momentum=0.9, policy="skip", budget=1)
    with EventStorage(0) as storage:
        step.run_step()
        before = state_of(step)
        step.run_step()
        assert state_of(step) == before
        assert logged(storage)["skipped_steps"] == 1
        step.run_step()
    assert state_of(step) != before
    (warning,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert "Skipped (1 of 1)" in warning.getMessage()
    assert "verdict: " in warning.getMessage()


def test_budget_is_counted_over_resumes_and_the_run_ends_beyond_it(make_step):
    bad = [[sample(NAN), sample(1.0)]] * 3
    step = make_step(Toy(), bad, policy="skip", budget=2)
    run(step)
    resumed = make_step(Toy(), bad, policy="skip", budget=2)
    resumed.load_state_dict(step.state_dict())
    run(resumed)
    with pytest.raises(DivergedError, match=r"NON_FINITE\.BUDGET is used up: 2 steps were skipped"):
        run(resumed)
    assert resumed.guard.skipped == 2


def test_skipped_step_reports_no_loss(make_step):
    found = run(make_step(Toy(), [[sample(NAN)]], policy="skip", budget=1))
    assert set(found.histories()) == {"skipped_steps"}


@pytest.mark.parametrize("name", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_first_step_left_out_changes_nothing_and_is_no_wrong_order(make_step, recwarn, name, kind):
    class Steep(Toy):
        def forward(self, batch):
            return {"loss_a": self.weight.half() * sample_value(batch)}

    def sample_value(batch):
        return batch[0]["value"]

    value = NAN if name == "fp32" else 1.0  # whose gradient overflows at the first scale
    precision = Precision(name)
    step = make_step(Steep(), [[sample(value)]], policy="skip", budget=1, precision=precision)
    step.optimizer = kind(step.model.parameters(), lr=0.1, weight_decay=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(step.optimizer, 1)
    found = logged(run(step))
    schedule.step()
    assert step.model.weight.item() == 2
    assert step.optimizer.state_dict()["state"] == {}
    assert "grad_norm" not in found
    assert found["skipped_steps"] == (name == "fp32")
    assert step.precision.scale == {"fp32": 1, "fp16": 32768}[name]
    assert [str(warning.message) for warning in recwarn] == []


# -- precision ------------------------------------------------------------------------------------


class HalfToy(nn.Module):
    """A linear layer, which autocast computes in 16 bits."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dtypes = set()

    def forward(self, batch):
        rows = torch.stack([torch.full((4,), s["value"]) for s in batch])
        out = self.linear(rows)
        self.dtypes.add(out.dtype)
        return {"loss_a": out.float().square().mean()}


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_forward_pass_and_validation_compute_in_the_precision_asked_for(make_step, name, dtype):
    step = make_step(HalfToy(), [[sample(0.5)]], precision=Precision(name))
    run(step)
    with step.autocast():
        step.model([sample(0.5)])
    assert step.model.dtypes == {dtype}
    assert step.model.linear.weight.dtype == torch.float32


def test_scale_changes_neither_step_nor_logged_gradient(make_step):
    found = {}
    for name in ("fp32", "fp16"):
        torch.manual_seed(0)
        step = make_step(HalfToy(), [[sample(0.5)]], precision=Precision(name))
        found[name] = (logged(run(step)), step.model.linear.weight.detach().clone())
    torch.testing.assert_close(found["fp16"][1], found["fp32"][1], atol=1e-3, rtol=1e-2)
    assert found["fp16"][0]["grad_norm"] == pytest.approx(found["fp32"][0]["grad_norm"], rel=0.02)
    assert found["fp16"][0]["loss_scale"] == 65536


def test_overflow_is_the_scalers_business_until_scaling_cannot_be_the_reason(make_step):
    """Gradients of 6e4 overflow fp16 at any scale above 1, and those of 1e9 at every scale."""

    class Steep(HalfToy):
        def forward(self, batch):
            return {"loss_a": (self.linear(torch.ones(1, 4)) * batch[0]["value"]).float().sum()}

    step = make_step(Steep(), [[sample(1e9)]] * 40, lr=0.0, precision=Precision("fp16"))
    step.model.linear.weight.data.zero_()
    step.model.linear.bias.data.zero_()
    before = step.model.linear.weight.detach().clone()
    with EventStorage(0) as storage:
        for expected in (2.0**exponent for exponent in range(15, -1, -1)):
            step.run_step()
            assert logged(storage)["loss_scale"] == expected
        assert "grad_norm" not in storage.histories()
        assert torch.equal(step.model.linear.weight, before)
        with pytest.raises(DivergedError, match="the loss is finite, the gradient is not"):
            step.run_step()


def test_skip_leaves_the_scale_and_the_next_step_works(make_step):
    class Root(HalfToy):
        def forward(self, batch):
            losses = super().forward(batch)
            if batch[0]["value"] == -1:
                losses["loss_a"] = losses["loss_a"] + (self.linear.weight.sum() * 0).sqrt()
            return losses

    bad, sound = [sample(-1.0)], [sample(0.5)]
    precision = Precision("fp16")
    precision.load_state_dict({**precision.state_dict(), "scale": 1.0, "_growth_tracker": 5})
    step = make_step(Root(), [sound, bad, sound], policy="skip", budget=1, precision=precision)
    run(step)
    before = state_of(step)[:], precision.state_dict()
    with EventStorage(0):
        step.run_step()
    assert precision.state_dict() == before[1]
    run(step)
    assert precision.state_dict()["_growth_tracker"] == 7


# -- state ----------------------------------------------------------------------------------------


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_state_restores_optimizer_scale_count_and_generators_through_a_file(make_step):
    batches = [[sample(1.0), sample(0.3)]] * 4
    torch.manual_seed(0)
    model = WithMemory()
    options = {"momentum": 0.9, "policy": "skip", "budget": 5}
    step = make_step(model, batches, precision=Precision("fp16"), **options)
    start = {**step.precision.state_dict(), "scale": 64.0}
    step.precision.load_state_dict(start)
    run(step, steps=2)
    step.guard.skipped = 3
    weights, state = through_a_file([model.state_dict(), step.state_dict()])
    run(step, steps=2)
    expected = state_of(step)

    torch.rand(3), np.random.rand(3), random.random()
    resumed = make_step(WithMemory(), batches, precision=Precision("fp16"), **options)
    resumed.model.load_state_dict(weights)
    resumed.load_state_dict(state)
    assert resumed.guard.skipped == 3
    assert resumed.iter == 2
    run(resumed, steps=2)
    assert state_of(resumed) == expected
    assert resumed.precision.state_dict() == {**start, "_growth_tracker": 4}


def test_state_of_detectron2s_own_trainer_is_taken(make_step, caplog):
    step = make_step(Toy(), [[sample()]], momentum=0.9)
    run(step)
    theirs = {**TrainerBase.state_dict(step), "optimizer": step.optimizer.state_dict()}
    theirs["iteration"] = 17
    resumed = make_step(Toy(), [[sample()]], momentum=0.9, precision=Precision("fp16"))
    resumed.load_state_dict(through_a_file(theirs))
    assert (resumed.iter, resumed.guard.skipped, resumed.precision.scale) == (17, 0, 65536)
    assert "the checkpoint has no loss scale" in caplog.text
    with_scaler = {**theirs, "grad_scaler": {**resumed.precision.state_dict(), "scale": 8.0}}
    resumed.load_state_dict(through_a_file(with_scaler))
    assert resumed.precision.scale == 8


# -- builder --------------------------------------------------------------------------------------


@pytest.fixture
def cfg(tmp_path):
    cfg = default_config()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.SOLVER.IMS_PER_BATCH = 6
    return cfg


def test_builder_reads_the_configuration(cfg, tmp_path):
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = True, "bf16"
    cfg.SOLVER.ACCUMULATE = 3
    cfg.NON_FINITE.POLICY, cfg.NON_FINITE.BUDGET = "skip", 4
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.SEED = 7, 11
    model = Toy()
    step = build_step(cfg, model, [], torch.optim.SGD(model.parameters(), lr=1.0))
    assert (step.precision.name, step.accumulate, step.num_classes, step.seed) == ("bf16", 3, 7, 11)
    assert (step.guard.policy, step.guard.budget) == ("skip", 4)
    assert step.guard.evidence.folder == tmp_path / "non_finite"


def test_builder_refuses_parts_that_do_not_divide_the_batch(cfg):
    cfg.SOLVER.ACCUMULATE = 4
    model = Toy()
    with pytest.raises(ConfigError, match=r"ACCUMULATE is 4, which does not divide the 6 images"):
        build_step(cfg, model, [], torch.optim.SGD(model.parameters(), lr=1.0))


def test_guard_that_cannot_write_still_says_the_verdict(make_step, tmp_path, caplog):
    (tmp_path / "non_finite").write_text("a file where the folder should be")
    with pytest.raises(
        DivergedError, match=r"verdict: image: a\.png.*without such steps$"
    ) as caught:
        run(make_step(Toy(), [[sample(NAN)]]))
    assert "see " not in str(caught.value)
    assert caplog.text.count("cannot write") == 3


def test_isolation_that_fails_still_names_the_images(make_step):
    step = make_step(Toy(), [])
    broken = Violation(TARGETS, "something", step._suspects([{"file_name": "c.png"}]), {})
    with pytest.raises(DivergedError, match=r"isolating the culprit failed \(KeyError.*c\.png"):
        step._settle(broken, None)
