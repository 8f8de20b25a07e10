"""Where the tasks of a pass run: one alone in this process, several in others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from llm_jax.data.tasks.workers import Workers

Words = tuple[object, ...]


class Spread:
    """Runs passes of tasks.

    Args:
      here: does a task in this process, by its words.
      start: starts workers; None: all tasks run in this process.

    Attributes:
      used_processes: whether any task ran in another process.
    """

    def __init__(
        self,
        here: Callable[..., None],
        start: Callable[[], Workers] | None = None,
    ) -> None:
        self.used_processes = False
        self._here = here
        self._start = start

    @contextlib.contextmanager
    def tasks(self) -> Iterator[Tasks]:
        """The tasks of a pass, which end with the block."""
        with contextlib.ExitStack() as running:
            yield Tasks(self._here, None if self._start is None else lambda: self._enter(running))

    def _enter(self, running: contextlib.ExitStack) -> Workers:
        assert self._start is not None
        self.used_processes = True
        return running.enter_context(self._start())


class Tasks:
    """Tasks of one pass; the first waits until it is known whether there is another."""

    def __init__(self, here: Callable[..., None], start: Callable[[], Workers] | None) -> None:
        self._here, self._start = here, start
        self._first: Words | None = None
        self._workers: Workers | None = None

    def submit(self, *words: object) -> None:
        """Runs the task of these words; see `Workers.submit`."""
        if self._start is None:
            self._here(*words)
        elif self._workers is not None:
            self._workers.submit(*words)
        elif self._first is None:
            self._first = words
        else:
            self._workers = self._start()
            self._workers.submit(*self._first)
            self._workers.submit(*words)

    def join(self) -> None:
        """Waits for all tasks; raises as `Workers.submit` does."""
        if self._workers is not None:
            self._workers.join()
        elif self._first is not None:
            self._here(*self._first)
            self._first = None
