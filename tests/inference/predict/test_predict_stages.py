"""Stages that overlap, batches, times of frames and of stages."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.inference.predict.overlap import THREAD_NAME, Overlap
from d2pd.inference.predict.stage_times import StageTimes
from d2pd.inference.predict.video import FrameClock


def no_thread_is_left():
    return THREAD_NAME not in [thread.name for thread in threading.enumerate()]


def test_stages_in_a_row_give_all_items_in_order():
    with Overlap() as overlap:
        numbers = overlap.ahead((n for n in range(100)), 3)
        squares = overlap.ahead((n * n for n in numbers), 2)
        assert [*squares] == [n * n for n in range(100)]
    assert no_thread_is_left()


def test_stages_work_at_the_same_time():
    at_work = [threading.Event(), threading.Event()]

    def meet(items, own, other):
        for item in items:
            at_work[own].set()
            # Passes once the other stage is at work too.
            assert item != 1 or at_work[other].wait(20)
            yield item

    with Overlap() as overlap:
        first = overlap.ahead(meet(range(6), 0, 1), 1)
        assert [*overlap.ahead(meet(first, 1, 0), 1)] == [*range(6)]


def test_what_a_stage_raises_is_raised_at_the_end_of_the_row():
    def fail():
        yield 1
        raise ValueError("in the first stage")

    with Overlap() as overlap, pytest.raises(ValueError, match="in the first stage"):
        [*overlap.ahead((n for n in overlap.ahead(fail(), 1)), 1)]
    assert no_thread_is_left()


def test_leaving_early_ends_stages_that_wait_and_closes_them():
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    with Overlap() as overlap:
        assert next(overlap.ahead((n for n in overlap.ahead(endless(), 1)), 1)) == 1
    assert closed == [True]
    assert no_thread_is_left()


def test_a_stage_runs_ahead_no_farther_than_there_is_room():
    made = []

    def count():
        for number in range(50):
            made.append(number)
            yield number

    with Overlap() as overlap:
        items = overlap.ahead(count(), 4)
        next(items)
        time.sleep(0.2)
        assert len(made) == 6  # one was taken, four wait, one is in hand


@given(
    st.floats(1, 120),
    st.lists(st.integers(1, 5), min_size=1, max_size=60),
    st.floats(-0.04, 0.04),
)
def test_in_a_video_of_constant_rate_the_time_tells_what_is_missing(fps, steps, error):
    clock, number = FrameClock(fps), 0
    assert clock.tell(0.0) == (0, 0.0)
    for step in steps:
        number += step
        assert clock.tell((number + error) / fps)[0] == number


@given(st.lists(st.floats(0.001, 2), min_size=1, max_size=40))
def test_numbers_and_times_rise_whatever_a_file_states(gaps):
    clock, shown, found = FrameClock(30), 0.0, []
    for gap in gaps:
        found.append(clock.tell(shown))
        shown += gap
    numbers, times = zip(*found, strict=True)
    assert list(numbers) == sorted(set(numbers))
    assert list(times) == sorted(set(times))


def test_frames_of_a_varying_rate_are_counted():
    clock = FrameClock(30)

    found = [clock.tell(time) for time in (0, 0.033, 0.083, 0.116, 0.216)]

    assert [number for number, _ in found] == [0, 1, 2, 3, 4]
    assert [shown for _, shown in found] == [0, 0.033, 0.083, 0.116, 0.216]
    assert clock.tell(0.25, num_failed=2) == (7, 0.25)


def test_a_file_without_times_has_a_constant_rate():
    clock = FrameClock(10)

    found = [clock.tell(0.0) for _ in range(4)]

    assert [number for number, _ in found] == [0, 1, 2, 3]
    assert [shown for _, shown in found] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert clock.tell(0.0, num_failed=2) == (6, pytest.approx(0.6))


def test_times_are_those_of_the_images_after_the_first_ones(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    times = StageTimes(warm_up=2)
    for seconds in (10.0, 10.0, 1.0, 2.0):
        with times.measure("model"):
            clock[0] += seconds
        times.image_done()

    assert times.is_warm
    assert times.of_stage("model") == pytest.approx(1.5)
    assert times.seconds_an_image == pytest.approx(1.5)


def test_what_is_timed_is_closed_although_someone_else_holds_it():
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    items = endless()
    timed = StageTimes(warm_up=0).measure_each("read", items)
    assert next(timed) == 1
    timed.close()
    assert closed == [True]


def test_of_few_images_all_count(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    times = StageTimes(warm_up=3)
    with times.measure("model", 2):
        clock[0] += 4.0
    times.image_done()
    times.image_done()

    assert not times.is_warm
    assert times.of_stage("model") == times.seconds_an_image == 2.0
    assert times.of_stage("draw and write") == 0
