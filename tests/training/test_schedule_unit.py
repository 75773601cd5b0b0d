import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.config_checks import check_config
from d2pd.config_keys import default_config
from d2pd.errors import ConfigError
from d2pd.training.schedule_unit import LENGTHS, resolve_unit


def config(**solver):
    cfg = default_config()
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    return cfg


def in_epochs(**solver):
    given = {"MAX_ITER": 12, "STEPS": (8, 11), "WARMUP_ITERS": 1, "CHECKPOINT_PERIOD": 2}
    return config(UNIT="epoch", IMS_PER_BATCH=8, **{**given, **solver})


def lengths(cfg):
    return {key: cfg[key.split(".")[0]][key.split(".")[1]] for key in LENGTHS}


def test_every_length_and_period_becomes_iterations():
    cfg = in_epochs()
    cfg.TEST.EVAL_PERIOD, cfg.VALIDATION.PERIOD, cfg.EARLY_STOPPING.WARMUP_ITERS = 3, 1, 4

    lines = resolve_unit(cfg, num_images=3456)

    assert lengths(cfg) == {
        "SOLVER.MAX_ITER": 5184,
        "SOLVER.STEPS": (3456, 4752),
        "SOLVER.WARMUP_ITERS": 432,
        "SOLVER.CHECKPOINT_PERIOD": 864,
        "TEST.EVAL_PERIOD": 1296,
        "VALIDATION.PERIOD": 432,
        "EARLY_STOPPING.WARMUP_ITERS": 1728,
    }
    assert lines[0] == "SOLVER.MAX_ITER 12 epochs = 5,184 iterations of 8 images"
    assert lines[1:3] == [
        "SOLVER.STEPS 8 epochs = 3,456 iterations of 8 images",
        "SOLVER.STEPS 11 epochs = 4,752 iterations of 8 images",
    ]
    assert lines[3] == "SOLVER.WARMUP_ITERS 1 epoch = 432 iterations of 8 images"
    assert len(lines) == len(LENGTHS) + 1


def test_steps_that_the_schedule_does_not_use_are_not_a_line():
    cfg = in_epochs(LR_SCHEDULER_NAME="WarmupCosineLR")
    assert not [line for line in resolve_unit(cfg, num_images=100) if "STEPS" in line]


def test_what_is_off_stays_off_and_is_not_a_line():
    cfg = in_epochs(STEPS=(), WARMUP_ITERS=0)
    cfg.TEST.EVAL_PERIOD, cfg.VALIDATION.PERIOD = 0, -1

    lines = resolve_unit(cfg, num_images=100)

    assert [line.split()[0] for line in lines] == ["SOLVER.MAX_ITER", "SOLVER.CHECKPOINT_PERIOD"]
    assert (cfg.TEST.EVAL_PERIOD, cfg.VALIDATION.PERIOD, cfg.SOLVER.WARMUP_ITERS) == (0, -1, 0)
    assert tuple(cfg.SOLVER.STEPS) == ()


def test_resolved_configuration_is_in_iterations_and_stays_as_it_is():
    cfg = in_epochs()
    resolve_unit(cfg, num_images=100)
    once = lengths(cfg)
    assert cfg.SOLVER.UNIT == "iter"

    resolve_unit(cfg, num_images=7)

    assert lengths(cfg) == once
    check_config(cfg)


def test_iterations_are_told_in_epochs():
    cfg = config(MAX_ITER=700, IMS_PER_BATCH=2)
    assert resolve_unit(cfg, num_images=400) == [
        "SOLVER.MAX_ITER 700 iterations of 2 images = 3.5 epochs of 400 images"
    ]
    assert resolve_unit(config(MAX_ITER=1, IMS_PER_BATCH=1), num_images=1) == [
        "SOLVER.MAX_ITER 1 iteration of 1 image = 1.0 epochs of 1 image"
    ]


@given(st.integers(1, 50), st.integers(1, 5000), st.integers(1, 64))
def test_an_epoch_is_every_image_once_to_half_an_iteration(epochs, num_images, batch):
    cfg = in_epochs(MAX_ITER=epochs, STEPS=(), WARMUP_ITERS=0)
    cfg.SOLVER.IMS_PER_BATCH = batch
    resolve_unit(cfg, num_images)
    if epochs * num_images < batch:
        assert cfg.SOLVER.MAX_ITER == 1
    else:
        assert abs(cfg.SOLVER.MAX_ITER * batch - epochs * num_images) <= batch / 2


def test_list_from_yaml_stays_a_list():
    cfg = in_epochs(STEPS=[8, 11])
    resolve_unit(cfg, num_images=8)
    assert cfg.SOLVER.STEPS == [8, 11]


def test_warmup_left_at_its_default_of_iterations_is_refused_in_epochs():
    cfg = in_epochs(WARMUP_ITERS=1000)
    with pytest.raises(ConfigError, match=r"WARMUP_ITERS is 1000, .* set SOLVER.WARMUP_ITERS 1"):
        resolve_unit(cfg, num_images=100)
    assert cfg.SOLVER.UNIT == "epoch"
    assert cfg.SOLVER.MAX_ITER == 12


def test_period_left_at_its_default_is_said_to_lie_beyond_the_end():
    lines = resolve_unit(in_epochs(CHECKPOINT_PERIOD=5000), num_images=8)
    assert (
        "SOLVER.CHECKPOINT_PERIOD 5,000 epochs = 5,000 iterations of 8 images, beyond the end"
        in (lines)
    )
