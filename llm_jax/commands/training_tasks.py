"""Scores tasks while a run trains: what verbs and the API pass to the loop, which may not import
evaluations (`train/task_scores.py`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
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
    notes = check_tasks(config.eval.tasks, config.eval.include)
    if os.environ.get("JAX_PROCESS_ID", "0") == "0":
        for note in notes:
            print(note, file=sys.stderr)
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


class RunTasks:
    """Scores the tasks of `config.eval` with parameters that are split over `mesh`
    (`train/task_scores.py`).

    Its programs are compiled once, and its tasks' data are read once.
    """

    def __init__(self, config: RunConfig, mesh: Mesh, tokenizer: Tokenizer) -> None:
        from llm_jax.convert.kept_files import stop_ids
        from llm_jax.evals.tasks.figures import TaskFigures
        from llm_jax.infer.scoring import Scorer

        asked = config.eval
        self._config, self._tokenizer = config, tokenizer
        self._figures = TaskFigures(
            include=asked.include, few_shot=asked.few_shot, limit=asked.task_limit
        )
        self._scorer = Scorer(config, None, mesh=mesh, vocab_size=tokenizer.vocab_size)
        self._ends = stop_ids(Path(config.out), tokenizer)

    def prepare(self, task: str) -> str:
        """Reads the data of `task`. Returns a digest of its questions."""
        if jax.process_count() > 1:
            return self._figures.digest(task, self._config)
        self._figures.load(task, self._config)
        return ""

    def version(self, task: str) -> str | None:
        """The version of `task`; None if its file says none."""
        return self._figures.version(task)

    def __call__(self, task: str, params: Any, step: int) -> Mapping[str, float]:
        """The figures of `task` by name."""
        from llm_jax.language_model import LanguageModel

        model = LanguageModel(self._config, params, self._tokenizer, step, self._ends)
        return self._figures(model, task, scorer=self._scorer)


def task_scorer(config: RunConfig, mesh: Mesh, tokenizer: Tokenizer) -> TaskScorer:
    """What scores the tasks of `config.eval` with parameters that are split over `mesh`."""
    return RunTasks(config, mesh, tokenizer)
