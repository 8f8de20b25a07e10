"""What tasks on other machines have written, as this machine sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from llm_jax.runs.tasks import TaskFailed

LAG = 90.0
"""Seconds for which a file of another machine may be missing: NFS keeps for 60 that there was
none."""
POLL = 0.5
"""Seconds between two looks."""


def wait_until(is_there: Callable[[], bool], path: Path) -> None:
    """Waits for the file by which a task that has ended is known to be done.

    Raises:
      TaskFailed: it does not come.
    """
    until = time.monotonic() + LAG
    while not is_there():
        if time.monotonic() >= until:
            raise TaskFailed(
                f"A task has ended, and {path} is not there: give --out on a file system that all "
                "machines share, and run this again to resume."
            )
        time.sleep(POLL)
