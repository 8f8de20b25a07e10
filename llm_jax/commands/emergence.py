"""Show how scores on tasks grow with compute: leaping figures beside smooth ones, and a forecast.

  llm-jax emergence ladder --tasks copying_en arithmetic_en --few-shot 0 1 5
  llm-jax emergence runs/first --tasks copying_en

PATH is a folder of runs, such as a ladder, of each of which the newest checkpoint counts; or one
run, of which all checkpoints count. What is not yet scored is scored, and kept in the runs. Without
--tasks, only what is kept is shown. Writes a self-contained page, emergence.html.

The figures of the largest model are forecast from the smaller ones: the loss of the right answer
from the held-out loss, accuracy from the loss of the right answer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import count
from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.config import UserError
from llm_jax.runs.files import write_text

COMPILES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="folder of a run, or of runs")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="NAME",
                        help="tasks to score and to show (default: all that are kept)")  # fmt: skip
    parser.add_argument("--few-shot", nargs="+", type=shots, metavar="N",
                        help="solved examples before each question, such as 0 1 5 (default: as the "
                        "task says)")  # fmt: skip
    parser.add_argument("--limit", type=count, metavar="N",
                        help="score at most N examples of each task")  # fmt: skip
    parser.add_argument("--include", nargs="+", type=Path, metavar="PATH",
                        help="folders or files with tasks of your own")  # fmt: skip
    parser.add_argument("--out", type=Path, help="page to write (default: PATH/emergence.html)")


def shots(text: str) -> int:
    """A number of examples, at least 0."""
    return 0 if text.strip() == "0" else count(text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.report.emergence import emergence, runs_in
    from llm_jax.report.emergence_page import page

    runs, ladder = runs_in(args.path)
    for flag, value in (("--few-shot", args.few_shot), ("--limit", args.limit),
                        ("--include", args.include)):  # fmt: skip
        if value is not None and not args.tasks:
            raise UserError(f"{flag} is for scoring: name --tasks, or leave it out.")
    lost = _score(args, runs, ladder) if args.tasks else []
    # Of named tasks, what was asked for counts, and not what else is kept of them.
    found = emergence(
        args.path,
        args.tasks,
        lambda one: not args.tasks or (one.limit, one.seed) == (args.limit, 0),
    )
    found["notes"] += lost
    file = args.out or args.path / "emergence.html"
    write_text(file, page(found))
    return {**found, "html": str(file)}


def _score(args: argparse.Namespace, runs: list[Path], ladder: bool) -> list[str]:
    """Scores what is asked for and not kept. Returns what could not be kept or computed, in
    sentences."""
    from llm_jax.evals.tasks.course import Checkpoints, checkpoints_of
    from llm_jax.evals.tasks.harness import check_tasks
    from llm_jax.language_model import load_model

    notes = check_tasks(args.tasks, args.include)
    with ProgressReporter() as progress:
        checkpoints = Checkpoints(
            args.tasks,
            shots=args.few_shot or (None,),
            include=args.include,
            limit=args.limit,
            say=lambda sentence: progress(sentence, 0, None),
            opened=load_model,
        )
        for folder in runs:
            steps = checkpoints_of(folder)
            for step in steps[-1:] if ladder else steps:
                checkpoints.score(folder, step)
        return notes + checkpoints.notes


def text(result: dict[str, Any]) -> str:
    from llm_jax.report.emergence import sentences, shots_in_words
    from llm_jax.report.emergence_page import forecast_rows, missing

    lines = []
    for task, by_shots in result["tasks"].items():
        version = result["versions"][task]
        name = task if version is None else f"{task} (version {version})"
        for shots_key, one in by_shots.items():
            lines.append(f"{name}, {shots_in_words(shots_key)}, {one['accuracy']}:")
            for point, figures in zip(result["points"], one["figures"], strict=True):
                if figures is not None:
                    error = figures.get(one["accuracy"] + "_stderr")
                    within = "" if error is None else f" ± {error:.4f}"
                    lines.append(f"  {point['flops']:.2e} FLOPs  {point['name']:<24}"
                                 f"{figures[one['accuracy']]:.4f}{within}")  # fmt: skip
        for shown, what, predicted, interval, measured, difference, _ in forecast_rows(by_shots):
            lines.append(
                f"  {shown}, {what}: predicted {predicted} (90%: {interval}), measured {measured}, "
                f"{difference}"
            )
        lines += [f"  not forecast, {sentence}" for sentence in missing(by_shots)]
    if any(one["forecast"] for by_shots in result["tasks"].values() for one in by_shots.values()):
        lines += ["", result["intervals"]]
    lines += ["", *sentences(result), *(f"note: {note}" for note in result["notes"])]
    return "\n".join([*lines, "", f"Wrote {result['html']}."])
