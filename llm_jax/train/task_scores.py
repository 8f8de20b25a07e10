"""Scores on tasks during training: when they are due, what fails, how long they take.

What a task is, and how it is scored, is known above this layer (`evals/tasks`): the caller of
`train` passes it in as a `TaskScorer`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from llm_jax.config import ConfigError, RunConfig
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.metric_names import TASK, VERSION
from llm_jax.train import distributed
from llm_jax.train.metrics import METRICS_FILE, read_metrics

MOST_SHARE = 0.05
"""Share of the time above which the log advises to score tasks less often."""
READY = "ready "
"""What a process says that has all that a task needs, before the digest of the questions."""
Figures = dict[str, float]


class TaskScorer(Protocol):
    """Scores one task. All processes of a run call it alike, with the same arguments."""

    def prepare(self, task: str) -> str:
        """Reads what `task` needs, without the other processes. Returns a digest of its questions,
        which must be the same in all processes: they score it by common programs."""

    def version(self, task: str) -> str | None:
        """The version of `task`, after `prepare`; None if it has none."""

    def __call__(self, task: str, params: Any, step: int) -> Mapping[str, float]:
        """The figures of `task` by name, the most telling first; `NAME_stderr` is the standard
        error of NAME.

        Args:
          params: on the mesh of the run.
          step: steps that have been trained.
        """


TaskScorerFor = Callable[[RunConfig, Mesh, Tokenizer], TaskScorer]
"""Makes the scorer of a run."""


class TaskScores:
    """Scores `eval.tasks`; a task that fails costs its figures, never the run.

    Args:
      make: makes the scorer, when it is first needed.
      say: prints a sentence.
    """

    def __init__(
        self,
        config: RunConfig,
        mesh: Mesh,
        tokenizer: Tokenizer,
        make: TaskScorerFor | None,
        say: Callable[[str], None],
    ) -> None:
        self._config, self._mesh, self._tokenizer = config, mesh, tokenizer
        self._make, self._say = make, say
        self._scorer: TaskScorer | None = None
        self._failed, self._ready = set[str](), set[str]()
        self._versions: dict[str, str | None] = {}

    def measure(
        self, params: Any, step: int, interrupted: Callable[[], bool]
    ) -> tuple[Figures, dict[str, str], int] | None:
        """The figures of all tasks, as `TASK/FIGURE`; the versions of the tasks, as
        `TASK/version`; and how many tasks failed.

        None if `interrupted()`, which is called before each task, returns True.
        """
        found, versions, failures = Figures(), dict[str, str](), 0
        for task in self._config.eval.tasks:
            if interrupted():
                return None
            figures = self._score(task, params, step)
            if figures is None:
                failures += 1
            else:
                found |= {f"{task}/{name}": value for name, value in figures.items()}
                version = self._versions[task]
                versions |= {} if version is None else {f"{task}/{VERSION}": version}
        return found, versions, failures

    def _score(self, task: str, params: Any, step: int) -> Figures | None:
        """The finite figures of `task`, None if it failed in any process."""
        if task not in self._ready:
            if lacking := self._lacking(task):
                self._tell(task, lacking)
                return None
            self._ready.add(task)
        figures, why = Figures(), ""
        try:
            assert self._scorer is not None  # made by `_lacking`
            figures = {k: float(v) for k, v in self._scorer(task, params, step).items()}
        except Exception as error:  # whatever the code of a task raises
            if distributed.is_peer_lost(error):
                raise
            why = _words(error)
        if not _all_agree(not why):
            self._tell(task, why or "it failed in another process")
            return None
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        if lost := [name for name in figures if name not in finite]:
            self._tell(task, f"{', '.join(lost)} is not a finite number", lost="is left out")
        return finite

    def _lacking(self, task: str) -> str:
        """Why the processes cannot score `task` together, the same words in all of them; empty if
        they can. If one of them lacked the data and the others began, they would wait for ever."""
        try:
            if self._scorer is None:
                assert self._make is not None  # `require_scorer` was called
                self._scorer = self._make(self._config, self._mesh, self._tokenizer)
            ours = READY + self._scorer.prepare(task)
            self._versions[task] = self._scorer.version(task)
        except Exception as error:  # whatever the code of a task raises
            ours = _words(error)
        every = distributed.all_say(ours)
        for number, said in enumerate(every):
            if not said.startswith(READY):
                return said if len(every) == 1 else f"in process {number}: {said}"
        if len(set(every)) > 1:
            return (
                "its questions are not the same in all processes: give all hosts the same files "
                "and the same Python"
            )
        return ""

    def _tell(self, task: str, why: str, lost: str = "is not scored") -> None:
        """Says once per start that something of `task` is missing."""
        if task not in self._failed:
            self._failed.add(task)
            self._say(f"Task {task} {lost} ({why}); the run goes on.")


class Pace:
    """Whether scoring takes too much of the time between two scorings.

    Args:
      now: seconds of a clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._scored: float | None = None
        """When tasks were last scored in this start."""
        self._advised = False

    def advice(self, seconds: float, every: int) -> str | None:
        """What to change, said once per start; call it at the end of each scoring.

        Args:
          seconds: that it took.
          every: steps between two scorings.
        """
        before, self._scored = self._scored, self._now()
        if before is None or self._advised:
            return None  # the first scores of a start also compile
        share = min(seconds / max(self._scored - before, 1e-9), 0.99)
        if share <= MOST_SHARE:
            return None
        self._advised = True
        rarer = math.ceil(every * share / (1 - share) * (1 - MOST_SHARE) / MOST_SHARE)
        return (
            f"Scoring tasks takes {share:.1%} of the time from one scoring to the next: raise "
            f"eval.tasks_every from {every} to about {rarer}, or lower eval.task_limit, to stay "
            f"below {MOST_SHARE:.0%}."
        )


def require_scorer(config: RunConfig, make: TaskScorerFor | None) -> None:
    """Raises `ConfigError` if the run has tasks, and `train` was given nothing to score them by."""
    if config.eval.tasks and make is None:
        raise ConfigError(
            f"eval.tasks is {list(config.eval.tasks)}, but nothing was passed to score them by: "
            "train with `llm-jax train` or `train_run`, or pass `tasks` to `train`."
        )


def scored_before(out: Path, step: int) -> bool:
    """Whether an earlier start scored the tasks after `step`: the answer of process 0."""
    found = any(
        record["split"] == TASK and record["step"] == step
        for record in read_metrics(out / METRICS_FILE)
    )
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(found)))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _all_agree(ours: bool) -> bool:
    """Whether `ours` is True in all processes."""
    if jax.process_count() == 1:
        return ours
    return bool(np.all(multihost_utils.process_allgather(np.bool_(ours))))
