"""Kills tasks while a build or a curation runs."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

KILLS = 5


@contextlib.contextmanager
def tasks_killed(work: Path) -> Iterator[list[list[str]]]:
    """In the block, kills `KILLS` of this process's tasks, no task twice.

    Args:
      work: what the tasks' work folder begins with.

    Yields:
      Words of each task that was killed, so far.
    """
    killed: list[list[str]] = []
    ended = threading.Event()

    def kill() -> None:
        draw = random.Random(5)
        while len(killed) < KILLS and not ended.is_set():
            time.sleep(0.5 * draw.random())
            for process in psutil.Process().children():
                with contextlib.suppress(psutil.Error):  # it has just ended
                    task = process.cmdline()[3:]  # after python -m MODULE
                    if task and str(work) in task[0] and task not in killed:
                        process.send_signal(signal.SIGKILL)
                        killed.append(task)
                        break

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        ended.set()
        killer.join()
