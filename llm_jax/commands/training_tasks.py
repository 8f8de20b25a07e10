"""Scores tasks while a run trains: what verbs and the API pass to the loop, which may not import
evaluations (`train/task_scores.py`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from llm_jax.config import RunConfig, UserError, generative_of, require
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.train.task_scores import TaskScorer


def check_tasks_of(config: RunConfig) -> None:
    """Checks `eval.tasks` before anything is spent. Nothing is imported for a run without tasks.

    Raises:
      UserError: a task is not known, needs an extra that is not installed, or generates answers
        while the run has several processes; or the model does not predict next tokens.
    """
    if not config.eval.tasks:
        return
    from llm_jax.evals.tasks.harness import check_tasks

    generative_of(config.model, "eval.tasks")
    check_tasks(config.eval.tasks, config.eval.include)
    if int(os.environ.get("JAX_NUM_PROCESSES", "1")) > 1:
        _refuse_generation(config)


def _refuse_generation(config: RunConfig) -> None:
    """Raises `ConfigError` for a task whose answers are generated."""
    from llm_jax.evals.tasks.figures import TaskFigures

    figures = TaskFigures(include=config.eval.include)
    for task in config.eval.tasks:
        try:
            loaded = figures.load(task, config)
        except UserError:
            continue  # it fails, and is said and counted, where it is scored
        require(
            all(one.OUTPUT_TYPE != "generate_until" for one in loaded.tasks.values()),
            f"eval.tasks has {task!r}, whose answers are generated, which one process does and not "
            "several together: score it beside the run with `llm-jax eval RUN --tasks "
            f"{task} --follow`.",
        )


def task_scorer(config: RunConfig, mesh: Mesh, tokenizer: Tokenizer) -> TaskScorer:
    """What scores the tasks of `config.eval` with parameters that are split over `mesh`.

    Its programs are compiled once, and its tasks' data are read once.
    """
    from llm_jax.evals.tasks.figures import TaskFigures
    from llm_jax.infer.scoring import Scorer
    from llm_jax.language_model import LanguageModel

    asked = config.eval
    figures = TaskFigures(include=asked.include, few_shot=asked.few_shot, limit=asked.task_limit)
    scorer = Scorer(config, None, mesh=mesh, vocab_size=tokenizer.vocab_size)

    def score(task: str, params: Any, step: int) -> Mapping[str, float]:
        model = LanguageModel(config, params, tokenizer, step)
        return figures(model, task, scorer=scorer)

    return score
