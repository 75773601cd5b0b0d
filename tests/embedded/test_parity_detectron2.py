"""One state dict in both engines: the same features, proposals, losses, gradients and detections.

Runs where Detectron2 is installed next to d2pd; the largest differences are printed with ``-s``.
"""

import pytest
import torch

pytest.importorskip("detectron2", reason="compares with an installed Detectron2")
from detectron2.solver import build_lr_scheduler as d2_build_lr_scheduler
from detectron2.solver import build_optimizer as d2_build_optimizer
from parity_toys import (
    BASE,
    BATCHES,
    CASES,
    DETECTORS,
    DETECTRON2,
    EMBEDDED,
    QUICK,
    R18,
    SCALARS,
    SCALARS_OF_RPN,
    beyond_bars,
    build,
    build_pair,
    config,
    detect,
    differences_of_found,
    differences_of_steps,
    make_inputs,
    of_all,
    relative,
    train_step,
)

from d2pd.embedded.solver import build_lr_scheduler, build_optimizer


def each_of(names, quick=QUICK):
    """Let a test run on the quick cases, and on the others where slow tests run."""
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in names]


def num_classes_of(case):
    return {**BASE, **CASES[case]}["MODEL.ROI_HEADS.NUM_CLASSES"]


@pytest.mark.parametrize("case", each_of(CASES))
def test_the_same_seed_gives_the_same_weights_in_the_same_order(case):
    reference, ours = (build(engine, CASES[case]) for engine in (DETECTRON2, EMBEDDED))
    expected, got = reference.state_dict(), ours.state_dict()
    assert list(got) == list(expected)
    for name in expected:
        assert torch.equal(got[name], expected[name]), name
    trainable = [name for name, p in reference.named_parameters() if p.requires_grad]
    assert [name for name, p in ours.named_parameters() if p.requires_grad] == trainable


@pytest.mark.parametrize("case", each_of(CASES))
def test_training_and_detection_agree(case):
    reference, ours = build_pair(CASES[case])
    counts = []
    for batch in BATCHES:
        expected_inputs, inputs = (
            make_inputs(batch, num_classes_of(case), engine) for engine in (DETECTRON2, EMBEDDED)
        )
        expected_found, found = detect(reference, expected_inputs), detect(ours, inputs)
        counts.append(sum(map(len, found.classes)))
        expected = train_step(reference, expected_inputs, DETECTRON2)
        step = train_step(ours, inputs, EMBEDDED)
        assert step.scalars == pytest.approx(expected.scalars)
        assert set(step.scalars) >= SCALARS_OF_RPN
        differences = differences_of_found(found, expected_found)
        differences |= differences_of_steps(step, expected)
        told = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        print(f"\n{case} {batch}: {counts[-1]} detections; {told}")
        assert beyond_bars(differences) == {}
    # Random weights of a deep cascade leave few boxes.
    assert min(counts) >= 1
    assert sum(counts) >= 15


@pytest.mark.parametrize(
    ("other", "seen"),
    [
        ({"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign"}, {"pooled", "box head", "losses"}),
        ({"MODEL.RPN.SMOOTH_L1_BETA": 0.1}, {"losses", "gradients"}),
        ({"MODEL.ANCHOR_GENERATOR.OFFSET": 0.02}, {"proposal boxes, px"}),
    ],
)
def test_the_bars_see_another_model(other, seen):
    reference = build_pair(R18)[0]
    ours = build(EMBEDDED, {**R18, **other})
    ours.load_state_dict(reference.state_dict())
    step, expected = (
        train_step(model, make_inputs("odd_sizes", 3, engine), engine)
        for model, engine in ((ours, EMBEDDED), (reference, DETECTRON2))
    )
    differences = differences_of_steps(step, expected)
    found, expected_found = (
        detect(model, make_inputs("odd_sizes", 3, engine))
        for model, engine in ((ours, EMBEDDED), (reference, DETECTRON2))
    )
    for each in (found, expected_found):  # numbers and classes of detections may differ as well
        each.classes, each.detections = [], [(torch.zeros(1, 4), torch.zeros(1))]
    differences |= differences_of_found(found, expected_found)
    assert seen <= set(beyond_bars(differences))


def test_the_scalars_of_training_are_detectron2s():
    pair = zip(build_pair(R18), (DETECTRON2, EMBEDDED), strict=True)
    expected, scalars = (
        train_step(model, make_inputs("odd_sizes", 3, engine), engine).scalars
        for model, engine in pair
    )
    assert set(expected) == SCALARS
    assert scalars == expected
    assert scalars["rpn/num_pos_anchors"] > 0
    assert scalars["roi_head/num_fg_samples"] > 0


# A decay of the rate and a warm-up within twenty steps, so that the schedules count as well.
SCHEDULE = {
    "SOLVER.BASE_LR": 0.005,
    "SOLVER.WARMUP_ITERS": 5,
    "SOLVER.STEPS": [14],
    "SOLVER.MAX_ITER": 20,
    "SOLVER.BIAS_LR_FACTOR": 2.0,
    "SOLVER.WEIGHT_DECAY_BIAS": 0.0,
    "SOLVER.CLIP_GRADIENTS.ENABLED": True,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 5.0,
}


QUICK_TO_TRAIN = ("r18_frozen", "r18_trained_one_class", "r18_cascade_frozen")


def twenty_steps(model, case, engine):
    """Train on the four batches in turn; return the losses of each step."""
    cfg = config(engine, {**CASES[case], **SCHEDULE})
    is_ours = engine is EMBEDDED
    optimizer = (build_optimizer if is_ours else d2_build_optimizer)(cfg, model)
    schedule = (build_lr_scheduler if is_ours else d2_build_lr_scheduler)(cfg, optimizer)
    batches = [make_inputs(batch, num_classes_of(case), engine) for batch in BATCHES]
    losses = []
    for iteration in range(20):
        step = train_step(model, batches[iteration % len(batches)], engine, seed=iteration)
        optimizer.step()
        schedule.step()
        losses.append(step.losses)
    return losses


@pytest.mark.parametrize("case", each_of(DETECTORS, QUICK_TO_TRAIN))
def test_twenty_steps_on_the_same_batches_keep_the_losses(case):
    reference, ours = build_pair(CASES[case])
    start = {name: p.detach().clone() for name, p in reference.named_parameters()}
    expected = twenty_steps(reference, case, DETECTRON2)
    losses = twenty_steps(ours, case, EMBEDDED)
    by_step = [of_all(relative, *pair) for pair in zip(losses, expected, strict=True)]
    ends = reference.state_dict(), ours.state_dict()
    weights = max(relative(ends[1][name].float(), ends[0][name].float()) for name in ends[0])
    totals = [float(sum(each.values())) for each in expected]
    print(
        f"\n{case}, 20 steps: losses {max(by_step):.1e}, weights at the end {weights:.1e}, total "
        f"{totals[0]:.3f} -> {totals[16]:.3f} on the first batch"
    )
    assert any((ends[0][name] - value).abs().max() > 1e-3 for name, value in start.items())
    assert max(by_step) < 1e-3
    assert weights < 1e-3
