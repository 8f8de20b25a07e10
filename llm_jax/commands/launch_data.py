"""`launch run data curate …` and `launch run data build …`: the verb as a job on Slurm or Ray.

The flags are the verb's own, so that putting `launch run` before a call is all that it takes.
"""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from llm_jax.config import UserError

if TYPE_CHECKING:
    from llm_jax.launch.actions import Action
    from llm_jax.launch.tasks.places import SlurmTasks

VERBS = ("data curate", "data build")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Submits the words of `args.placed`, or says what would be."""
    from llm_jax.commands.task_places import place_of
    from llm_jax.launch import data_job
    from llm_jax.launch.tasks.places import SlurmTasks

    words = [word for word in args.placed if word != "--dry-run"]
    called = f"llm-jax launch run {' '.join(words[:2])}"
    place = place_of(args)
    if place is None:
        raise UserError(
            f"{called} needs --backend slurm or ray: to work on this "
            "machine, leave out `launch run`."
        )
    if args.out is None:
        raise UserError(f"{called} needs --out DIR: name a folder to write.")
    if isinstance(place, SlurmTasks):
        return _run_on_slurm(args, place, words)
    action = data_job.on_ray(place, words, args.out)
    if args.dry_run:
        return _planned(args, action)
    job = data_job.submit(action)
    address = ["--address", place.address]
    watch = ["ray", "job", "logs", "-f", job, *address]
    stop = ["ray", "job", "stop", job, *address]
    return {"backend": "ray", "job": job, "watch": watch, "stop": stop}


def _run_on_slurm(args: argparse.Namespace, place: SlurmTasks, words: list[str]) -> dict[str, Any]:
    from llm_jax.launch import data_job
    from llm_jax.launch.tasks import arrays

    action = data_job.on_slurm(place, words, args.out)
    if args.dry_run:
        return _planned(args, action)
    arrays.check(place)
    _check_here(args)
    log = data_job.log_file(args.out)
    log.parent.mkdir(parents=True, exist_ok=True)
    job = data_job.submit(action)
    watch = ["tail", "-f", str(log)]
    return {"backend": "slurm", "job": job, "watch": watch, "stop": ["scancel", job]}


def _planned(args: argparse.Namespace, action: Action) -> dict[str, Any]:
    return {"backend": args.backend, "actions": [action.describe(), *_inside(args)]}


def _inside(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What the job will submit itself, from a machine of the cluster."""
    from llm_jax.commands import data_build, data_curate
    from llm_jax.commands.task_places import dry_run

    module = data_curate if args.placed[1] == "curate" else data_build
    if args.ray_address is not None:
        args.ray_address = "auto"
    actions: list[dict[str, Any]] = dry_run(args, module.planned_tasks(args))["actions"]
    return actions


def _check_here(args: argparse.Namespace) -> None:
    """Raises `UserError` for a mistake that the job would find hours later; on Slurm, this machine
    sees what the nodes see."""
    from llm_jax.commands.sources import cleaner_of, sources_of
    from llm_jax.data.curate.recipe import load_recipe

    if args.recipe is not None:
        load_recipe(args.recipe)
    sources_of(args)
    cleaner_of(args)


def text(result: dict[str, Any]) -> str:
    if "actions" in result:
        from llm_jax.commands.task_places import dry_run_text

        return dry_run_text(result)
    return "\n".join(
        [
            f"submitted job {result['job']} to {result['backend']}",
            f"  watch  {shlex.join(result['watch'])}",
            f"  stop   {shlex.join(result['stop'])}",
        ]
    )
