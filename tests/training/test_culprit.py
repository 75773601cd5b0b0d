"""Who is to blame: verdict, images and way out, on models that go wrong in one way each."""

import pytest
import torch
from step_toys import NAN, Asserting, Crowd, Root, Toy, sample
from torch import nn

from d2pd.d2 import get_event_storage
from d2pd.training.culprits.culprit import (
    DATA,
    DIVERGENCE,
    GRADIENT,
    IMAGE,
    LOSS,
    MODEL_CHECK,
    TARGETS,
    WHOLE_BATCH,
    Scene,
    Suspect,
    Violation,
    isolate,
)
from d2pd.training.precision import Precision

INF = float("inf")


def judge(model, samples, where=LOSS, control=None, precision="fp32"):
    suspects = [Suspect(4 + index, one, seed=index) for index, one in enumerate(samples)]
    control = control and Suspect(0, control, seed=0)
    scene = Scene(41, model, Precision(precision), 1, control)
    return isolate(Violation(where, "seen", suspects, {}), scene)


def blamed(verdict):
    return [str(suspect) for suspect in verdict.blamed]


def test_labels_come_first_though_weights_are_bad_too():
    model = Toy()
    model.weight.data.fill_(NAN)
    bad = sample(name="b.png", row=9, boxes=((5, 5, 5, 9), (0, 0, 4, 4)))
    verdict = judge(model, [sample(), bad], where=TARGETS)
    assert (verdict.kind, blamed(verdict)) == (DATA, ["b.png (row 9)"])
    assert [(f.index, f.row, f.box, f.rule) for f in verdict.faults] == [
        (5, 9, 0, "box_without_area")
    ]
    assert "diagnose" in verdict.way_out


def test_weights_that_were_not_finite_before_are_named():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model[1].bias.data.fill_(INF)
    verdict = judge(model, [sample()])
    assert (verdict.kind, verdict.parameters) == (DIVERGENCE, ["1.bias"])
    assert verdict.reason == "1 parameters were not finite before this step (1.bias)"
    assert "SOLVER.BASE_LR" in verdict.way_out


@pytest.mark.parametrize(
    ("model", "value", "where"),
    [(Toy(), NAN, LOSS), (Asserting(), -2.0, MODEL_CHECK), (Root(), -1.0, GRADIENT)],
)
def test_image_that_is_not_finite_by_itself_is_named(model, value, where):
    verdict = judge(model, [sample(), sample(value, name="b.png", row=9), sample(3.0)], where)
    assert (verdict.kind, blamed(verdict)) == (IMAGE, ["b.png (row 9)"])
    assert "b.png (row 9): not finite by itself, unlike other images" in verdict.reason
    assert [one.is_finite for one in verdict.alone] == [True, False, True]
    assert "NON_FINITE.POLICY skip" in verdict.way_out


def test_models_own_words_are_kept_with_their_place():
    verdict = judge(Asserting(), [sample(-2.0), sample()], MODEL_CHECK)
    assert verdict.alone[0].error.startswith("a value of -2 (step_toys.py:")


def test_gradient_alone_is_looked_at_only_where_it_is_in_question():
    with_it = judge(Root(), [sample(-1.0), sample(3.0)], GRADIENT)
    assert with_it.alone[1].gradient_norm == pytest.approx(3.0)
    without = judge(Root(), [sample(-1.0), sample(3.0)], LOSS)
    assert without.kind == WHOLE_BATCH
    assert [one.gradient_norm for one in without.alone] == [None, None]


def test_every_image_alone_means_divergence():
    verdict = judge(Toy(), [sample(INF, name="b.png"), sample(INF, name="c.png")])
    assert verdict.kind == DIVERGENCE
    assert "b.png, c.png" in verdict.reason
    assert "SOLVER.BASE_LR" in verdict.way_out


def test_loss_beyond_all_bounds_is_no_sign_of_a_sound_training():
    assert judge(Toy(), [sample(INF), sample(1e9)]).kind == DIVERGENCE
    assert judge(Toy(), [sample(INF), sample(1e3)]).kind == IMAGE
    assert judge(Crowd(), [sample(1e9), sample(1e9)]).kind == DIVERGENCE


@pytest.mark.parametrize(
    ("control", "kind", "words"),
    [
        (None, IMAGE, "there is no image to compare it with yet"),
        (sample(2.0, name="z.png", row=1), IMAGE, "unlike z.png (row 1) of the step before"),
        (sample(INF), DIVERGENCE, "every image by itself"),
        (sample(1e12), DIVERGENCE, "every image by itself"),
    ],
)
def test_single_image_is_compared_with_one_of_the_step_before(control, kind, words):
    verdict = judge(Toy(), [sample(NAN)], control=control)
    assert (verdict.kind, words in verdict.reason) == (kind, True)


def test_images_that_are_finite_one_by_one_leave_the_whole_batch():
    verdict = judge(Crowd(), [sample(name=f"{n}.png") for n in range(6)])
    assert verdict.kind == WHOLE_BATCH
    assert verdict.reason.startswith("each of the 6 images is finite by itself: 0.png, 1.png, ")
    assert verdict.reason.endswith("3.png and 2 more")


@pytest.mark.parametrize(("precision", "mentions_bf16"), [("fp16", True), ("bf16", False)])
def test_what_float32_would_mend_is_said(precision, mentions_bf16):
    class Overflowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1, 1)
            nn.init.constant_(self.linear.weight, 3e4)

        def forward(self, batch):
            rows = torch.tensor([[s["value"]] for s in batch])
            out = self.linear(rows)
            scale = 1e38 if out.dtype == torch.bfloat16 else 1.0
            return {"loss": (out * scale * scale).float().mean() / 1e4}

    for control in (None, sample(1.0)):
        verdict = judge(Overflowing(), [sample(9.0)], precision=precision, control=control)
        assert "in float32 it is finite" in verdict.way_out
        assert ("bf16" in verdict.way_out) is mentions_bf16


def test_each_image_gets_the_seed_of_its_part_and_nothing_is_left_behind():
    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)
            self.weight = nn.Parameter(torch.ones(()))
            self.seen = []

        def forward(self, batch):
            self.seen.append((float(torch.rand(())), float(self.norm.running_mean)))
            get_event_storage().put_scalar("noise", 1.0)
            self.norm(torch.tensor([[batch[0]["value"]], [3.0]]))
            return {"loss": self.weight * batch[0]["value"]}

    model = Noting()
    model.weight.grad = torch.tensor(5.0)
    before = torch.get_rng_state()
    judge(model, [sample(1.0), sample(-1.0), sample(NAN)], GRADIENT)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.weight.grad == 5.0
    assert model.norm.running_mean.item() == 0
    assert model.norm.num_batches_tracked == 0
    expected = []
    for seed in range(3):
        torch.manual_seed(seed)
        expected.append((float(torch.rand(())), 0.0))
    assert model.seen == expected
