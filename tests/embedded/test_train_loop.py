import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2pd.embedded.events import get_event_storage, has_event_storage
from d2pd.embedded.train_loop import HookBase, TrainerBase


class Recorder(HookBase):
    def __init__(self, name, log):
        self.name, self.log = name, log

    def note(self, moment):
        self.log.append((self.name, moment, self.trainer.iter, self.trainer.storage.iter))

    def before_train(self):
        self.note("before_train")

    def before_step(self):
        self.note("before_step")

    def after_backward(self):
        self.note("after_backward")

    def after_step(self):
        self.note("after_step")

    def after_train(self):
        self.note("after_train")


class Stateful(HookBase):
    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state_dict):
        self.value = state_dict["value"]


class Loop(TrainerBase):
    fail_at = -1

    def run_step(self):
        if self.iter == self.fail_at:
            raise FloatingPointError("boom")
        self.after_backward()
        get_event_storage().put_scalar("x", self.iter)


@given(st.integers(0, 5), st.integers(0, 6))
def test_each_iteration_runs_once_and_the_storage_follows(start, count):
    loop, log = Loop(), []
    loop.register_hooks([Recorder("a", log)])
    loop.train(start, start + count)
    steps = [iteration for _, moment, iteration, _ in log if moment == "after_step"]
    assert steps == list(range(start, start + count))
    assert all(mine == stored for _, _, mine, stored in log)
    assert (loop.start_iter, loop.max_iter) == (start, start + count)


def test_order_of_calls():
    loop, log = Loop(), []
    loop.register_hooks([Recorder("a", log), None, Recorder("b", log)])
    loop.train(3, 5)
    moments = [(moment, it) for name, moment, it, _ in log if name == "a"]
    step = ["before_step", "after_backward", "after_step"]
    assert moments == [
        ("before_train", 3),
        *((m, 3) for m in step),
        *((m, 4) for m in step),
        ("after_train", 5),
    ]
    # Hook b follows a at each moment.
    assert [name for name, *_ in log] == ["a", "b"] * (len(log) // 2)
    assert [v for v, _ in loop.storage.history("x").values()] == [3.0, 4.0]
    assert not has_event_storage()


def test_after_train_follows_an_error_and_sees_where_it_was(caplog):
    loop, log = Loop(), []
    loop.fail_at = 2
    loop.register_hooks([Recorder("a", log)])
    with pytest.raises(FloatingPointError, match="boom"):
        loop.train(0, 5)
    assert log[-1] == ("a", "after_train", 2, 2)
    assert "Exception during training" in caplog.text
    assert not has_event_storage()


def test_hooks_hold_the_trainer_weakly():
    hook, loop = HookBase(), Loop()
    loop.register_hooks([hook])
    assert hook.trainer.iter == 0
    del loop
    with pytest.raises(ReferenceError):
        _ = hook.trainer.iter


def test_state_of_hooks_goes_by_class_name(caplog):
    loop = Loop()
    loop.register_hooks([HookBase(), Stateful(5), Stateful(6)])
    loop.iter = 9
    state = loop.state_dict()
    assert state == {"iteration": 9, "hooks": {"Stateful": {"value": 5}}}
    assert Loop().state_dict() == {"iteration": 0}
    other, hook = Loop(), Stateful()
    other.register_hooks([hook])
    other.load_state_dict(state)
    assert (other.iter, hook.value) == (9, 5)
    Loop().load_state_dict(state)
    assert "There is no hook Stateful" in caplog.text


def test_mistakes_are_told():
    with pytest.raises(AssertionError, match="must be a HookBase, got Linear"):
        Loop().register_hooks([torch.nn.Linear(1, 1)])
    with pytest.raises(NotImplementedError):
        TrainerBase().train(0, 1)
