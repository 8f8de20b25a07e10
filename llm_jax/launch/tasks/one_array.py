"""One job array that was submitted, and how its tasks end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from llm_jax.config import UserError
from llm_jax.launch.slurm_commands import job_fields, slurm_output
from llm_jax.launch.tasks.array_task import record_file
from llm_jax.runs.tasks import Ended, TaskFailed

ASK = 5.0
"""Seconds between two questions to Slurm."""
LAG = 60.0
"""Seconds for which a shared file system may not show a new file; NFS keeps listings so long."""
WAITS = 60.0
"""Seconds after which it is said why an array has not begun."""
SILENCE = 900.0
"""Seconds for which Slurm may fail to answer: its controller is restarted now and then."""
TIME = "give the tasks more time with --time-limit"
DIED = {
    "NODE_FAIL": "",
    "BOOT_FAIL": "",
    "PREEMPTED": "name a --partition in which jobs are not preempted",
    "TIMEOUT": TIME,
    "DEADLINE": TIME,
    "OUT_OF_MEMORY": "give the tasks more --memory",
}
"""State of a task that was ended from outside → the way out if it is so each time."""


class Array:
    """A job array that was submitted.

    Args:
      job: its number in Slurm.
      tasks: words of each, as its list has them.
      number: which try of these tasks this is, from 1.

    Attributes:
      died: tasks that must run again.
    """

    def __init__(
        self,
        job: int,
        folder: Path,
        tasks: list[tuple[str, ...]],
        number: int,
        say: Callable[[str], None],
    ) -> None:
        self._job, self._folder, self._tasks, self._say = job, folder, tasks, say
        self.number = number
        self.died: list[tuple[str, ...]] = []
        self._open = set(range(len(tasks)))
        self._submitted = self._asked = self._answered = time.monotonic()
        self._silent = False
        self._gone: float | None = None
        self._told: set[str] = set()

    def is_over(self) -> bool:
        """Whether `new` has given out every task."""
        return not self._open

    def new(self) -> Iterator[tuple[tuple[str, ...], Ended]]:
        """Each task that has ended since the last call, and how.

        Raises:
          TaskFailed: somebody has cancelled a task, a node does not see the folder, or Slurm has
            not answered for long.
        """
        there = {path.name for path in self._folder.iterdir()}
        for number in sorted(self._open):
            if record_file(self._folder, number).name in there:
                yield self._ended(number, self._recorded(number))
        now = time.monotonic()
        if self._open and now - self._asked >= ASK:
            self._asked = now
            for number, ended in self._told_by_slurm(now):
                yield self._ended(number, ended)

    def _told_by_slurm(self, now: float) -> list[tuple[int, Ended]]:
        """Tasks without a record that Slurm says have ended; none while it does not answer."""
        fates: dict[int, Ended | None] = {}
        try:
            if self._is_listed():
                self._gone = None
            else:
                self._gone = self._gone or now
                late = now - self._gone > LAG
                fates = {number: self._fate(number, is_late=late) for number in self._open}
        except TaskFailed:
            raise
        except UserError as error:
            if now - self._answered > SILENCE:
                raise TaskFailed(f"{error} What is done is kept: run this again later.") from None
            if not self._silent:
                self._say(f"{error} Its tasks may still run, so it is asked again")
            self._silent = True
            return []
        self._answered, self._silent = now, False
        return [(number, fate) for number, fate in sorted(fates.items()) if fate]

    def _ended(self, number: int, ended: Ended) -> tuple[tuple[str, ...], Ended]:
        self._open.discard(number)
        return self._tasks[number], ended

    def _recorded(self, number: int) -> Ended:
        record = json.loads(record_file(self._folder, number).read_text(encoding="utf-8"))
        return Ended(record["code"], record["said"])

    def _is_listed(self) -> bool:
        """Whether a task waits or runs; says why none does if that takes long."""
        words = ("--noheader", f"--jobs={self._job}", "--format=%T|%r")
        lines = slurm_output("squeue", *words, missing_ok=True).splitlines()
        rows = [line.split("|", 1) for line in lines if line]
        if not rows:
            return False
        reason = rows[0][1]
        waits = all(state == "PENDING" for state, _ in rows)
        if waits and time.monotonic() - self._submitted > WAITS and reason not in self._told:
            self._told.add(reason)
            self._say(f"Slurm lets the job array {self._job} wait ({reason})")
        return True

    def _fate(self, number: int, *, is_late: bool) -> Ended | None:
        """How a task ended that is gone without a record; None while that is not clear."""
        job = f"{self._job}_{number}"
        fields = job_fields(job)
        state, node = fields.get("JobState", ""), fields.get("NodeList", "a node")
        killed = int(fields.get("ExitCode", "0:0").partition(":")[2])
        log = self._folder / f"{number}.log"
        if state == "COMPLETED":
            return Ended()
        if state in DIED:
            return Ended(died=f"{state} on {node}", way_out=DIED[state])
        if state == "CANCELLED":
            raise TaskFailed(f"The task {job} of Slurm was cancelled: run this again to resume.")
        if killed and log.exists():
            return Ended(-killed)
        if not is_late:
            return None
        if not state:
            return Ended(died="something that Slurm has forgotten")
        if log.exists():
            return Ended(1, log.read_text(encoding="utf-8", errors="replace"))
        raise TaskFailed(
            f"The task {job} of Slurm ended on {node} and wrote nothing into {self._folder}: give "
            "--out on a file system that all nodes share."
        )
