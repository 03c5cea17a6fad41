"""Prefetching: threads that work out the next batches while the current one is learned from.

A batch is a function of its position, so there is no state but the position that is asked for. How many
threads there are, how far ahead they are and where the run jumps to changes no batch, only the waiting.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Direct(Generic[T]):
    """As `Prefetcher`, for data that do not exist before they are asked for."""

    def __init__(self, load: Callable[[int], T]) -> None:
        self.get = load

    def close(self) -> None:
        """Nothing is under way."""


class Prefetcher(Generic[T]):
    """`get(position)` is `load(position)`, worked out ahead of time for the positions that follow.

    `load` is called from threads, for instance to read a rank's micro-batches of one step and put them
    into pinned memory. `following` guesses the position that will be asked for after another; a wrong
    guess costs time alone. What `load` raises is raised by the `get` of that position, and by no other.

        with Prefetcher(load, lambda position: position + samples_per_step) as batches:
            batches.get(position)
    """

    def __init__(
        self,
        load: Callable[[int], T],
        following: Callable[[int], int],
        depth: int = 2,
        num_threads: int = 1,
    ) -> None:
        if depth < 1 or num_threads < 1:
            raise ValueError(f"depth and num_threads must be at least 1: {depth}, {num_threads}")
        self._load, self._following, self._depth = load, following, depth
        self._ahead: deque[tuple[int, Future[T]]] = deque()
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="prefetch")

    def get(self, position: int) -> T:
        """What `load` gives for `position`; starts on the positions after it."""
        if not self._ahead or self._ahead[0][0] != position:
            self._forget()
            self._ahead.append((position, self._threads.submit(self._load, position)))
        wanted = self._ahead.popleft()[1]
        last = self._ahead[-1][0] if self._ahead else position
        while len(self._ahead) < self._depth:
            last = self._following(last)
            self._ahead.append((last, self._threads.submit(self._load, last)))
        return wanted.result()

    def close(self) -> None:
        """Stop the threads; what they are working on is finished and thrown away."""
        self._forget()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _forget(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()

    def __enter__(self) -> "Prefetcher[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
