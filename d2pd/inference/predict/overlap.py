"""Stages that work at the same time: each iterates over the one before it in its own thread."""

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")

THREAD_NAME = "d2pd predict"
POLL = 0.1  # s, after which one who waits looks whether all is to end


class _End:
    """Comes behind the last item of a stage."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Overlap:
    """Context in which stages run ahead of those that take from them.

    What a stage raises is raised where its items are taken. Leaving the context ends all threads,
    whatever they are about to do.
    """

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Overlap":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def ahead(self, stage: Generator[Item, None, None], room: int) -> Iterator[Item]:
        """Let a stage work in a thread of its own.

        Args:
            stage: Its work; closed in its thread.
            room: Items that may wait to be taken; where there are as many, the stage waits.
        """
        waiting: queue.Queue[Any] = queue.Queue(room)
        thread = threading.Thread(
            target=self._fill, args=(stage, waiting), name=THREAD_NAME, daemon=True
        )
        self._threads.append(thread)
        thread.start()
        return self._take(waiting)

    def _fill(self, stage: Generator[Any, None, None], waiting: "queue.Queue[Any]") -> None:
        end = _End()
        try:
            with closing(stage):
                for item in stage:
                    if not self._put(waiting, item):
                        return
        except BaseException as error:  # of whatever kind, it belongs to who takes the items
            end = _End(error)
        self._put(waiting, end)

    def _put(self, waiting: "queue.Queue[Any]", item: Any) -> bool:
        while not self._is_over.is_set():
            try:
                waiting.put(item, timeout=POLL)
            except queue.Full:
                continue
            return True
        return False

    def _take(self, waiting: "queue.Queue[Any]") -> Iterator[Any]:
        while not self._is_over.is_set():
            try:
                item = waiting.get(timeout=POLL)
            except queue.Empty:
                continue
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return
