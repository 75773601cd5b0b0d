"""Cascade R-CNN and X101-32x8d in both engines: the same weights, steps and detections.

Runs where Detectron2 is installed next to d2pd; the largest differences are printed with ``-s``.
"""

import pytest
import torch

pytest.importorskip("detectron2", reason="compares with an installed Detectron2")
from parity_toys import (
    BATCHES,
    DETECTRON2,
    EMBEDDED,
    GROUP,
    IN_1X1,
    IN_3X3,
    ONE_CLASS,
    R18,
    R50,
    SCALARS,
    SCALARS_OF_HEADS,
    SCALARS_OF_RPN,
    TRAINED,
    X101,
    beyond_bars,
    build,
    build_pair,
    detect,
    differences_of_found,
    differences_of_steps,
    make_inputs,
    of_all,
    relative,
    train_step,
)

CASCADE = {
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
}
CASES = {
    "cascade_r18_frozen": {**R18, **CASCADE},
    "cascade_r18_trained_one_class": {**R18, **TRAINED, **CASCADE, **ONE_CLASS},
    "cascade_r50_group": {**R50, **IN_3X3, **GROUP, **CASCADE},
    "cascade_r50_frozen_1x1_one_class": {**R50, **IN_1X1, **CASCADE, **ONE_CLASS},
    "cascade_r50_trained_3x3": {**R50, **IN_3X3, **TRAINED, **CASCADE},
    "cascade_of_two_stages": {
        **R18,
        **CASCADE,
        "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.65],
        "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [[8.0, 9.0, 4.0, 5.0], [15.0] * 4],
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "giou",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 2.0,
    },
    "x101_frozen_one_class": {**X101, **IN_3X3, **ONE_CLASS},
    "x101_group": {**X101, **IN_3X3, **GROUP},
    "cascade_x101_group_one_class": {**X101, **IN_3X3, **GROUP, **CASCADE, **ONE_CLASS},
}
QUICK = ("cascade_r18_frozen", "cascade_r18_trained_one_class", "cascade_r50_group")


def each_case():
    """Let a test run on the quick cases, and on the others where slow tests run."""
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]


def num_classes_of(case):
    return CASES[case].get("MODEL.ROI_HEADS.NUM_CLASSES", 3)


@pytest.mark.parametrize("case", each_case())
def test_the_same_seed_gives_the_same_weights_in_the_same_order(case):
    reference, ours = (build(engine, CASES[case]) for engine in (DETECTRON2, EMBEDDED))
    expected, got = reference.state_dict(), ours.state_dict()
    assert list(got) == list(expected)
    for name in expected:
        assert torch.equal(got[name], expected[name]), name
    trainable = [name for name, p in reference.named_parameters() if p.requires_grad]
    assert [name for name, p in ours.named_parameters() if p.requires_grad] == trainable


@pytest.mark.parametrize("case", each_case())
def test_training_and_detection_agree(case):
    reference, ours = build_pair(CASES[case])
    for batch in BATCHES:
        expected_inputs, inputs = (
            make_inputs(batch, num_classes_of(case), engine) for engine in (DETECTRON2, EMBEDDED)
        )
        expected_found, found = detect(reference, expected_inputs), detect(ours, inputs)
        assert sum(map(len, found.classes)) >= 5
        expected = train_step(reference, expected_inputs, DETECTRON2)
        step = train_step(ours, inputs, EMBEDDED)
        assert step.scalars == pytest.approx(expected.scalars)
        differences = differences_of_found(found, expected_found)
        differences |= differences_of_steps(step, expected)
        told = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        print(f"\n{case} {batch}: {sum(map(len, found.classes))} detections; {told}")
        assert beyond_bars(differences) == {}


def test_losses_and_scalars_of_the_stages_are_detectron2s():
    case = CASES["cascade_r18_frozen"]
    pair = zip(build_pair(case), (DETECTRON2, EMBEDDED), strict=True)
    expected, step = (
        train_step(model, make_inputs("three_images", 3, engine), engine) for model, engine in pair
    )
    of_stages = {f"stage{stage}/{name}" for stage in range(3) for name in SCALARS_OF_HEADS}
    samples = {name for name in SCALARS if name.startswith("roi_head/")}
    drawn_once = samples | {f"stage0/{name}" for name in samples}
    assert set(expected.scalars) == SCALARS_OF_RPN | samples | of_stages - drawn_once
    assert step.scalars == expected.scalars
    assert list(step.losses) == list(expected.losses)
    # Each stage has objects, or their losses and scalars would prove nothing.
    assert all(step.losses[f"loss_box_reg_stage{stage}"] > 0 for stage in range(3))


REG_WEIGHTS = "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"
OTHER_WEIGHTS = [[10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0], [30.0, 30.0, 15.0, 16.0]]


@pytest.mark.parametrize(
    ("other", "seen"),
    [
        ({"MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6, 0.8]}, {"losses", "gradients"}),
        ({REG_WEIGHTS: OTHER_WEIGHTS}, {"losses"}),  # L1: the same gradient but for its sign
    ],
)
def test_the_bars_see_another_cascade(other, seen):
    case = CASES["cascade_r18_frozen"]
    reference = build_pair(case)[0]
    ours = build(EMBEDDED, {**case, **other})
    ours.load_state_dict(reference.state_dict())
    step, expected = (
        train_step(model, make_inputs("three_images", 3, engine), engine)
        for model, engine in ((ours, EMBEDDED), (reference, DETECTRON2))
    )
    assert set(beyond_bars(differences_of_steps(step, expected))) == seen


def test_twenty_steps_on_the_same_batches_keep_the_losses():
    case = CASES["cascade_r18_trained_one_class"]
    runs = []
    for model, engine in zip(build_pair(case), (DETECTRON2, EMBEDDED), strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9, weight_decay=1e-4)
        batches = [make_inputs(batch, 1, engine) for batch in BATCHES]
        losses = []
        for iteration in range(20):
            step = train_step(model, batches[iteration % len(batches)], engine, seed=iteration)
            optimizer.step()
            losses.append(step.losses)
        runs.append(losses)
    expected, got = runs
    difference = max(of_all(relative, *pair) for pair in zip(got, expected, strict=True))
    print(f"\ntwenty steps: largest relative difference of a loss {difference:.1e}")
    assert difference < 1e-3
