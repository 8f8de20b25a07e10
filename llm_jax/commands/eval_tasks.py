"""`eval --tasks`: its flags, what is read before a model is, and how results are shown and kept."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.commands import count, seed
from llm_jax.config import RunConfig, UserError, generative_of, read_config
from llm_jax.config.extras import require_packages
from llm_jax.runs.kept import keep_task_samples
from llm_jax.runs.scores import Scores, keep_scores, scores_file, weights_of

if TYPE_CHECKING:
    from llm_jax.evals.tasks.catalog import Loaded
    from llm_jax.language_model import LanguageModel

ONLY_WITH = ("include", "few_shot", "limit", "chat_template", "samples", "run_code", "seed")
"""Flags that mean nothing without --tasks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="NAME",
        help="score tasks of lm-eval, of --include, or of ours, such as copying_en",
    )
    parser.add_argument(
        "--include",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folders or files with tasks: lm-eval's YAML or llm-jp-eval's JSON",
    )
    parser.add_argument(
        "--few-shot",
        type=shots,
        metavar="N",
        help="solved examples before each question (default: as each task says)",
    )
    parser.add_argument("--limit", type=count, metavar="N", help="score N examples of each task")
    parser.add_argument(
        "--chat-template",
        action="store_true",
        help="ask through the chat template of the model's tokenizer",
    )
    parser.add_argument(
        "--samples",
        action="store_true",
        help="keep each question with its answer in RUN, as JSONL (with --keep)",
    )
    parser.add_argument(
        "--run-code",
        action="store_true",
        help="run the programs that the model writes for humaneval, in a sandbox",
    )
    parser.add_argument(
        "--seed", type=seed, metavar="N", help="seed of examples and sampled answers (default: 0)"
    )


def shots(text: str) -> int:
    """A number of solved examples."""
    return 0 if text == "0" else count(text)


def check(args: argparse.Namespace) -> None:
    """Raises `UserError` for flags that need others."""
    if not args.tasks:
        given = next((name for name in ONLY_WITH if getattr(args, name) not in (None, False)), None)
        if given:
            raise UserError(f"--{given.replace('_', '-')} is about tasks: name some with --tasks.")
    if args.tasks:
        require_packages("--tasks", "lm_eval")
    if args.keep and args.text and "cloze" in args.tasks:
        raise UserError(
            "--keep keeps the figures of a task by its name, and cloze asks something else of each "
            "--text: leave one of them out."
        )
    if args.samples and not args.keep:
        raise UserError("--samples keeps files in the run: give --keep too.")


def loaded(args: argparse.Namespace) -> dict[str, Loaded] | None:
    """The tasks with their data by name, before any weights are read; None if there are none, or
    no run.

    Raises:
      UserError: the model does not continue text, a task is not known, or its data are not at hand.
    """
    file = Path(args.run) / "run.json"
    if not args.tasks or not file.is_file():
        return None  # what reads the run says what it lacks
    config = read_config(file, RunConfig)
    generative_of(config.model, "Scoring")
    from llm_jax.evals.tasks.catalog import Settings, check_names, load_tasks
    from llm_jax.evals.tasks.harness import seeded, set_shots

    folders = config.data.folders.values()
    settings = Settings(
        include=args.include,
        trust_code=args.trust_code,
        run_code=args.run_code,
        texts=tuple(str(path) for path in args.text),
        datasets=tuple(str(path) for path in folders if path),
    )
    check_names(args.tasks, settings)
    found = {}
    for name in args.tasks:
        with seeded(args.seed or 0):
            found[name] = load_tasks([name], settings)
        for task in found[name].tasks.values():
            found[name].notes += set_shots(task, args.few_shot)
    return found


def measure(
    args: argparse.Namespace, tasks: dict[str, Loaded], model: LanguageModel
) -> dict[str, Any]:
    """`task_results` as JSON has them; what is to be kept is written.

    Each task is scored by itself, so that its figures do not depend on what else is asked for.
    """
    from llm_jax.evals.tasks import answers, human_eval
    from llm_jax.evals.tasks.catalog import Settings, version_of
    from llm_jax.evals.tasks.figures import figures_of
    from llm_jax.evals.tasks.harness import evaluate_loaded
    from llm_jax.evals.tasks.results import TaskResults
    from llm_jax.evals.tasks.sandbox import cell
    from llm_jax.infer.scoring import Scorer

    run, step = Path(args.run), model.step or 0
    scorer = Scorer(model.run, model.params, vocab_size=model.tokenizer.vocab_size)
    every, weights = TaskResults({}), weights_of(run, step)
    notes = [note for task in tasks.values() for note in task.notes]
    kinds = {one.OUTPUT_TYPE for task in tasks.values() for one in task.tasks.values()}
    generated = "generate_until" in kinds  # by one engine for all
    with answers.running(model) if generated else contextlib.nullcontext() as engine:
        for name, task in tasks.items():
            found = evaluate_loaded(
                model,
                task,
                few_shot=args.few_shot,
                limit=args.limit,
                chat_template=args.chat_template,
                samples=args.keep,
                scorer=scorer,
                engine=engine,
                seed=args.seed or 0,
                run_code=args.run_code,
            )
            for kind in ("tasks", "groups", "samples"):
                getattr(every, kind).update(getattr(found, kind))
            if args.keep:  # at once, since the next task may fail
                scores = Scores(
                    name,
                    args.few_shot,
                    args.limit,
                    figures_of(name, found, task, model, scorer, chat=args.chat_template),
                    chat=args.chat_template,
                    seed=args.seed or 0,
                    version=version_of(name, Settings(include=args.include)),
                    weights=weights,
                )
                notes += keep_scores(run, step, [scores])
    result: dict[str, Any] = {"task_results": every.report(), "notes": notes}
    if human_eval.NAME in tasks:
        result["sandbox"] = cell().words
    if args.samples:
        result["task_results"]["samples"] = {
            name: str(keep_task_samples(run, step, name, rows))
            for name, rows in every.samples.items()
        }
    if args.keep:
        result["kept_tasks"] = str(scores_file(run, step))
    return result
