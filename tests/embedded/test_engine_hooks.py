import json
import logging
from unittest import mock

import pytest
import torch
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.param_scheduler import LinearParamScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from d2pd.embedded import hooks
from d2pd.embedded.train_loop import TrainerBase
from d2pd.embedded.writers import JSONWriter


class Loop(TrainerBase):
    """Steps an optimizer without a loss."""

    def __init__(self, lr=1.0):
        super().__init__()
        self.model = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)

    def run_step(self):
        self.optimizer.step()


def run(hook_list, iterations, start=0):
    loop = Loop()
    loop.register_hooks(hook_list)
    loop.train(start, iterations)
    return loop


@given(st.integers(0, 5), st.integers(1, 12), st.booleans())
def test_evaluations_happen_every_period_and_once_at_the_end(period, iterations, at_end):
    evaluate = mock.Mock(return_value={"bbox": {"AP": 3}})
    loop = run([hooks.EvalHook(period, evaluate, eval_after_train=at_end)], iterations)
    during = (iterations - 1) // period if period else 0
    assert evaluate.call_count == during + at_end
    if at_end:
        assert loop.storage.latest()["bbox/AP"] == (3.0, iterations)


def test_no_evaluation_after_a_failed_run():
    evaluate = mock.Mock()
    loop = Loop()
    loop.run_step = mock.Mock(side_effect=RuntimeError)
    loop.register_hooks([hooks.EvalHook(1, evaluate)])
    with pytest.raises(RuntimeError):
        loop.train(0, 3)
    evaluate.assert_not_called()


def test_evaluation_without_results_puts_nothing():
    assert run([hooks.EvalHook(1, dict)], 2).storage.latest() == {}


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        ([1], AssertionError, "must return a dict"),
        ({"a": {"b": "much"}}, ValueError, "must return numbers, got a/b: 'much'"),
    ],
)
def test_evaluation_of_another_form_is_refused(results, error, message):
    with pytest.raises(error, match=message):
        run([hooks.EvalHook(0, lambda: results)], 1)


def test_timer_skips_the_warm_up(caplog):
    with caplog.at_level(logging.INFO):
        loop = run([hooks.IterationTimer(warmup_iter=3)], 10)
    assert [it for _, it in loop.storage.history("time").values()] == list(range(2, 10))
    assert "Overall training speed: 8 iterations" in caplog.text
    assert "Total training time" in caplog.text


def test_rate_is_the_one_that_the_step_used():
    loop = Loop(lr=2.0)
    schedule = torch.optim.lr_scheduler.StepLR(loop.optimizer, 2, gamma=0.5)
    loop.register_hooks([hooks.LRScheduler(scheduler=schedule)])
    loop.train(0, 5)
    assert [v for v, _ in loop.storage.history("lr").values()] == [2.0, 2.0, 1.0, 1.0, 0.5]
    assert loop.storage.smoothing_hints() == {"lr": False}


def test_a_bare_schedule_multiplies_the_rates():
    loop = Loop(lr=4.0)
    loop.register_hooks([hooks.LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0))])
    loop.train(0, 4)
    assert [v for v, _ in loop.storage.history("lr").values()] == [4.0, 3.0, 2.0, 1.0]


def test_schedule_is_the_trainers_where_none_is_given():
    loop, hook = Loop(), hooks.LRScheduler()
    loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, 1, gamma=0.1)
    loop.register_hooks([hook])
    loop.train(0, 3)
    assert hook.state_dict()["last_epoch"] == 3
    other, other_hook = Loop(), hooks.LRScheduler()
    other.scheduler = torch.optim.lr_scheduler.StepLR(other.optimizer, 1, gamma=0.1)
    other.register_hooks([other_hook])
    other.load_state_dict(loop.state_dict())
    assert other.scheduler.last_epoch == 3


def groups(*sizes_and_rates):
    return torch.optim.SGD(
        [
            {"params": [nn.Parameter(torch.zeros(1)) for _ in range(size)], "lr": lr}
            for size, lr in sizes_and_rates
        ]
    )


def test_group_shown_is_the_largest_or_the_most_common():
    best = hooks.LRScheduler.get_best_param_group_id
    assert best(groups((1, 0.1), (3, 0.2), (2, 0.3))) == 1
    assert best(groups((1, 0.1), (1, 0.2), (1, 0.2))) == 1


def test_checkpoints_every_period_and_at_the_end(tmp_path):
    model = nn.Linear(1, 1)
    run([hooks.PeriodicCheckpointer(Checkpointer(model, str(tmp_path)), 2)], 5)
    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert names == ["model_0000001.pth", "model_0000003.pth", "model_final.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == 4


def test_writers_write_every_period_at_the_end_and_what_comes_after(tmp_path):
    path = tmp_path / "metrics.json"
    evaluation = hooks.EvalHook(0, lambda: {"ap": 7})
    timer = hooks.IterationTimer(warmup_iter=0)
    run([timer, evaluation, hooks.PeriodicWriter([JSONWriter(str(path))], period=4)], 6)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [3, 5, 6]
    assert rows[-1]["ap"] == 7.0
    with pytest.raises(AssertionError, match="must be an EventWriter"):
        hooks.PeriodicWriter([print])


def test_callbacks_get_the_trainer():
    seen = []
    moments = ("before_train", "before_step", "after_step", "after_train")
    calls = {
        moment: lambda trainer, moment=moment: seen.append((moment, trainer.iter))
        for moment in moments
    }
    run([hooks.CallbackHook(**calls), hooks.CallbackHook()], 1)
    assert seen == [
        ("before_train", 0),
        ("before_step", 0),
        ("after_step", 0),
        ("after_train", 1),
    ]
