"""Scores of a model on tasks, with standard errors, counts and chance levels."""

from __future__ import annotations

import math
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_jax.config import UserError
from llm_jax.evals.tasks.catalog import Loaded, Settings, check_names, load_tasks
from llm_jax.evals.tasks.chance import Choices, chances, choices_of, unlabelled
from llm_jax.evals.tasks.library import harness
from llm_jax.evals.tasks.results import Figure, TaskResult, TaskResults
from llm_jax.evals.tasks.versions import of_metadata

if TYPE_CHECKING:
    from llm_jax.infer.engine.engine import Engine
    from llm_jax.infer.scoring import Scorer
    from llm_jax.language_model import LanguageModel

BOOTSTRAPS = 1000
"""Draws for the standard errors of figures that are not means."""


def check_tasks(
    names: Sequence[str],
    include: Path | str | Sequence[Path | str] | None = None,
    *,
    trust_code: bool = False,
    run_code: bool = False,
) -> list[str]:
    """Checks names before a model is loaded. No data are read.

    Returns:
      A sentence for each task some of whose metrics we do not have.

    Raises:
      UserError: a task is not known (the nearest is named), would run code that is not trusted, or
        needs a package that is not installed.
    """
    settings = Settings(include=include, trust_code=trust_code, run_code=run_code)
    return check_names(names, settings)


def evaluate_tasks(
    model: LanguageModel,
    names: Sequence[str],
    *,
    include: Path | str | Sequence[Path | str] | None = None,
    few_shot: int | None = None,
    limit: int | None = None,
    chat_template: bool = False,
    samples: bool = False,
    scorer: Scorer | None = None,
    engine: Engine | None = None,
    seed: int = 0,
    texts: Sequence[str] = (),
    trust_code: bool = False,
    run_code: bool = False,
) -> TaskResults:
    """Scores a model on tasks.

    Args:
      include: folders or files with tasks of others.
      few_shot: solved examples before each question; None: as each task says.
      limit: most examples of each task, its first; None: all.
      chat_template: ask through the tokenizer's chat template.
      samples: keep each example in the result.
      scorer: scores on the trainer's mesh; `model.params` are those that count. None: a new one.
      engine: generates answers; it has been started. None: a new one, when a task needs it.
      seed: of the solved examples and of sampled answers.
      texts: text files for cloze questions; none: the validation splits of the run.
      trust_code: run the Python code of `include`.
      run_code: run programs that the model has written, in a sandbox.

    Raises:
      UserError: a task is not known, cannot be loaded, cannot be answered or fails, or a value is
        out of range.
    """
    settings = Settings(
        include=include,
        trust_code=trust_code,
        run_code=run_code,
        texts=tuple(texts),
        datasets=tuple(str(path) for path in model.run.data.folders.values() if path),
    )
    with seeded(seed):
        loaded = load_tasks(names, settings)
    return evaluate_loaded(
        model,
        loaded,
        few_shot=few_shot,
        limit=limit,
        chat_template=chat_template,
        samples=samples,
        scorer=scorer,
        engine=engine,
        seed=seed,
        run_code=run_code,
    )


def evaluate_loaded(
    model: LanguageModel,
    loaded: Loaded,
    *,
    few_shot: int | None = None,
    limit: int | None = None,
    chat_template: bool = False,
    samples: bool = False,
    scorer: Scorer | None = None,
    engine: Engine | None = None,
    seed: int = 0,
    run_code: bool = False,
) -> TaskResults:
    """`evaluate_tasks` for tasks that have been loaded."""
    lm_eval = harness()
    from llm_jax.evals.tasks.model import HarnessModel
    from llm_jax.infer.chat_template import from_tokenizer

    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}: give 1 or more.")
    if chat_template and from_tokenizer(model.tokenizer) is None:
        raise UserError(
            "--chat-template: the model's tokenizer has no chat template. Leave the flag out."
        )
    for task in loaded.tasks.values():
        set_shots(task, few_shot)
        task.set_fewshot_seed(seed=seed)
    choices = {name: choices_of(task, limit) for name, task in loaded.tasks.items()}
    asked = HarnessModel(model, scorer=scorer, engine=engine, seed=seed, chat=chat_template)
    try:
        # What it prints would be part of our own output.
        with seeded(seed), redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("once")  # bootstraps may repeat one a thousand times
            found = lm_eval.evaluator.evaluate(
                lm=asked,
                task_dict={"tasks": loaded.tasks, "groups": loaded.groups},
                limit=limit,
                bootstrap_iters=BOOTSTRAPS,
                log_samples=True,  # they say how many examples have each figure
                apply_chat_template=chat_template,
                fewshot_as_multiturn=chat_template,
                confirm_run_unsafe_code=run_code,
            )
    except (UserError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever a task's code raises
        line = " ".join(str(error).split())[:300]
        raise UserError(
            f"A task of {', '.join(loaded.tasks)} failed ({type(error).__name__}: {line})."
        ) from error
    return _results(found, loaded, asked, choices, samples)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators that tasks draw from begin at `seed`, and are as before afterwards."""
    was, was_array = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(was)
        np.random.set_state(was_array)


def set_shots(task: Any, few_shot: int | None) -> list[str]:
    """Has a task show so many solved examples; as in lm-eval, one that fixes 0 keeps it.

    Returns:
      A sentence if lm-eval takes the examples from the test, the question itself among them.

    Raises:
      UserError: it has fewer.
    """
    own = task.get_config("num_fewshot")
    if few_shot is not None and own != 0:
        if few_shot:
            _check_shots(task, few_shot)
        task.set_config(key="num_fewshot", value=few_shot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    if not task.get_config("num_fewshot") or _has_other_docs(task):
        return []
    return [
        f"Task {task.task_name!r} has no split of solved examples: questions of the test are "
        "shown, the one that is asked among them. `fewshot_split: test` in its file leaves that "
        "one out."
    ]


def _has_other_docs(task: Any) -> bool:
    """Whether solved examples are named, or not those of the test."""
    how = getattr(task, "fewshot_cfg", None)  # a task that is a class of its own has none
    named = how is None or how.split is not None or how.samples is not None
    return bool(named or task.has_training_docs() or task.has_validation_docs())


def _check_shots(task: Any, few_shot: int) -> None:
    """Raises `UserError` if a task has fewer solved examples than are to be shown."""
    docs = task.fewshot_docs()
    most = 0 if docs is None else len(docs)
    # Where they are questions of the test itself, one of them is the question that is asked.
    how = getattr(task, "fewshot_cfg", None)
    most -= most > 0 and how is not None and how.split == task.config.test_split
    if most == 0:
        raise UserError(f"Task {task.task_name!r} has no solved examples: leave --few-shot out.")
    if few_shot > most:
        raise UserError(
            f"--few-shot is {few_shot}, and task {task.task_name!r} has {most} solved examples: "
            f"give {most} or fewer."
        )


def _results(
    found: Mapping[str, Any],
    loaded: Loaded,
    asked: Any,
    choices: Mapping[str, list[Choices]],
    keep_samples: bool,
) -> TaskResults:
    made: dict[str, dict[str, TaskResult]] = {"tasks": {}, "groups": {}}
    grouped, samples = found.get("groups") or {}, found.get("samples") or {}
    for name, figures in found["results"].items():
        task = loaded.tasks.get(name)
        if task is None and name not in grouped:
            continue
        sizes = found["n-samples"].get(name, {})
        better = found["higher_is_better"].get(name, {})
        chance = {} if task is None else chances(task, choices[name])
        n = int(sizes.get("effective", figures.get("sample_len", 0)))
        made["groups" if task is None else "tasks"][name] = TaskResult(
            n=n,
            of=int(sizes.get("original", figures.get("sample_len", 0))),
            few_shot=found["n-shot"].get(name),
            version=of_metadata(_metadata(task or loaded.groups.get(name))),
            truncated=asked.truncated[name],
            shortened=asked.shortened[name],
            joined=asked.joined[name],
            unlabelled=unlabelled(choices.get(name, ())),
            metrics=dict(_figures(figures, better, chance, _counts(samples.get(name, ())), n)),
        )
    return TaskResults(**made, samples=samples if keep_samples else {})


def _metadata(task: Any) -> Any:
    """What the file of a task or a group says beside its questions."""
    return getattr(getattr(task, "config", task), "metadata", None)


def _counts(samples: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """`METRIC,FILTER` → examples that have it."""
    return Counter(f"{key},{one['filter']}" for one in samples for key in one["metrics"])


def _figures(
    figures: Mapping[str, Any],
    better: Mapping[str, Any],
    chance: Mapping[str, float],
    counts: Counter[str],
    n: int,
) -> Iterator[tuple[str, Figure]]:
    for key, value in figures.items():
        name, comma, way = key.partition(",")
        if not comma or name.endswith("_stderr"):
            continue
        error = figures.get(f"{name}_stderr,{way}")
        known = float(error) if isinstance(error, int | float) else math.nan
        yield (
            name if way == "none" else f"{name}/{way}",
            Figure(
                # A task's own aggregation may return anything.
                value=float(value) if isinstance(value, int | float | np.number) else math.nan,
                stderr=known if math.isfinite(known) else None,
                higher_is_better=better.get(name),
                chance=chance.get(name),
                n=counts[key] or n,
            ),
        )
