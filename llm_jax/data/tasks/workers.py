"""Runs tasks in processes of this machine or by a command, and those that died again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from llm_jax.config import UserError

SIGNALS = 128
"""An exit code above this is a signal of that number more."""
TRIES = 3
"""How often a task may die before the work ends."""
AHEAD = 4
"""Tasks per worker that may wait, so that what they are to read does not fill the disk."""
CURATION = "llm_jax.data.curate.task"
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
"""Variables of a task's process: there are as many tasks as cores."""


class TaskFailed(UserError):
    """A task failed, or died again and again; what is done is kept."""

    exit_code = 1


class Workers:
    """A fixed number of processes at a time, each of which runs one task.

    Args:
      count: processes.
      command: what runs a task, such as ("srun", "--ntasks=1"); nothing: a process of this machine.
      died: called with a sentence when a task died and is run again.
      module: the program of a task.
    """

    def __init__(
        self,
        count: int,
        died: Callable[[str], None],
        command: tuple[str, ...] = (),
        module: str = CURATION,
    ) -> None:
        self._program = (sys.executable, "-m", module)
        self._threads = ThreadPoolExecutor(count)
        self._waiting = threading.Semaphore(count * AHEAD)
        self._died = died
        self._command = command
        self._futures: list[Future[None]] = []
        self._running: set[subprocess.Popen[str]] = set()
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
            for process in list(self._running):
                process.terminate()
        self._threads.shutdown(wait=True, cancel_futures=error is not None)

    def submit(self, *words: object) -> None:
        """Runs `python -m MODULE WORDS`; waits while too many tasks do.

        The words are the folder of the work, the pass, and the shard.

        Raises:
          UserError: an earlier task failed.
        """
        self._waiting.acquire()
        self._raise(done_only=True)
        self._futures.append(self._threads.submit(self._run, tuple(map(str, words))))

    def join(self) -> None:
        """Waits for all tasks; raises as `submit` does."""
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
                if self._stopped.is_set() or self._once(words, number):
                    return
        finally:
            self._waiting.release()

    def _once(self, words: tuple[str, ...], number: int) -> bool:
        """Whether the task ended; raises `UserError` if it failed, or died the last time."""
        command = (*self._command, *self._program, *words)
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | ONE_CORE
        ) as process:
            self._running.add(process)
            said = process.communicate()[1].strip()
            self._running.discard(process)
        code = process.returncode
        if code > SIGNALS:  # as a shell and srun tell it
            code = SIGNALS - code
        if code == 0 or self._stopped.is_set():
            return True
        task = f"shard {words[2]} of pass {words[1]}"
        if code > 0:
            last = said.splitlines()[-1] if said else f"exit code {code}"
            raise UserError(last) if code == 2 else TaskFailed(f"The task of {task} failed: {last}")
        how = signal.Signals(-code).name if -code in list(signal.Signals) else f"code {-code}"
        if number == TRIES:
            raise TaskFailed(
                f"The task of {task} died {TRIES} times, by {how}: if memory is short, give fewer "
                "--workers."
            )
        self._died(f"the task of {task} died by {how}; it is run again")
        return False
