"""The order of the training samples: a function of the seed and the position, of nothing else."""

from collections.abc import Iterator

import numpy as np


class TrainingSampler:
    """Endless stream of ``(k, index)``: sample number k shows image ``index``.

    Samples ``[e * size, (e + 1) * size)`` are epoch e: every image once, in an order drawn from
    (seed, e). So the index of sample k depends on (seed, k) alone, and a run that resumes passes
    ``start`` = the number of samples consumed by all ranks so far.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        *,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
    ) -> None:
        """Prepare the stream of one rank.

        Args:
            size: Number of images, at least 1.
            seed: Not negative.
            start: First k of the whole run, over all ranks.
            rank: This process; it gets start + rank, start + rank + world_size, ...
            world_size: Number of processes that share the stream.
            shuffle: False goes through the images in file order, again and again.

        Raises:
            ValueError: If an argument is outside its range.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if seed < 0 or start < 0:
            raise ValueError(f"seed and start must not be negative, got {seed} and {start}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, {world_size}), got {rank}")
        self.size = size
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world_size = world_size
        self.shuffle = shuffle

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield ``(k, index)`` for ever, from ``start`` each time it is called."""
        epoch, order = -1, np.arange(self.size)
        k = self.start + self.rank
        while True:
            if self.shuffle and k // self.size != epoch:
                epoch = k // self.size
                order = epoch_order(self.size, self.seed, epoch)
            yield k, int(order[k % self.size])
            k += self.world_size


def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the images in one epoch: (size,) permutation of 0..size-1.

    ``RandomState`` is the one generator whose numbers NumPy promises to keep from version to
    version, so an old run can be resumed after an update.
    """
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    return np.random.RandomState(bits).permutation(size)


def sample_seed(seed: int, k: int) -> int:
    """Return the seed of sample k's augmentation, in [0, 2**63): a hash of (seed, k)."""
    state = np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
