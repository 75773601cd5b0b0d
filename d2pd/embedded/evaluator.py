"""Runs a model over a dataset and hands what it finds to evaluators."""

import datetime
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from d2pd.embedded import comm

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 5.0
_WARMUP_BATCHES = 5


class DatasetEvaluator:
    """Collects pairs of inputs and outputs with ``process`` and sums them up in ``evaluate``."""

    def reset(self) -> None:
        """Forget everything; called before each round."""

    def process(self, inputs: Any, outputs: Any) -> None:
        """Take the inputs of one call of the model and its outputs, in the same order."""

    def evaluate(self) -> Any:
        """Return figures by task: ``{"bbox": {"AP": 51.2}}``; None where there is nothing."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        super().__init__()
        self._evaluators = evaluators

    def reset(self) -> None:
        """Reset each."""
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Any, outputs: Any) -> None:
        """Let each process the pair."""
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        """Return the figures of all of them; on the main process only.

        Raises:
            AssertionError: If two report the same key (the type that Detectron2 raises).
        """
        merged: dict[str, Any] = {}
        for evaluator in self._evaluators:
            results = evaluator.evaluate()
            if not comm.is_main_process() or results is None:
                continue
            for key, value in results.items():
                if key in merged:
                    raise AssertionError(f"two evaluators report the key {key}")
                merged[key] = value
        return merged


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and back into the mode it had."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@dataclass
class _Stopwatch:
    """Seconds of loading, computing and evaluating since the warm-up."""

    start: float
    data: float = 0.0
    compute: float = 0.0
    evaluation: float = 0.0
    batches: int = 0

    def line(self, done: int, total: int) -> str:
        per_batch = (time.perf_counter() - self.start) / self.batches
        eta = datetime.timedelta(seconds=int(per_batch * (total - done)))
        return (
            f"Inference done {done}/{total}. Dataloading: {self.data / self.batches:.4f} s/iter. "
            f"Inference: {self.compute / self.batches:.4f} s/iter. "
            f"Eval: {self.evaluation / self.batches:.4f} s/iter. "
            f"Total: {per_batch:.4f} s/iter. ETA={eta}"
        )


def inference_on_dataset(
    model: Any,
    data_loader: Any,
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
    callbacks: dict[str, Callable[[], Any]] | None = None,
) -> Any:
    """Run the model on every batch without gradients and evaluate what it returns.

    Args:
        model: Called with a batch; an ``nn.Module`` runs in evaluation mode and then goes back to
            the mode it had.
        data_loader: Batches; has a length.
        evaluator: One, a list, or None to measure the time only.
        callbacks: Functions by moment: ``on_start``, ``before_inference``, ``after_inference``,
            ``on_end``.

    Returns:
        What ``evaluator.evaluate()`` returns; an empty dictionary in place of None.
    """
    if evaluator is None or isinstance(evaluator, Sequence):
        evaluator = DatasetEvaluators(evaluator or [])
    total = len(data_loader)
    logger.info("Start inference on %d batches", total)
    evaluator.reset()
    mode = inference_context(model) if isinstance(model, nn.Module) else nullcontext()
    with mode, torch.no_grad():
        watch = _run(model, data_loader, evaluator, callbacks or {})
    _log_total(watch)
    results = evaluator.evaluate()
    return {} if results is None else results


def _run(
    model: Any, data_loader: Any, evaluator: DatasetEvaluator, callbacks: dict[str, Any]
) -> _Stopwatch:
    total = len(data_loader)
    warmup = min(_WARMUP_BATCHES, total - 1)
    watch = _Stopwatch(time.perf_counter())
    last_line = loading = time.perf_counter()
    _call(callbacks, "on_start")
    for index, inputs in enumerate(data_loader):
        computing = time.perf_counter()
        if index == warmup:
            watch = _Stopwatch(computing)
        else:
            watch.data += computing - loading
        _call(callbacks, "before_inference")
        outputs = model(inputs)
        _call(callbacks, "after_inference")
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        evaluating = time.perf_counter()
        evaluator.process(inputs, outputs)
        loading = time.perf_counter()
        watch.compute += evaluating - computing
        watch.evaluation += loading - evaluating
        watch.batches += 1
        if loading - last_line >= _SECONDS_BETWEEN_LINES:
            logger.info(watch.line(index + 1, total))
            last_line = loading
    _call(callbacks, "on_end")
    return watch


def _call(callbacks: dict[str, Any], moment: str) -> None:
    if moment in callbacks:
        callbacks[moment]()


def _log_total(watch: _Stopwatch) -> None:
    seconds = time.perf_counter() - watch.start
    batches = max(watch.batches, 1)
    logger.info(
        "Total inference time: %s (%.6f s / iter, %.6f of it computing, on %d devices)",
        datetime.timedelta(seconds=int(seconds)),
        seconds / batches,
        watch.compute / batches,
        comm.get_world_size(),
    )
