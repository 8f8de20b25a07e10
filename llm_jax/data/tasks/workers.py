"""Runs tasks a fixed number at a time, each in a process of its own, and those that died again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol

from llm_jax.runs.tasks import AHEAD, ONE_CORE, TRIES, Ended, is_over


class Runner(Protocol):
    """Runs one program to its end; called from several threads at a time."""

    def run(self, module: str, words: tuple[str, ...]) -> Ended: ...

    def stop(self) -> None:
        """Ends all programs that are running."""


class Here:
    """Processes of this machine.

    Args:
      command: what runs a process instead, such as ("srun", "--ntasks=1").
    """

    def __init__(self, command: tuple[str, ...] = ()) -> None:
        self._command = command
        self._running: set[subprocess.Popen[str]] = set()

    def run(self, module: str, words: tuple[str, ...]) -> Ended:
        command = (*self._command, sys.executable, "-m", module, *words)
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | ONE_CORE
        ) as process:
            self._running.add(process)
            said = process.communicate()[1]
            self._running.discard(process)
        return Ended(process.returncode, said)

    def stop(self) -> None:
        for process in list(self._running):
            process.terminate()


class Workers:
    """A fixed number of tasks at a time (`Tasks`).

    Args:
      count: tasks at a time.
      died: called with a sentence when a task died and is run again.
      runner: what runs a task; None: processes of this machine.
      module: the program of a task.
    """

    def __init__(
        self,
        count: int,
        died: Callable[[str], None],
        runner: Runner | None = None,
        *,
        module: str,
    ) -> None:
        self._threads = ThreadPoolExecutor(count)
        self._waiting = threading.Semaphore(count * AHEAD)
        self._died = died
        self._runner = runner or Here()
        self._module = module
        self._futures: list[Future[None]] = []
        self._stopped = threading.Event()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stopped.set()
            self._runner.stop()
        self._threads.shutdown(wait=True, cancel_futures=error is not None)

    def submit(self, *words: object) -> None:
        """See `Tasks`."""
        self._waiting.acquire()
        self._raise(done_only=True)
        self._futures.append(self._threads.submit(self._run, tuple(map(str, words))))

    def join(self) -> None:
        """See `Tasks`."""
        self._raise(done_only=False)

    def _raise(self, *, done_only: bool) -> None:
        waiting = []
        for future in self._futures:
            if future.done() or not done_only:
                future.result()
            else:
                waiting.append(future)
        self._futures = waiting

    def _run(self, words: tuple[str, ...]) -> None:
        try:
            for number in range(1, TRIES + 1):
                if self._stopped.is_set():
                    return
                ended = self._runner.run(self._module, words)
                if self._stopped.is_set() or is_over(words, ended, number, self._died):
                    return
        finally:
            self._waiting.release()
