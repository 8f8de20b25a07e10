"""Work in many processes: what runs tasks, and what becomes of one that ended.

A task is `python -m MODULE FOLDER PASS SHARD …` (`data/tasks/`). A verb sees `Tasks`:
`data/tasks/workers.py` runs them a fixed number at a time, in processes of this machine, by a
command, or on Ray (`launch/tasks/on_ray.py`); `launch/tasks/arrays.py` as job arrays of Slurm.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from llm_jax.config import UserError

SIGNALS = 128
"""An exit code above this is a signal of that number more, as a shell and srun tell it."""
TRIES = 3
"""How often a task may die before that is an error."""
AHEAD = 4
"""Tasks per worker that may wait, so that what they are to read does not fill the disk."""
SAID = 4_000
"""Last characters of what a task wrote to standard error that another machine sends back."""
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
"""Variables of a task's process: there are as many tasks as cores."""


class TaskFailed(UserError):
    """A task failed, or died again and again; what is done is kept."""

    exit_code = 1


class Tasks(Protocol):
    """Runs tasks somewhere, those that died again. Used in a `with`, which ends all tasks if it is
    left by an error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def submit(self, *words: object) -> None:
        """Runs the task `python -m MODULE WORDS`, now or soon; waits while too many tasks do.

        The words are the folder of the work, the pass, the shard, and what more the program takes.

        Raises:
          UserError: an earlier task failed.
        """

    def join(self) -> None:
        """Waits for all tasks; raises as `submit` does."""


class StartTasks(Protocol):
    """What runs the tasks of a verb, as soon as one knows what program they are."""

    def __call__(self, *, module: str) -> Tasks: ...


@dataclass(frozen=True)
class Ended:
    """How a task's process ended.

    Attributes:
      code: its exit code; below 0 if a signal of that number killed it.
      said: what it wrote to standard error.
      died: what ended it from outside, such as "NODE_FAIL on n1"; then `code` says nothing.
      way_out: what to do if it always dies so.
    """

    code: int = 0
    said: str = ""
    died: str = ""
    way_out: str = ""


def is_over(words: tuple[str, ...], ended: Ended, number: int, say: Callable[[str], None]) -> bool:
    """Whether a task is done; False if it died and must run again, which is said.

    Args:
      words: of the task.
      number: of this try, from 1.

    Raises:
      UserError: with exit code 2 and the task's sentence, if that found a mistake of the user's.
      TaskFailed: the task failed, or died the last time.
    """
    name = f"shard {words[2]} of pass {words[1]}"
    code = SIGNALS - ended.code if ended.code > SIGNALS else ended.code
    if code == 0 and not ended.died:
        return True
    if code > 0 and not ended.died:
        said = ended.said.strip()
        last = said.splitlines()[-1] if said else f"exit code {code}"
        raise UserError(last) if code == 2 else TaskFailed(f"The task of {name} failed: {last}")
    how = ended.died or _signal_name(-code)
    if number == TRIES:
        way_out = ended.way_out or "if memory is short, give fewer --workers"
        raise TaskFailed(f"The task of {name} died {TRIES} times, by {how}: {way_out}.")
    say(f"the task of {name} died by {how}; it is run again")
    return False


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in list(signal.Signals) else f"code {number}"
