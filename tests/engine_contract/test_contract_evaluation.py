"""The protocol of evaluators, and ``inference_on_dataset``."""

from typing import Any

import torch
from contract_recording import Contract
from contract_toys import SumEvaluator, raised
from torch import nn

from d2pd.d2 import ENGINE, DatasetEvaluator, DatasetEvaluators, inference_on_dataset


class Doubling(nn.Module):
    """Doubles; writes down its mode and whether gradients are on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[bool]] = []

    def forward(self, batch: list[float]) -> list[dict[str, float]]:
        self.seen.append([self.training, torch.is_grad_enabled()])
        return [{"predicted": 2 * value} for value in batch]


class Silent(DatasetEvaluator):
    """Returns what it is told to."""

    def __init__(self, results: Any) -> None:
        self.results = results

    def evaluate(self) -> Any:
        return self.results


BATCHES = [[1.0, 2.0], [3.0], [4.0]]


def test_evaluators_are_called_in_order(contract: Contract) -> None:
    lines: list[Any] = []
    several = DatasetEvaluators([SumEvaluator("a", lines), SumEvaluator("b", lines)])
    results = inference_on_dataset(Doubling(), BATCHES, several)
    assert results["a"] == {"total": 20.0, "count": 4}
    contract({"lines": lines, "results": results})


def test_a_list_of_evaluators_will_do(contract: Contract) -> None:
    results = inference_on_dataset(Doubling(), BATCHES, [SumEvaluator("a"), SumEvaluator("b")])
    assert list(results) == ["a", "b"]
    contract(results)


def test_without_evaluator(contract: Contract) -> None:
    assert inference_on_dataset(Doubling(), BATCHES, None) == {}
    contract({"results": inference_on_dataset(Doubling(), BATCHES, None)})


def test_mode_and_gradients(contract: Contract) -> None:
    observed: dict[str, Any] = {}
    for training in (True, False):
        model = Doubling().train(training)
        inference_on_dataset(model, BATCHES, None)
        observed[str(training)] = {"inside": model.seen, "after": model.training}
        assert model.seen == [[False, False]] * 3
        assert model.training is training
    contract({**observed, "gradients": torch.is_grad_enabled()})


def test_any_function_is_a_model(contract: Contract) -> None:
    def model(batch: list[float]) -> list[dict[str, float]]:
        return [{"predicted": -value} for value in batch]

    results = inference_on_dataset(model, BATCHES, SumEvaluator())
    assert results["sum"]["total"] == -10
    contract(results)


def test_the_mode_after_a_failing_model(contract: Contract) -> None:
    class Failing(Doubling):
        def forward(self, batch: list[float]) -> Any:
            raise OSError("on purpose")

    model = Failing().train()
    how = raised(inference_on_dataset, model, BATCHES, None)
    assert how == "OSError"
    assert model.training == (ENGINE == "embedded")
    contract(
        {"how": how, "training": model.training, "gradients": torch.is_grad_enabled()},
        differences={"training": "the embedded engine puts the mode back after a failure too"},
    )


def test_callbacks_of_inference(contract: Contract) -> None:
    lines: list[str] = []
    moments = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {moment: lambda m=moment: lines.append(m) for moment in moments}
    inference_on_dataset(Doubling(), BATCHES, None, callbacks=callbacks)
    assert lines == ["on_start", *["before_inference", "after_inference"] * 3, "on_end"]
    contract({"lines": lines})


def test_results_are_merged(contract: Contract) -> None:
    merge = [Silent({"a": 1}), Silent(None), Silent({"b": {"c": 2}}), Silent({})]
    results = DatasetEvaluators(merge).evaluate()
    clash = raised(DatasetEvaluators([Silent({"a": 1}), Silent({"a": 2})]).evaluate)
    assert results == {"a": 1, "b": {"c": 2}}
    assert clash == "AssertionError"
    contract({"results": results, "clash": clash})


def test_results_that_are_not_there(contract: Contract) -> None:
    observed = {
        name: inference_on_dataset(Doubling(), BATCHES, Silent(results))
        for name, results in {"none": None, "empty": {}, "other": 5}.items()
    }
    assert observed["none"] == {}
    contract(observed)


def test_the_base_evaluator(contract: Contract) -> None:
    base = DatasetEvaluator()
    contract(
        {
            "reset": base.reset(),
            "process": base.process([], []),
            "evaluate": base.evaluate(),
            "in a run": inference_on_dataset(Doubling(), BATCHES, base),
        }
    )


def test_loaders_need_a_length(contract: Contract) -> None:
    how = raised(inference_on_dataset, Doubling(), iter(BATCHES), None)
    assert how == "TypeError"
    contract({"how": how})
