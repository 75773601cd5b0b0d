"""The training loop: order and number of the calls of hooks, also when something fails."""

import logging
import weakref
from typing import Any

import pytest
from contract_recording import Contract
from contract_toys import Diary, EmptyLoop, OtherDiary, raised

from d2pd.d2 import HookBase, TrainerBase, get_event_storage

MOMENTS = ("before_train", "before_step", "after_backward", "after_step", "after_train")


def run(
    first: dict[str, BaseException] | None = None,
    second: dict[str, BaseException] | None = None,
    step: Any = None,
    start: int = 0,
    end: int = 2,
) -> tuple[list[Any], EmptyLoop, str]:
    lines: list[Any] = []
    loop = EmptyLoop(step)
    loop.register_hooks([Diary("a", lines, first), Diary("b", lines, second)])
    try:
        loop.train(start, end)
    except BaseException as error:
        return lines, loop, type(error).__name__
    return lines, loop, "returned"


def fail(error: BaseException, at: int = 1) -> Any:
    def step(loop: EmptyLoop) -> None:
        if loop.iter == at:
            raise error

    return step


def test_hooks_are_called_in_the_order_of_registration(contract: Contract) -> None:
    lines, loop, how = run(step=lambda loop: loop.after_backward())
    per_hook = [moment for name, moment, _, _ in lines if name == "a"]
    assert per_hook == [MOMENTS[0], *MOMENTS[1:4], *MOMENTS[1:4], MOMENTS[4]]
    assert [name for name, *_ in lines] == ["a", "b"] * (len(lines) // 2)
    assert how == "returned"
    contract({"lines": lines, "iter": loop.iter, "max_iter": loop.max_iter})


def test_after_train_sees_the_iteration_past_the_last(contract: Contract) -> None:
    lines, loop, _ = run(start=3, end=5)
    assert lines[-1] == ["b", "after_train", 5, 5]
    assert loop.start_iter == 3
    contract({"lines": lines, "iter": loop.iter, "start_iter": loop.start_iter})


def test_a_loop_without_iterations_still_calls_before_and_after(contract: Contract) -> None:
    lines, loop, how = run(start=4, end=4)
    assert [line[1] for line in lines] == ["before_train"] * 2 + ["after_train"] * 2
    contract({"lines": lines, "iter": loop.iter, "how": how})


@pytest.mark.parametrize("moment", ["before_train", "before_step", "after_step", "after_train"])
def test_hooks_after_a_failing_hook(contract: Contract, moment: str) -> None:
    lines, loop, how = run(first={moment: RuntimeError("on purpose")})
    assert how == "RuntimeError"
    # after_train comes even then; what fails there too hides it from the hooks behind.
    assert lines[-1][:2] == (["a", moment] if moment == "after_train" else ["b", "after_train"])
    contract({"lines": lines, "iter": loop.iter, "how": how})


def test_a_failing_step_leaves_the_iteration_where_it_was(contract: Contract) -> None:
    lines, loop, how = run(step=fail(ValueError("on purpose")), end=4)
    assert how == "ValueError"
    assert loop.iter == 1
    assert [line[:2] for line in lines[-2:]] == [["a", "after_train"], ["b", "after_train"]]
    contract({"lines": lines, "iter": loop.iter, "how": how})


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit", "StopIteration"])
def test_what_ends_the_loop_passes_through(contract: Contract, error: str) -> None:
    kind = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}.get(
        error, StopIteration
    )
    lines, loop, how = run(step=fail(kind()), end=4)
    assert how == error
    contract({"lines": lines, "iter": loop.iter, "how": how})


def test_only_exceptions_are_logged(contract: Contract, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("detectron2", "d2pd"):
        logging.getLogger(name).propagate = True
    messages = {}
    for kind in (ValueError, KeyboardInterrupt):
        caplog.clear()
        run(step=fail(kind("on purpose")))
        messages[kind.__name__] = [
            record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR
        ]
    assert messages["KeyboardInterrupt"] == []
    contract(messages)


def test_none_is_no_hook_and_others_are_refused(contract: Contract) -> None:
    loop = EmptyLoop()
    loop.register_hooks([None, HookBase(), None])
    refused = raised(loop.register_hooks, [object()])
    assert len(loop._hooks) == 1
    contract({"refused": refused, "hooks": len(loop._hooks)})


def test_hooks_hold_the_trainer_weakly(contract: Contract) -> None:
    loop, hook = EmptyLoop(), HookBase()
    before = hook.trainer
    loop.register_hooks([hook])
    assert isinstance(hook.trainer, weakref.ProxyType)
    alive = hook.trainer.iter
    del loop
    gone = raised(lambda: hook.trainer.iter)
    assert gone == "ReferenceError"
    contract({"before": before, "alive": alive, "gone": gone})


def test_the_storage_is_open_during_the_loop_only(contract: Contract) -> None:
    inside: list[Any] = []
    outside = raised(get_event_storage)
    loop = EmptyLoop(lambda loop: inside.append(get_event_storage() is loop.storage))
    loop.train(2, 4)
    assert inside == [True, True]
    contract(
        {
            "before": outside,
            "inside": inside,
            "after": raised(get_event_storage),
            "kept": loop.storage.iter,
        }
    )


def test_a_base_trainer_has_no_step(contract: Contract) -> None:
    trainer = TrainerBase()
    start = [trainer.iter, trainer.start_iter, hasattr(trainer, "max_iter")]
    assert start == [0, 0, False]
    contract({"start": start, "train": raised(trainer.train, 0, 1)})


class Remembering(Diary):
    """A hook with a state."""

    def state_dict(self) -> dict[str, Any]:
        return {"name": self.name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.name = f"{self.name} was {state['name']}"


class AlsoRemembering(Remembering):
    """Another class of hook with a state."""


def test_state_of_the_first_hook_of_each_class(contract: Contract) -> None:
    loop = EmptyLoop()
    lines: list[Any] = []
    loop.register_hooks(
        [
            Remembering("a", lines),
            OtherDiary("b", lines),
            AlsoRemembering("c", lines),
            Remembering("d", lines),
        ]
    )
    loop.train(0, 3)
    state = loop.state_dict()
    assert state["hooks"] == {"Remembering": {"name": "a"}, "AlsoRemembering": {"name": "c"}}
    contract(state)


def test_state_goes_to_the_first_hook_of_its_class(
    contract: Contract, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("detectron2", "d2pd"):
        logging.getLogger(name).propagate = True
    loop = EmptyLoop()
    hooks = [Remembering("new", []), Remembering("second", [])]
    loop.register_hooks(hooks)
    loop.load_state_dict(
        {"iteration": 41, "hooks": {"Gone": {"x": 1}, "Remembering": {"name": "old"}}}
    )
    warned = sum(record.levelno == logging.WARNING for record in caplog.records)
    assert loop.iter == 41
    contract({"iter": loop.iter, "names": [hook.name for hook in hooks], "warnings": warned})


def test_state_without_stateful_hooks(contract: Contract) -> None:
    loop = EmptyLoop()
    loop.register_hooks([HookBase()])
    assert loop.state_dict() == {"iteration": 0}
    contract({"state": loop.state_dict(), "hook": HookBase().state_dict()})
