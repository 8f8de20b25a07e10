"""`eval --tasks` on more than one checkpoint: all that there are, or each one as it appears."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

from llm_jax.commands import task_table
from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.config import UserError

NOT_WITH = ("step", "text", "ngram", "task", "chat_template", "samples", "run_code", "seed")
"""Flags of `eval` that are about one checkpoint."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all-steps",
        action="store_true",
        help="score --tasks on all checkpoints of the run, and keep the scores in it",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="as --all-steps, and on each checkpoint that appears until the run has ended",
    )


def asked_for(args: argparse.Namespace) -> bool:
    """Whether more than one checkpoint is to be scored.

    Raises:
      UserError: without --tasks, or with a flag that is about one checkpoint.
    """
    flag = "--follow" if args.follow else "--all-steps"
    if not (args.follow or args.all_steps):
        return False
    if not args.tasks:
        raise UserError(f"{flag} scores tasks: name some with --tasks.")
    for name in NOT_WITH:
        if getattr(args, name) not in (None, False, []):
            raise UserError(
                f"--{name.replace('_', '-')} is given with {flag}, which scores tasks on all "
                "checkpoints: leave one of them out."
            )
    return True


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.evals.tasks.course import Checkpoints, checkpoints_of, follow
    from llm_jax.evals.tasks.harness import check_tasks
    from llm_jax.infer.device_split import Split
    from llm_jax.language_model import load_model

    folder = Path(args.run)
    steps = checkpoints_of(folder)
    if not steps and not args.follow:
        raise UserError(f"The run in {str(folder)!r} has no checkpoint yet: train it first.")
    notes = check_tasks(args.tasks, args.include, trust_code=args.trust_code)
    failures = 0
    with ProgressReporter() as progress:
        checkpoints = Checkpoints(
            args.tasks,
            shots=(args.few_shot,),
            include=args.include,
            limit=args.limit,
            say=lambda sentence: progress(sentence, 0, None),
            trust_code=args.trust_code,
            opened=functools.partial(
                load_model,
                verify=not args.no_verify,
                trust_code=args.trust_code,
                split=Split(args.tensor),
            ),
        )
        if args.follow:
            found, failures = follow(folder, checkpoints, _say)
        else:
            found = {step: checkpoints.score(folder, step) for step in steps}
    return {
        "run": str(folder),
        "checkpoints": [
            {"step": step, "scores": {one.task: one.figures for one in scores}}
            for step, scores in sorted(found.items())
        ],
        "versions": checkpoints.versions,
        "failed": failures,
        "notes": notes + checkpoints.notes,
    }


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def text(result: dict[str, Any]) -> str:
    lines = task_table.course_lines(result["checkpoints"], result["versions"])
    if result["failed"]:
        lines.append(f"checkpoints that could not be scored: {result['failed']:,}")
    lines += result["notes"]
    run = result["run"]
    return "\n".join([*lines, f"Kept in {run}/scores for `llm-jax report` and `emergence`."])
