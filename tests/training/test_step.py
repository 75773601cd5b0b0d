"""The step: what it does to the weights, and what it refuses to do to them."""

import pytest
import torch
from torch import nn

from d2pd.d2 import Boxes, EventStorage, Instances
from d2pd.training.step import DivergedError, Step, TargetError, check_targets


class Toy(nn.Module):
    """Loss = weight * value of the batch's first image, so that its gradient is that value."""

    def __init__(self, noise: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.noise = noise

    def forward(self, batch):
        drawn = self.noise * torch.rand(())
        return {"loss_a": self.weight * (batch[0]["value"] + drawn), "loss_b": 0 * self.weight}


class RootOfZero(nn.Module):
    """A finite loss with an infinite gradient."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, batch):
        return {"loss_a": self.weight.sqrt()}


class Raising(nn.Module):
    """A model that notices by itself that it has diverged."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, batch):
        raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")


def sample(value=1.0, boxes=((0, 0, 4, 8),), classes=(0,), name="a.png"):
    instances = Instances((20, 20))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return {"file_name": name, "value": value, "instances": instances}


def make_step(model, batches, lr=0.1, seed=3):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Step(model, batches, optimizer, num_classes=1, seed=seed)


def test_one_step_subtracts_rate_times_gradient_and_logs_the_losses():
    model = Toy()
    step = make_step(model, [[sample(3.0)]])
    with EventStorage(0) as storage:
        step.run_step()
    assert model.weight.item() == pytest.approx(2.0 - 0.1 * 3.0)
    logged = {name: value for name, (value, _) in storage.latest().items()}
    assert logged["loss_a"] == pytest.approx(6.0)
    assert logged["loss_b"] == 0
    assert logged["total_loss"] == pytest.approx(6.0)
    assert logged["grad_norm"] == pytest.approx(3.0)


def test_gradients_do_not_pile_up_from_step_to_step():
    model = Toy()
    step = make_step(model, [[sample(1.0)], [sample(1.0)]])
    with EventStorage(0):
        step.run_step()
        step.run_step()
    assert model.weight.item() == pytest.approx(2.0 - 0.1 - 0.1)


def test_draws_depend_on_seed_and_iteration_and_not_on_the_past():
    def weight_after(iteration, seed=3, drawn_before=0):
        model = Toy(noise=1.0)
        step = make_step(model, [[sample(1.0)]], seed=seed)
        step.iter = iteration
        torch.rand(drawn_before)
        with EventStorage(0):
            step.run_step()
        return model.weight.item()

    assert weight_after(7) == weight_after(7, drawn_before=5)
    assert weight_after(7) != weight_after(8)
    assert weight_after(7) != weight_after(7, seed=4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_names_iteration_loss_and_images(value):
    model = Toy()
    step = make_step(model, [[sample(value, name="x/bad.png"), sample(name="y.png")]])
    step.iter = 41
    with EventStorage(0), pytest.raises(DivergedError) as caught:
        step.run_step()
    text = str(caught.value)
    assert "iteration 41: the loss is not finite (loss_a=" in text
    assert "images of this batch: x/bad.png, y.png" in text
    assert "\n" not in text
    assert model.weight.item() == 2.0


def test_finite_loss_with_infinite_gradient_is_stopped_before_the_optimizer():
    model = RootOfZero()
    step = make_step(model, [[sample(name="g.png")]])
    with EventStorage(0), pytest.raises(DivergedError, match=r"1 parameters \(weight\).*g\.png"):
        step.run_step()
    assert model.weight.item() == 0.0


def test_models_own_check_gets_the_names_of_the_images():
    step = make_step(Raising(), [[sample(name="r.png")]])
    message = r"contain Inf/NaN; images of this batch: r\.png"
    with EventStorage(0), pytest.raises(DivergedError, match=message):
        step.run_step()


def test_sound_targets_pass_and_an_image_without_objects_does_too():
    check_targets([sample(), sample(boxes=(), classes=())], num_classes=1)


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (0, 0, float("nan"), 4), (0, 0, 1e40, 1)]
)
def test_box_without_area_or_not_finite_names_the_image(box):
    bad = sample(boxes=((0, 0, 4, 8), box), classes=(0, 0), name="set00/bad.png")
    with pytest.raises(TargetError, match=r"set00/bad\.png: target box \[.*has no area or is not"):
        check_targets([sample(), bad], num_classes=1)


@pytest.mark.parametrize("label", [-1, 1])
def test_class_out_of_range_names_image_and_key(label):
    with pytest.raises(TargetError, match=r"a\.png: class .* the model has 1 classes.*NUM_CLASSES"):
        check_targets([sample(classes=(label,))], num_classes=1)
