"""What a model counts in plain attributes survives a resume; what is configured does not."""

import pytest
import torch
from torch import nn

from d2pd.training.running_numbers import RunningNumbers


class Normalised(nn.Module):
    """Keeps a running mean as RetinaNet does: an attribute that the first batch makes."""

    def __init__(self, threshold=0.5):
        super().__init__()
        self.threshold = threshold
        self.momentum = 0.9
        self.seen = 0

    def forward(self, x):
        self.seen += 1
        self.normaliser = self.momentum * getattr(self, "normaliser", 100.0) + 0.1 * float(x.sum())
        return x / self.normaliser


def build(threshold=0.5):
    return nn.Sequential(nn.Conv2d(1, 1, 1), Normalised(threshold))


def test_only_what_training_has_changed_is_state():
    model = build()
    numbers = RunningNumbers(model)
    assert numbers.state_dict() == {}
    model(torch.ones(1, 1, 2, 2))
    assert numbers.state_dict() == {"1": {"seen": 1, "normaliser": model[1].normaliser}}


def test_resumed_model_goes_on_with_its_numbers_and_keeps_its_configuration():
    first, second = build(0.5), build(0.7)
    numbers, again = RunningNumbers(first), RunningNumbers(second)
    second.load_state_dict(first.state_dict())
    x = torch.ones(1, 1, 2, 2)
    first(x)
    again.load_state_dict(numbers.state_dict())
    assert torch.equal(first(x), second(x))
    assert second[1].threshold == 0.7
    assert again.state_dict() == numbers.state_dict()


def test_what_is_no_number_or_of_no_module_is_refused():
    numbers = RunningNumbers(build())
    with pytest.raises(TypeError, match="1.seen is a str, not a number"):
        numbers.load_state_dict({"1": {"seen": "many"}})
    with pytest.raises(KeyError, match="head"):
        numbers.load_state_dict({"head": {"seen": 1}})
