from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.sampler import TrainingSampler, epoch_order, sample_seed

SIZES = st.integers(1, 40)
SEEDS = st.integers(0, 2**32)


def take(count: int, *args: int, **kwargs: object) -> list[tuple[int, int]]:
    return list(islice(TrainingSampler(*args, **kwargs), count))


@given(size=SIZES, seed=SEEDS, start=st.integers(0, 200))
def test_sample_k_is_the_same_whether_reached_from_0_or_started_at(size, seed, start):
    assert take(25, size, seed, start=start) == take(start + 25, size, seed)[start:]


@given(size=SIZES, seed=SEEDS)
def test_every_epoch_shows_every_image_once(size, seed):
    indices = [index for _, index in take(3 * size, size, seed)]
    for epoch in range(3):
        assert sorted(indices[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(size=SIZES, seed=SEEDS, world_size=st.integers(1, 5), start=st.integers(0, 50))
def test_ranks_together_give_the_stream_of_one_process(size, seed, world_size, start):
    ranks = [
        take(10, size, seed, start=start, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    together = [pair for step in zip(*ranks, strict=True) for pair in step]
    assert together == take(10 * world_size, size, seed, start=start)


def test_iterating_twice_starts_again():
    sampler = TrainingSampler(7, 1, start=3)
    assert list(islice(sampler, 9)) == list(islice(sampler, 9))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_order_is_recorded_so_that_old_runs_can_be_resumed():
    assert epoch_order(10, 42, 0).tolist() == [1, 8, 5, 3, 7, 9, 4, 0, 6, 2]
    assert sample_seed(42, 0) == 5732826375231505755


def test_sample_seeds_do_not_repeat():
    assert len({sample_seed(seed, k) for seed in range(20) for k in range(500)}) == 10_000


def test_without_shuffling_the_order_is_that_of_the_file():
    assert take(5, 2, 0, start=1, shuffle=False) == [(1, 1), (2, 0), (3, 1), (4, 0), (5, 1)]


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"seed": -1}, "must not be negative, got -1 and 0"),
        ({"start": -5}, "must not be negative, got 0 and -5"),
        ({"rank": 2, "world_size": 2}, r"rank must be in \[0, 2\), got 2"),
    ],
)
def test_arguments_outside_their_range_are_named(kwargs, text):
    with pytest.raises(ValueError, match=text):
        TrainingSampler(**({"size": 3, "seed": 0} | kwargs))
