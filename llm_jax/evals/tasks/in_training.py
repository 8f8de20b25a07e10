"""Scores tasks while a run trains: what `train` calls by its hook (`train/task_scores.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from llm_jax.config import RunConfig
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.train.task_scores import TaskScorer


def check_tasks_of(config: RunConfig) -> None:
    """Raises `UserError` if a task of `eval.tasks` is not known, or needs an extra that is not
    installed. Nothing is imported for a run without tasks."""
    if config.eval.tasks:
        from llm_jax.evals.tasks.harness import check_tasks

        check_tasks(config.eval.tasks, config.eval.include)


def task_scorer(config: RunConfig, mesh: Mesh, tokenizer: Tokenizer) -> TaskScorer:
    """What scores the tasks of `config.eval` with parameters that are split over `mesh`.

    Its programs are compiled once, and its tasks' data are read once.
    """
    from llm_jax.infer.scoring import Scorer

    from llm_jax.evals.tasks.figures import TaskFigures
    from llm_jax.language_model import LanguageModel

    asked = config.eval
    figures = TaskFigures(include=asked.include, few_shot=asked.few_shot, limit=asked.task_limit)
    scorer = Scorer(config, None, mesh=mesh, vocab_size=tokenizer.vocab_size)

    def score(task: str, params: Any, step: int) -> Mapping[str, float]:
        model = LanguageModel(config, params, tokenizer, step)
        return figures(model, task, scorer=scorer)

    return score
