"""Scores tasks while a run trains: what `train` calls by its hook (`train/task_scores.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from llm_jax.config import RunConfig
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.evals.tasks.figures import task_figures
from llm_jax.evals.tasks.harness import check_tasks
from llm_jax.infer.scoring import Scorer
from llm_jax.language_model import LanguageModel
from llm_jax.train.task_scores import TaskScorer


def check_tasks_of(config: RunConfig) -> None:
    """Raises `UserError` if a task of `config.eval` is not known, or an extra that it needs is not
    installed."""
    if config.eval.tasks:
        check_tasks(config.eval.tasks, config.eval.include)


def task_scorer(config: RunConfig, mesh: Mesh, tokenizer: Tokenizer) -> TaskScorer:
    """What scores the tasks of `config.eval` with parameters that are split over `mesh`."""
    held: dict[str, Scorer] = {}  # its programs are compiled once

    def score(task: str, params: Any, step: int) -> Mapping[str, float]:
        scorer = held.get("scorer")
        if scorer is None:
            scorer = held["scorer"] = Scorer(config, params, mesh=mesh)
        model = LanguageModel(config, params, tokenizer, step)
        return task_figures(
            model,
            task,
            include=config.eval.include,
            few_shot=config.eval.few_shot,
            limit=config.eval.task_limit,
            scorer=scorer,
        )

    return score
