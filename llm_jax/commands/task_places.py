"""Flags for where the tasks of `data curate` and `data build` run, shared by the two verbs."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_jax.commands import count_up_to
from llm_jax.config import UserError

if TYPE_CHECKING:
    from llm_jax.launch.tasks.places import RayTasks, SlurmTasks
    from llm_jax.runs.tasks import StartTasks

ON_SLURM = 256
"""Tasks at a time in a job array, unless `--workers` says it."""
FINGERPRINT, LAST = "FINGERPRINT", "LAST"
"""In a dry run, for what follows from the inputs: of a work folder's name, and the last shard."""
OWN = {
    "slurm": ("partition", "account", "time_limit", "setup", "cpus", "memory"),
    "ray": ("ray_address", "cpus", "memory"),
    "local": ("run_tasks_with",),
}
"""Back end → the flags that go with it."""


@dataclass(frozen=True)
class PlannedTasks:
    """Tasks of a pass that are still to come.

    Attributes:
      words: of each, with SHARD for its number, and other words in capitals for what follows
        from the inputs.
      count: how many, or a word for it.
      arrays: job arrays that come before them in their folder.
    """

    module: str
    words: tuple[str, ...]
    count: str
    arrays: int = 0


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tasks")
    add = group.add_argument
    add(
        "--workers",
        type=count_up_to(1024),
        metavar="N",
        help="tasks at a time (default: one per core; 256 on Slurm; what fits on the Ray cluster)",
    )
    add(
        "--backend",
        choices=tuple(OWN),
        default="local",
        help="where tasks run: here, in job arrays of Slurm, or on a Ray cluster "
        "(default: %(default)s)",
    )
    add("--partition", help="of Slurm")
    add("--account", help="of Slurm")
    add("--time-limit", help="of each task on Slurm, as sbatch writes it")
    add("--setup", metavar="LINE", help="shell line that makes llm_jax importable on a Slurm node")
    add("--cpus", type=count_up_to(1024), metavar="N", help="of each task (default: 1)")
    add("--memory", metavar="SIZE", help="of each task, such as 4G")
    add("--ray-address", metavar="HOST:PORT", help="of the Ray cluster's head (default: auto)")
    add(
        "--run-tasks-with",
        metavar="COMMAND",
        help="command that runs a task on a machine that sees the same files, such as "
        "'srun --ntasks=1', in place of --backend",
    )
    add("--dry-run", action="store_true", help="print what would be submitted, and do nothing")


def place_of(args: argparse.Namespace) -> SlurmTasks | RayTasks | None:
    """What the flags say of the place; None is here.

    Raises:
      UserError: a flag belongs to another back end.
      ConfigError: a flag's value has not the form of its place.
    """
    own = OWN[args.backend]
    given = {name: getattr(args, name) for names in OWN.values() for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    if others := sorted(given.keys() - own):
        flag = others[0].replace("_", "-")
        raise UserError(f"--{flag} does not go with --backend {args.backend}: leave it out.")
    from llm_jax.launch.tasks.places import RayTasks, SlurmTasks

    if args.backend == "slurm":
        return SlurmTasks(**given)
    if args.backend == "ray":
        address = given.pop("ray_address", RayTasks.address)
        return RayTasks(address=address, **given)
    return None


@contextlib.contextmanager
def workers_of(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What the flags say of tasks, as `curate` and `build` take it; the place is looked at.

    Raises:
      UserError: there is no such place, or it cannot run tasks.
    """
    place = place_of(args)
    if place is None:
        yield {"workers": _here(args), "say": warn}
        return
    from llm_jax.launch.tasks.places import SlurmTasks

    if isinstance(place, SlurmTasks):
        from llm_jax.launch.tasks import arrays

        largest = arrays.check(place)
        array = partial(arrays.ArrayTasks, place, args.workers or ON_SLURM, largest, warn)
        with _interruptible():
            yield {"workers": array, "say": warn}
        return
    from llm_jax.data.tasks.workers import Workers
    from llm_jax.launch.tasks.on_ray import OnRay

    # Ray prints what happens to its nodes, on standard output.
    with contextlib.redirect_stdout(sys.stderr), contextlib.closing(OnRay(place)) as runner:
        start = partial(Workers, args.workers or runner.slots, warn, runner)
        with _interruptible():
            yield {"workers": start, "say": warn}


def _here(args: argparse.Namespace) -> int | StartTasks:
    from llm_jax.data.tasks.workers import Here, Workers

    count = args.workers or cores()
    command = _command(args.run_tasks_with)
    return partial(Workers, count, warn, Here(command)) if command else count


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM is Ctrl-C in the block, so that no task is left behind on another machine."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _command(text: str | None) -> tuple[str, ...]:
    """The words of --run-tasks-with; raises `UserError` if its program is not there."""
    import shlex
    import shutil

    try:
        words = tuple(shlex.split(text or ""))
    except ValueError as error:
        raise UserError(f"--run-tasks-with is {text!r} ({error}): fix its quotes.") from None
    if words and shutil.which(words[0]) is None:
        raise UserError(f"--run-tasks-with is {text!r}: there is no program {words[0]!r}.")
    return words


def cores() -> int:
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


def dry_run(args: argparse.Namespace, planned: list[PlannedTasks]) -> dict[str, Any]:
    """What would be submitted for `planned`, as actions; nothing is looked at."""
    place = place_of(args)
    return {
        "backend": args.backend,
        "actions": [_action(args, place, one) for one in planned],
    }


def _action(
    args: argparse.Namespace,
    place: SlurmTasks | RayTasks | None,
    tasks: PlannedTasks,
) -> dict[str, Any]:
    from pathlib import Path

    from llm_jax.launch.tasks.places import SlurmTasks

    about = {"program": tasks.module, "words": list(tasks.words), "tasks": tasks.count}
    at_a_time = args.workers or {"slurm": ON_SLURM, "local": cores()}.get(args.backend)
    if place is None:
        command = [*_command(args.run_tasks_with), sys.executable, "-m"]
        return {"action": "RunProcesses", "command": command, "at_a_time": at_a_time, **about}
    if not isinstance(place, SlurmTasks):
        return {"action": "RunOnRay", **asdict(place), "at_a_time": at_a_time, **about}
    from llm_jax.launch.tasks.arrays import array_folder, render

    work = Path(tasks.words[0])
    last = LAST if tasks.count != "1" else "0"
    action = render(place, work, array_folder(work, tasks.arrays), last, at_a_time or ON_SLURM)
    return {**action.describe(), **about}


def dry_run_text(result: dict[str, Any]) -> str:
    """The actions of a dry run, for a person."""
    lines = [json.dumps(action, indent=1, ensure_ascii=False) for action in result["actions"]]
    return "\n".join(
        [*lines, "Words in capitals, such as SHARDS and FINGERPRINT, follow from the inputs."]
    )
