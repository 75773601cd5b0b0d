"""The hooks of the engines: when each acts, and what it puts into the storage."""

from pathlib import Path
from typing import Any

import pytest
import torch
from contract_recording import Contract
from contract_toys import Diary, EmptyLoop, NotingWriter, raised
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn

from d2pd.d2 import DetectionCheckpointer, EventWriter, HookBase, hooks


def loop_with(*found: HookBase, start: int = 0, end: int = 10, step: Any = None) -> EmptyLoop:
    loop = EmptyLoop(step)
    loop.register_hooks(found)
    loop.train(start, end)
    return loop


def evaluated_at(
    period: int, start: int, end: int, *, after_train: bool = True, fail_at: int | None = None
) -> list[int]:
    found: list[int] = []
    loop = EmptyLoop()

    def step(loop: EmptyLoop) -> None:
        if loop.iter == fail_at:
            raise RuntimeError("on purpose")

    loop.step = step
    evaluate = hooks.EvalHook(period, lambda: found.append(loop.iter), after_train)
    loop.register_hooks([evaluate])
    if fail_at is None:
        loop.train(start, end)
    else:
        with pytest.raises(RuntimeError):
            loop.train(start, end)
    return found


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("end", [9, 10])
def test_evaluation_counts(contract: Contract, start: int, end: int) -> None:
    counts = {str(period): evaluated_at(period, start, end) for period in (0, 1, 3, 5, 20)}
    for period, found in counts.items():
        during = [i for i in range(start, end - 1) if int(period) and (i + 1) % int(period) == 0]
        assert found == [*during, end]
    contract(counts)


def test_evaluation_is_left_out_where_it_should_be(contract: Contract) -> None:
    observed = {
        "not after training": evaluated_at(3, 0, 9, after_train=False),
        "failed early": evaluated_at(3, 0, 9, fail_at=7),
        # The last step failed, and the evaluation after training comes nevertheless.
        "failed in the last": evaluated_at(3, 0, 9, fail_at=8),
        "nothing to do": evaluated_at(3, 9, 9),
    }
    assert observed["not after training"] == [2, 5]
    assert observed["failed early"] == [2, 5]
    contract(observed)


def test_evaluation_is_flattened_into_the_storage(contract: Contract) -> None:
    results = {"bbox": {"AP": 51, "sizes": {"small": "12.5"}}, "loss": torch.tensor(0.25)}
    loop = loop_with(hooks.EvalHook(2, lambda: results), end=3)
    latest = loop.storage.latest()
    assert latest["bbox/sizes/small"] == (12.5, 3)
    contract({"latest": latest, "hints": loop.storage.smoothing_hints()})


def test_evaluation_refuses_what_is_no_number(contract: Contract) -> None:
    bad = {
        "word": {"bbox": {"AP": "high"}},
        "list": {"bbox": [1, 2]},
        "none": {"bbox": None},
        "no dictionary": 51.0,
    }
    observed = {
        name: raised(loop_with, hooks.EvalHook(0, lambda result=result: result), end=1)
        for name, result in bad.items()
    }
    assert observed["word"] == "ValueError"
    contract(observed)


def test_evaluation_may_return_nothing(contract: Contract) -> None:
    observed = {}
    for name, result in {"none": None, "empty": {}}.items():
        loop = loop_with(hooks.EvalHook(1, lambda result=result: result), end=2)
        observed[name] = loop.storage.latest()
    assert observed["none"] == {}
    contract(observed)


def checkpoints_of(folder: Path, period: int, start: int, end: int, keep: int | None) -> list[str]:
    folder.mkdir()
    model = nn.Linear(1, 1)
    checkpointer = DetectionCheckpointer(model, str(folder))
    periodic = hooks.PeriodicCheckpointer(checkpointer, period, max_to_keep=keep)
    loop_with(periodic, start=start, end=end)
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize(
    ("period", "start", "end", "keep"),
    [(4, 0, 10, None), (5, 0, 10, None), (20, 0, 3, None), (2, 0, 9, 2), (3, 5, 8, None)],
)
def test_checkpoints_written(
    contract: Contract, tmp_path: Path, period: int, start: int, end: int, keep: int | None
) -> None:
    files = checkpoints_of(tmp_path / "run", period, start, end, keep)
    assert {"last_checkpoint", "model_final.pth"} <= set(files)
    saved = [i for i in range(start, end) if (i + 1) % period == 0]
    wanted = [f"model_{i:07d}.pth" for i in (saved if keep is None else saved[-keep:])]
    assert [name for name in files if name[-5].isdigit()] == wanted
    contract({"files": files})


def test_no_checkpoint_after_a_failure(contract: Contract, tmp_path: Path) -> None:
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path))

    def step(loop: EmptyLoop) -> None:
        if loop.iter == 5:
            raise RuntimeError("on purpose")

    periodic = hooks.PeriodicCheckpointer(checkpointer, 2)
    how = raised(loop_with, periodic, end=9, step=step)
    files = sorted(each.name for each in tmp_path.iterdir())
    assert files == ["last_checkpoint", "model_0000001.pth", "model_0000003.pth"]
    contract({"how": how, "files": files, "last": (tmp_path / "last_checkpoint").read_text()})


@pytest.mark.parametrize(("period", "start", "end"), [(4, 0, 10), (5, 0, 10), (20, 3, 7)])
def test_writers_are_called(contract: Contract, period: int, start: int, end: int) -> None:
    lines: list[Any] = []
    loop_with(hooks.PeriodicWriter([NotingWriter(lines)], period=period), start=start, end=end)
    during = [i for i in range(start, end) if (i + 1) % period == 0 or i == end - 1]
    assert lines == [*(["write", i] for i in during), ["write", end], ["close", end]]
    contract({"lines": lines})


def test_writers_are_closed_after_a_failure(contract: Contract) -> None:
    lines: list[Any] = []
    found = [hooks.PeriodicWriter([NotingWriter(lines), NotingWriter(lines)], period=2)]
    how = raised(loop_with, *found, Diary("d", [], {"after_step": ValueError("on purpose")}), end=9)
    assert how == "ValueError"
    contract(
        {"lines": lines, "default": raised(EventWriter().write), "close": EventWriter().close()}
    )


def test_a_writer_must_be_one(contract: Contract) -> None:
    refused = raised(hooks.PeriodicWriter, [object()])
    assert refused == "AssertionError"
    contract({"refused": refused})


@pytest.mark.parametrize(("warmup", "end"), [(3, 10), (0, 4), (20, 5)])
def test_iteration_timer_counts(contract: Contract, warmup: int, end: int) -> None:
    loop = loop_with(hooks.IterationTimer(warmup_iter=warmup), start=2, end=2 + end)
    found = loop.storage.histories().get("time")
    iterations = [iteration for _, iteration in found.values()] if found else []
    # The last iteration of the warm-up is timed already.
    assert iterations == list(range(2 + max(warmup - 1, 0), 2 + end))
    contract({"iterations": iterations, "hints": loop.storage.smoothing_hints()})


class CountingSchedule(torch.optim.lr_scheduler.LambdaLR):
    """A torch schedule that counts its steps."""

    steps = -1  # torch calls it once to set up

    def step(self, *args: Any) -> None:
        self.steps += 1
        super().step(*args)


def sgd(*rates_and_sizes: tuple[float, int]) -> torch.optim.SGD:
    groups = [
        {"params": [nn.Parameter(torch.zeros(1)) for _ in range(size)], "lr": rate}
        for rate, size in rates_and_sizes
    ]
    return torch.optim.SGD(groups, lr=1.0)


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_the_schedule_is_stepped_once_per_iteration(contract: Contract) -> None:
    optimizer = sgd((1.0, 1), (0.5, 2))
    schedule = CountingSchedule(optimizer, lambda i: 1 / (1 + i))
    loop = loop_with(hooks.LRScheduler(optimizer, schedule), end=5)
    rates = loop.storage.history("lr").values()
    assert schedule.steps == 5
    # The larger group is shown, with the rate that the step used.
    assert [rate for rate, _ in rates] == pytest.approx([0.5 / (1 + i) for i in range(5)])
    contract(
        {
            "rates": rates,
            "steps": schedule.steps,
            "next": [group["lr"] for group in optimizer.param_groups],
            "hints": loop.storage.smoothing_hints(),
        }
    )


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_a_param_scheduler_multiplies_the_rates(contract: Contract) -> None:
    optimizer = sgd((2.0, 1), (0.5, 1), (0.5, 1))
    loop = loop_with(hooks.LRScheduler(optimizer, LinearParamScheduler(1.0, 0.0)), end=4)
    rates = [rate for rate, _ in loop.storage.history("lr").values()]
    assert rates == pytest.approx([0.5, 0.375, 0.25, 0.125])
    contract({"rates": rates, "next": [group["lr"] for group in optimizer.param_groups]})


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_schedule_and_optimizer_are_taken_from_the_trainer(contract: Contract) -> None:
    loop = EmptyLoop()
    loop.optimizer = sgd((1.0, 1))
    loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, 2, 0.1)
    hook = hooks.LRScheduler()
    loop.register_hooks([hook])
    loop.train(0, 4)
    state = hook.state_dict()
    hook.load_state_dict({**state, "last_epoch": 99})
    assert loop.scheduler.last_epoch == 99
    contract(
        {
            "rates": loop.storage.history("lr").values(),
            "state": [state["last_epoch"], state["step_size"]],
            "in the trainer": list(loop.state_dict()["hooks"]),
        }
    )


def test_the_group_that_is_shown(contract: Contract) -> None:
    cases = {
        "largest": [(1.0, 1), (0.5, 3), (0.25, 2)],
        "first of the largest": [(1.0, 2), (0.5, 2)],
        "most common rate": [(1.0, 1), (0.5, 1), (0.5, 1)],
        "one": [(1.0, 1)],
    }
    observed = {
        name: hooks.LRScheduler.get_best_param_group_id(sgd(*groups))
        for name, groups in cases.items()
    }
    assert list(observed.values()) == [1, 0, 1, 0]
    contract(observed)


def test_callbacks_get_the_trainer(contract: Contract) -> None:
    lines: list[Any] = []
    moments = ("before_train", "after_train", "before_step", "after_step")
    hook = hooks.CallbackHook(
        **{moment: lambda trainer, m=moment: lines.append([m, trainer.iter]) for moment in moments}
    )
    loop_with(hook, hooks.CallbackHook(), end=2)
    assert lines[0] == ["before_train", 0]
    assert lines[-1] == ["after_train", 2]
    contract({"lines": lines, "positional": raised(hooks.CallbackHook, print)})
