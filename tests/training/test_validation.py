"""The validation loss: what it is, and that nobody notices it being measured."""

import contextlib
import copy
import logging
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from validation_toys import Mean, Noisy, make_loader, make_sample, with_values

from d2pd.d2 import EventStorage
from d2pd.data.sampler import sample_seed
from d2pd.training.hooks.validation_loss import ValidationLoss
from d2pd.training.interruption import StopTraining
from d2pd.training.isolation import seed_generators
from d2pd.training.validation import (
    ImageLosses,
    exact_sum,
    mean_losses,
    measure_images,
    validation_losses,
)

NAN, INF = math.nan, math.inf


def fingerprint(model: nn.Module) -> dict:
    """Everything that measuring must leave alone; compares to the bit."""
    tensors = {
        **{f"parameter {n}": p for n, p in model.named_parameters()},
        **{f"gradient {n}": p.grad for n, p in model.named_parameters() if p.grad is not None},
        **{f"buffer {n}": b for n, b in model.named_buffers()},
    }
    numpy_state = np.random.get_state()
    return {
        "tensors": {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()},
        "identities": {name: id(tensor) for name, tensor in tensors.items()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "numbers": {
            (name, key): value
            for name, module in model.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, int | float | str)
        },
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (numpy_state[1].tobytes(), *numpy_state[2:]),
        "python": random.getstate(),
    }


def train(model, steps, validate=None, every=1):
    """Plain steps that draw from the global generators; return the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()
    losses = []
    with EventStorage(0):
        for step in range(steps):
            optimizer.zero_grad()
            total = sum(model([make_sample(100 + step, size=(64, 64))]).values())
            total.backward()
            optimizer.step()
            losses.append(float(total.detach()))
            if validate and step % every == 0:
                validate(model)
    return losses


def start(seed=3):
    seed_generators(seed, [])


@pytest.fixture(params=["toy", "FrozenBN", "BN"])
def make_model(request, build_detector):
    """Make the same model each time: the toy, or a small Faster R-CNN."""
    if request.param == "toy":
        return Noisy
    return lambda: build_detector(norm=request.param)


def measure(model, count=3, **kwargs):
    return validation_losses(model, make_loader(count, size=(64, 64)), seed=42, **kwargs)


def test_model_generators_gradients_and_event_storage_are_as_before(make_model):
    start()
    model = make_model()
    train(model, 1)
    before = fingerprint(model)
    with EventStorage(17) as storage:
        storage.put_scalar("loss", 1.0)
        result = measure(model)
        assert storage.iter == 17
        assert storage.latest() == {"loss": (1.0, 17)}
    assert fingerprint(model) == before
    assert math.isfinite(result["total_loss"])


def test_training_with_and_without_it_gives_the_same_weights(make_model):
    def run(validate):
        start()
        model = make_model()
        losses = train(model, 3, validate)
        return losses, {name: t.numpy().tobytes() for name, t in model.state_dict().items()}

    assert run(measure) == run(None)


def test_it_is_the_same_each_time_whatever_the_generators_are(make_model):
    start(1)
    model = make_model()
    model.train()
    first = measure(model)
    start(2)
    model.eval()
    assert measure(model) == first
    assert not model.training
    assert first == validation_losses(model, make_loader(3, size=(64, 64))[::-1], seed=42)


def test_seed_and_index_decide_what_is_drawn():
    model = Noisy()
    sample = make_sample(0)
    seeds = [measure_images(model, [sample], seed)[0].losses["loss_b"] for seed in (1, 2)]
    assert seeds[0] != seeds[1]
    indices = [measure_images(model, [{**sample, "k": k}], 1)[0].losses["loss_b"] for k in (0, 1)]
    assert indices == [seeds[0], indices[1]]
    assert indices[0] != indices[1]


def test_an_image_does_not_see_what_the_one_before_left():
    model, samples = Noisy(), [make_sample(k) for k in range(4)]
    together = measure_images(model, samples, 42)
    alone = [one for sample in samples for one in measure_images(model, [sample], 42)]
    assert together == alone


def test_only_norms_dropout_and_stochastic_depth_are_in_evaluation_mode():
    model = Noisy()
    model.train()
    measure(model, 1)
    quiet = {"norm", "instance_norm", "dropout", "drop_path"}
    assert model.modes == [{name: name not in quiet for name, _ in model.named_modules()}]
    assert model.has_gradients == [False]


def test_loss_of_a_detector_is_that_of_training_with_the_same_draws(build_detector):
    """Frozen norms and no dropout: nothing differs but the generators."""
    model = build_detector(norm="FrozenBN")
    model.train()
    sample = make_sample(5, size=(64, 96))
    with torch.random.fork_rng(), torch.no_grad(), EventStorage(0):
        torch.manual_seed(sample_seed(42, 5))
        expected = {name: float(loss) for name, loss in model([sample]).items()}
    found = validation_losses(model, [[sample]], seed=42)
    assert found == {"total_loss": math.fsum(expected.values()), **expected}
    assert set(expected) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}


def test_an_image_without_objects_has_a_loss(build_detector):
    model = build_detector()
    loader = [[make_sample(0, size=(64, 64), boxes=())]]
    found = validation_losses(model, loader, seed=42)
    assert found["total_loss"] > 0
    assert found["loss_box_reg"] == found["loss_rpn_loc"] == 0


def test_mean_over_images_by_hand():
    found = validation_losses(Mean(), with_values([1.0, 2.0, 6.0]), seed=0)
    assert found == {"total_loss": 3.25, "loss_a": 3.0, "loss_b": 0.25}
    assert next(iter(found)) == "total_loss"


def test_a_batch_is_taken_apart():
    batch = [sample for (sample,) in with_values([1.0, 2.0, 6.0])]
    assert validation_losses(Mean(), [batch], seed=0)["loss_a"] == 3.0


def test_a_loss_that_an_image_lacks_counts_as_nothing():
    images = [
        ImageLosses(0, "a", {"total_loss": 3.0, "loss_a": 1.0, "loss_mask": 2.0}),
        ImageLosses(1, "b", {"total_loss": 2.0, "loss_a": 2.0}),
    ]
    assert mean_losses(images) == {"total_loss": 2.5, "loss_a": 1.5, "loss_mask": 1.0}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.randoms())
def test_mean_does_not_depend_on_the_order(values, rng):
    images = [ImageLosses(k, "", {"total_loss": v}) for k, v in enumerate(values)]
    shuffled = images.copy()
    rng.shuffle(shuffled)
    assert mean_losses(images) == mean_losses(shuffled)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([INF, 1.0], INF),
        ([INF, -INF], NAN),
        ([NAN, 1.0], NAN),
        ([1e308, 1e308], INF),
        ([1e16, 1.0, -1e16], 1.0),
    ],
)
def test_exact_sum_of_what_is_not_finite_and_of_what_cancels(values, expected):
    assert exact_sum(values) == pytest.approx(expected, abs=0, nan_ok=True)


@pytest.mark.parametrize("value", [NAN, INF])
def test_loss_that_is_not_finite_makes_the_mean_so_and_names_the_first_images(value, caplog):
    loader = with_values([1.0, value, value, 2.0, value, value])
    found = validation_losses(Mean(), loader, seed=0)
    assert not math.isfinite(found["total_loss"])
    assert not math.isfinite(found["loss_a"])
    assert found["loss_b"] == 0.25
    assert caplog.messages == [
        f"the validation loss is not finite on 4 of 6 images: image1.png (loss_a {value}); "
        f"image2.png (loss_a {value}); image4.png (loss_a {value}); and 1 more"
    ]


def test_a_model_that_refuses_counts_as_no_number_and_says_why(caplog):
    refusal = FloatingPointError("Predicted boxes\n contain Inf/NaN.")
    found = validation_losses(Mean(), with_values([1.0, refusal]), seed=0)
    assert [math.isnan(value) for value in found.values()] == [True, True, True]
    assert "1 of 2 images: image1.png (Predicted boxes contain Inf/NaN (valid" in caplog.text


def test_a_detector_that_has_diverged_has_no_finite_loss(build_detector, caplog):
    model = build_detector()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(NAN)
    assert not math.isfinite(measure(model, 1)["total_loss"])
    assert "image0.png" in caplog.text


def test_any_other_error_of_the_model_ends_it_and_leaves_no_trace():
    model = Noisy()
    before = fingerprint(model)
    loader = [[make_sample(0)], [{**make_sample(1), "image": torch.zeros(1, 8, 8)}]]
    with pytest.raises(RuntimeError, match="channels"):
        validation_losses(model, loader, seed=0)
    assert fingerprint(model) == before


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_stop_is_obeyed_between_two_images_and_leaves_no_trace(count):
    model = Noisy()
    before = fingerprint(model)

    def check_stop():
        if len(model.modes) == count:
            raise StopTraining("SIGTERM")

    with pytest.raises(StopTraining, match="SIGTERM"):
        measure(model, 4, check_stop=check_stop)
    assert len(model.modes) == count
    assert fingerprint(model) == before


def test_without_an_image_there_is_no_loss():
    with pytest.raises(ValueError, match="no image to measure a validation loss on"):
        validation_losses(Mean(), [], seed=0)


def test_each_image_gets_a_context_of_the_trainings_precision():
    opened = []

    @contextlib.contextmanager
    def autocast():
        opened.append(len(model.modes))
        with torch.autocast("cpu", torch.bfloat16):
            yield

    model = Noisy()
    plain = measure(copy.deepcopy(model))
    low = measure(model, autocast=autocast)
    assert opened == [0, 1, 2]
    assert low["loss_a"] != plain["loss_a"]
    assert low["loss_a"] == pytest.approx(plain["loss_a"], rel=0.05)


def test_progress_is_shown_at_a_terminal_only(capsys, monkeypatch):
    measure(Mean())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    measure(Mean())
    assert "validation" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_the_same_each_time_and_its_generator_is_as_before(build_detector):
    model = build_detector(norm="BN").cuda()
    before = torch.cuda.get_rng_state()
    first = measure(model)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.cuda.manual_seed(1)
    assert measure(model) == first


def run_hook(period, max_iter, results):
    measured = iter(results)
    hook = ValidationLoss(period, "held_out", lambda: next(measured))
    with EventStorage(0) as storage:
        hook.trainer = SimpleNamespace(iter=0, max_iter=max_iter, storage=storage)
        for hook.trainer.iter in range(max_iter):
            storage.iter = hook.trainer.iter
            hook.after_step()
            yield hook, storage


def test_hook_puts_losses_unsmoothed_at_its_own_iteration_and_at_the_last(caplog):
    results = [{"total_loss": 3.0, "loss_cls": 2.0}, {"total_loss": 1.5, "loss_cls": 1.0}] * 2
    seen = []
    with caplog.at_level(logging.INFO, logger="d2pd"):
        for _, storage in run_hook(2, 5, results):
            seen.append(storage.latest().get("val/total_loss"))
    assert seen == [None, (3.0, 1), (3.0, 1), (1.5, 3), (3.0, 4)]
    assert storage.latest()["val/loss_cls"] == (2.0, 4)
    assert storage.smoothing_hints() == {"val/total_loss": False, "val/loss_cls": False}
    assert caplog.messages[1] == "iteration 3: loss on held_out 1.5 (loss_cls 1)"


def test_hook_with_period_0_measures_after_the_last_iteration_only():
    seen = [len(storage.latest()) for _, storage in run_hook(0, 4, [{"total_loss": 1.0}])]
    assert seen == [0, 0, 0, 1]


def test_hook_asked_for_twice_in_an_iteration_measures_once():
    results = [{"total_loss": float(n)} for n in range(2)]  # a third would raise
    for hook, _ in run_hook(1, 2, results):
        hook.run()
