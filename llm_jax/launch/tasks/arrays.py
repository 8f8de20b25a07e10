"""Tasks as job arrays of Slurm: a pass is one array, or a few where Slurm or the disk is the limit.

    <work>/arrays/NNNN/tasks.json   program and words of each task
    <work>/arrays/NNNN/T.json       how task T ended
    <work>/arrays/NNNN/T.log        what its job wrote

Slurm does not requeue a task by itself: one that died runs again in an array of those that did, and
is counted (`runs/tasks.py`). Arrays that a killed process left behind are cancelled by the next.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from llm_jax.config import UserError
from llm_jax.launch.backends.slurm import SubmitBatch
from llm_jax.launch.forms import check_text, shell_word, slurm_file
from llm_jax.launch.slurm_commands import batch_script, nodes_of, slurm_output, submitted
from llm_jax.launch.tasks.array_task import LIST
from llm_jax.launch.tasks.one_array import Array
from llm_jax.launch.tasks.places import SlurmTasks
from llm_jax.launch.tasks.python import python_lines
from llm_jax.runs.files import write_text
from llm_jax.runs.tasks import AHEAD, TaskFailed, Tasks, is_over

COMMENT = "llm-jax-tasks:"
"""Marks our arrays, with the folder of the work behind it."""
FOLDER = "arrays"
POLL = 1.0
"""Seconds between two looks at the records."""
PATIENCE = 60.0
"""Seconds in which cancelled tasks should have ended; Slurm's KillWait is 30."""


class ArrayTasks(Tasks):
    """Tasks in job arrays, of which one runs at a time while the next is gathered.

    Args:
      count: tasks of an array that run at a time.
      largest: tasks that an array of this cluster may have.
      say: called with a sentence when a task died, or Slurm lets an array wait.
      module: the program of a task.

    Raises:
      UserError: Slurm does not answer, or not as it should.
    """

    def __init__(
        self, place: SlurmTasks, count: int, largest: int, say: Callable[[str], None], module: str
    ) -> None:
        self._place, self._count, self._say, self._module = place, count, say, module
        self._largest = min(largest, count * AHEAD)
        self._next: list[tuple[str, ...]] = []
        self._array: Array | None = None
        self._made = 0
        self._work: Path | None = None

    def __enter__(self) -> ArrayTasks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._work is None:
            return
        if error is not None:
            try:
                cancel(self._work)
            except UserError as failure:
                self._say(f"tasks that are left in Slurm could not be cancelled: {failure}")
        shutil.rmtree(self._work / FOLDER, ignore_errors=True)

    def submit(self, *words: object) -> None:
        """See `Tasks`."""
        task = tuple(map(str, words))
        if self._work is None:
            self._work = Path(task[0])
            cancel(self._work)
            shutil.rmtree(self._work / FOLDER, ignore_errors=True)
        self._next.append(task)
        self._look()
        while self._array is not None and len(self._next) >= self._largest:
            self._wait()
        if self._array is None and len(self._next) >= min(self._count, self._largest):
            self._start_next()

    def join(self) -> None:
        """See `Tasks`."""
        while self._array is not None or self._next:
            if self._array is None:
                self._start_next()
            self._wait()

    def _start_next(self) -> None:
        tasks, self._next = self._next[: self._largest], self._next[self._largest :]
        self._start(tasks, number=1)

    def _start(self, tasks: list[tuple[str, ...]], number: int) -> None:
        assert self._work is not None
        folder = array_folder(self._work, self._made)
        self._made += 1
        listed = {"module": self._module, "tasks": tasks}
        write_text(folder / LIST, json.dumps(listed, ensure_ascii=False))
        action = render(self._place, self._work, folder, str(len(tasks) - 1), self._count)
        try:
            job = submitted(action.argv, action.script)
        except UserError as error:  # whatever was wrong, what is done is kept
            raise TaskFailed(str(error)) from None
        self._array = Array(int(job), folder, tasks, number, self._say)

    def _wait(self) -> None:
        time.sleep(POLL)
        self._look()

    def _look(self) -> None:
        """Sees to tasks that have ended, and to those that died once their array is over."""
        array = self._array
        if array is None:
            return
        for task, ended in array.new():
            if not is_over(task, ended, array.number, self._say):
                array.died.append(task)
        if array.is_over():
            self._array = None
            if array.died:
                self._start(array.died, array.number + 1)


def array_folder(work: Path, made: int) -> Path:
    """Of the array after `made` others."""
    return work / FOLDER / f"{made:04d}"


def render(place: SlurmTasks, work: Path, folder: Path, last: str, count: int) -> SubmitBatch:
    """What submits the array whose list is in `folder`. Pure.

    Args:
      last: number of the last task, or a word for it.
      count: tasks that run at a time.

    Raises:
      ConfigError: the path holds what no option can.
    """
    check_text("--out", str(folder))
    options = [
        "--job-name=llm-jax-tasks",
        f"--comment={COMMENT}{work}",
        f"--output={slurm_file(str(folder))}/%a.log",
        "--no-requeue",
        *place.options(),
    ]
    program = f"-m llm_jax.launch.tasks.array_task {shell_word(str(folder))}"
    lines = [
        *python_lines(place.setup),
        f'exec "$python" {program} "$SLURM_ARRAY_TASK_ID"',
    ]
    argv = ("sbatch", "--parsable", f"--array=0-{last}%{count}")
    return SubmitBatch(argv, batch_script(options, lines))


def check(place: SlurmTasks) -> int:
    """Tasks that an array of this cluster may have.

    Raises:
      UserError: there is no Slurm, no such partition, no job arrays, or no node for such a task.
    """
    nodes_of(place.partition, "--partition")
    slurm_output("sbatch", "--test-only", stdin=batch_script(place.options(), ["true"]))
    for line in slurm_output("scontrol", "show", "config").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize" and int(value) > 1:
            return int(value)
    raise UserError("This Slurm has no job arrays (MaxArraySize): use --run-tasks-with.")


def cancel(work: Path) -> None:
    """Ends our arrays for `work`, whoever submitted them, and waits until they are gone."""
    until = time.monotonic() + PATIENCE
    asked: set[str] = set()
    while jobs := _arrays_of(work):
        if new := jobs - asked:
            slurm_output("scancel", *sorted(new), missing_ok=True)
            asked |= new
        elif time.monotonic() > until:
            return
        time.sleep(POLL)


def _arrays_of(work: Path) -> set[str]:
    lines = slurm_output("squeue", "--me", "--noheader", "--format=%F|%k").splitlines()
    rows = [line.split("|", 1) for line in lines]
    return {job for job, comment in rows if comment == f"{COMMENT}{work}"}
