import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from d2pd.embedded import evaluator as module
from d2pd.embedded.evaluator import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
)


class Pairs(DatasetEvaluator):
    def __init__(self, key="n"):
        self.key, self.pairs, self.resets = key, [], 0

    def reset(self):
        self.resets += 1
        self.pairs = []

    def process(self, inputs, outputs):
        self.pairs.append((inputs, outputs))

    def evaluate(self):
        return {self.key: len(self.pairs)}


class Net(nn.Module):
    def forward(self, batch):
        assert not self.training
        assert not torch.is_grad_enabled()
        return [x * 2 for x in batch]


@given(st.integers(1, 12))
def test_every_batch_is_processed_once_in_order(count):
    pairs = Pairs()
    pairs.process("left over", None)
    assert inference_on_dataset(Net(), [[i] for i in range(count)], pairs) == {"n": count}
    assert pairs.pairs == [([i], [2 * i]) for i in range(count)]
    assert pairs.resets == 1


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back(training):
    model = Net().train(training)
    inference_on_dataset(model, [[1]], None)
    assert model.training is training
    with pytest.raises(ZeroDivisionError), inference_context(model):
        raise ZeroDivisionError
    assert model.training is training


def test_a_function_will_do_as_model_and_no_evaluator_gives_nothing():
    assert inference_on_dataset(lambda batch: batch, [[1]], None) == {}
    assert inference_on_dataset(lambda batch: batch, [[1]], DatasetEvaluator()) == {}


def test_several_evaluators_merge_and_must_not_collide():
    assert inference_on_dataset(Net(), [[1]], [Pairs("a"), Pairs("b")]) == {"a": 1, "b": 1}
    assert DatasetEvaluators([DatasetEvaluator(), Pairs("a")]).evaluate() == {"a": 0}
    with pytest.raises(AssertionError, match="two evaluators report the key a"):
        DatasetEvaluators([Pairs("a"), Pairs("a")]).evaluate()


def test_callbacks_and_progress(caplog, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", 0.0)
    seen = []
    moments = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {moment: lambda moment=moment: seen.append(moment) for moment in moments}
    with caplog.at_level(logging.INFO):
        inference_on_dataset(Net(), [[1], [2]], None, callbacks=callbacks)
    assert seen == ["on_start", *["before_inference", "after_inference"] * 2, "on_end"]
    assert "Inference done 2/2" in caplog.text
    assert "Total inference time" in caplog.text


def test_an_empty_dataset_is_evaluated():
    assert inference_on_dataset(Net(), [], Pairs()) == {"n": 0}
