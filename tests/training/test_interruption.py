"""Requests to stop: noted when they come, obeyed where it is asked."""

import os
import signal
import threading

import pytest

from d2pd.training.interruption import SAME_MOMENT, TRY_AGAIN, Interruption, StopTraining


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")]
)
def test_signal_becomes_a_request_with_the_shells_exit_code(number, code, name):
    with Interruption() as interruption:
        assert interruption.request() is None
        send(number)
        request = interruption.request()
        assert (request.reason, request.exit_code) == (f"stopped by {name}", code)


def test_second_ctrl_c_stops_at_once(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with Interruption() as interruption:
        send(signal.SIGINT)
        now += SAME_MOMENT
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert interruption.request() is not None


def test_a_signal_that_comes_twice_in_a_moment_is_one():
    with Interruption() as interruption:
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert interruption.request().exit_code == 130


def test_ctrl_c_after_sigterm_is_noted_and_does_not_break_the_saving():
    with Interruption() as interruption:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert interruption.request().exit_code == 130


def test_handlers_are_put_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with Interruption():
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_time_limit_asks_to_come_again_once_it_has_passed(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    interruption = Interruption(limit_minutes=2)
    now = 219.9
    assert interruption.request() is None
    now = 220.0
    request = interruption.request()
    assert request.exit_code == TRY_AGAIN == 75
    assert request.reason == "stopped by the time limit (CHECKPOINT.STOP_AFTER_MINUTES 2)"


def test_no_limit_never_asks(monkeypatch):
    interruption = Interruption()
    monkeypatch.setattr("time.monotonic", lambda: 1e12)
    assert interruption.request() is None


def test_stop_passes_handlers_of_exceptions():
    assert not issubclass(StopTraining, Exception)


def test_outside_the_main_thread_it_works_without_signals():
    found = []

    def work():
        with Interruption() as interruption:
            found.append(interruption.request())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
