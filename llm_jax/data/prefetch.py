"""Batches prepared ahead by threads, while the step before them runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_jax.data.batch import Rows
    from llm_jax.data.batches import Batches

# Tokens that the prefetcher reads together, and how many such groups it keeps ready, 2 MB each.
GROUP_TOKENS = 2**17
GROUPS_AHEAD = 3


class Prefetch:
    """Iterator of (step, batch); two threads prepare the next batches in groups.

    An exception in a thread is raised by the `next` that would have given its batch. Use as a
    context manager, or call `close`.
    """

    def __init__(self, batches: Batches, start: int, end: int | None) -> None:
        self._batches = batches
        self._next, self._end = start, end
        self._group = max(1, GROUP_TOKENS // (batches.batch_size * batches.seq_len))
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="batches")
        self._ready: deque[tuple[int, Rows]] = deque()
        self._ahead: deque[tuple[int, Future[list[Rows]]]] = deque()
        for _ in range(GROUPS_AHEAD):
            self._submit()

    def _submit(self) -> None:
        count = self._group if self._end is None else min(self._group, self._end - self._next)
        if count > 0:
            future = self._pool.submit(self._batches.run, self._next, count)
            self._ahead.append((self._next, future))
            self._next += count

    def __iter__(self) -> Iterator[tuple[int, Rows]]:
        return self

    def __next__(self) -> tuple[int, Rows]:
        if not self._ready:
            if not self._ahead:
                raise StopIteration
            first, future = self._ahead[0]
            self._ready.extend(enumerate(future.result(), first))  # an error stays where it is
            self._ahead.popleft()
            self._submit()
        return self._ready.popleft()

    def close(self) -> None:
        """Stops the threads and ends the iterator."""
        self._end = self._next
        self._ready.clear()
        self._ahead.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
