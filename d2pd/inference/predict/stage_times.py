"""How long the stages work on an image, and how many images a second come out at the end."""

import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

Item = TypeVar("Item")

STAGES = ("read", "prepare", "model", "post-process", "draw and write")


class StageTimes:
    """Sums up seconds by stage; each stage is timed by one thread alone.

    Args:
        warm_up: Images that do not count: the first ones wait for memory and for kernels.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._seen: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._all_seconds: dict[str, float] = defaultdict(float)
        self._start = time.perf_counter()
        self._num_done = 0
        self._steady_from: tuple[int, float] = (0, self._start)
        self._last = self._start

    @contextmanager
    def measure(self, stage: str, num_images: int = 1) -> Iterator[None]:
        """Count what happens inside for a stage.

        Args:
            stage: One of ``STAGES``.
            num_images: That it happens to.
        """
        start = time.perf_counter()
        yield
        self._add(stage, time.perf_counter() - start, num_images)

    def measure_each(
        self, stage: str, items: Generator[Item, None, None]
    ) -> Generator[Item, None, None]:
        """Yield items, and count for a stage the time that each takes to come; close them too."""
        with closing(items):
            while True:
                start = time.perf_counter()
                try:
                    item = next(items)
                except StopIteration:
                    return
                self._add(stage, time.perf_counter() - start, 1)
                yield item

    def image_done(self) -> None:
        """Note that an image has left the last stage."""
        self._num_done += 1
        self._last = time.perf_counter()
        if self._num_done == self._warm_up:
            self._steady_from = self._num_done, self._last

    def _add(self, stage: str, seconds: float, num_images: int) -> None:
        self._all_seconds[stage] += seconds
        if self._seen[stage] >= self._warm_up:
            self._seconds[stage] += seconds
            self._counted[stage] += num_images
        self._seen[stage] += num_images

    @property
    def is_warm(self) -> bool:
        """Whether images came after those that do not count."""
        return self._num_done > self._warm_up

    @property
    def seconds_an_image(self) -> float:
        """Wall clock between two images that leave the last stage, once it runs steadily."""
        num_before, since = self._steady_from if self.is_warm else (0, self._start)
        return (self._last - since) / max(1, self._num_done - num_before)

    def of_stage(self, stage: str) -> float:
        """Return the seconds that a stage works on an image; all images where none came after."""
        if self._counted[stage]:
            return self._seconds[stage] / self._counted[stage]
        return self._all_seconds[stage] / max(1, self._seen[stage])
