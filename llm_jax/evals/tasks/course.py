"""Scores the checkpoints of runs: those that there are, or each one as it appears."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llm_jax.config import RunConfig, UserError, read_config
from llm_jax.evals.tasks.figures import Include, TaskFigures
from llm_jax.infer.scoring import Scorer
from llm_jax.runs.claim import writer_of
from llm_jax.runs.places import run_file
from llm_jax.runs.scores import Scores, keep_scores, kept_scores, weights_of
from llm_jax.train.damage import saved_steps

if TYPE_CHECKING:
    from llm_jax.language_model import LanguageModel

PAUSE = 1.0
"""Seconds between two looks at a run's folder."""
PATIENCE = 120.0
"""Seconds without a writer after which a run that is not finished counts as ended: a launcher may
start it again."""
DELETION = 5.0
"""Seconds in which a checkpoint that is being deleted is gone."""
Say = Callable[[str], None]


class Checkpoints:
    """Scores tasks on checkpoints, and keeps the scores in their runs' folders.

    Args:
      tasks: their names, already checked.
      shots: solved examples before each question, one after another; None: as each task says.
      include, limit: as of `evaluate_tasks`.
      say: is told what is being scored.
      trust_code: run the Python code of `include`.
      opened: the model of a run's checkpoint (`load_model`).

    Attributes:
      notes: a sentence for each score that could not be kept whole, and for each task whose kept
        scores were of another version and are replaced.
      versions: of the tasks; None where a task's file says none.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        shots: Sequence[int | None] = (None,),
        include: Include = None,
        limit: int | None = None,
        say: Say,
        trust_code: bool = False,
        opened: Callable[[Path, int], LanguageModel],
    ) -> None:
        self._tasks, self._limit, self._say = tasks, limit, say
        self._figures = {
            shot: TaskFigures(include=include, few_shot=shot, limit=limit, trust_code=trust_code)
            for shot in shots
        }
        some = next(iter(self._figures.values()))
        self.versions = {task: some.version(task) for task in tasks}
        self._opened = opened
        self.notes: list[str] = []
        self._scorers: dict[Path, Scorer] = {}

    def score(self, run: Path, step: int) -> list[Scores]:
        """The scores of a checkpoint. What is already kept of the same version of the task is not
        scored again, and what cannot be kept is not among them.

        Raises:
          UserError: there is no such checkpoint, it is damaged, or a task fails. What was scored
            before that is kept.
        """
        kept = {(one.asked, one.version) for one in kept_scores(run, step)}
        wanted = [
            Scores(task, shot, self._limit, {}, version=version)
            for shot in self._figures
            for task, version in self.versions.items()
        ]
        self._take_as_same([one for one in wanted if (one.asked, one.version) in kept])
        if missing := [one for one in wanted if (one.asked, one.version) not in kept]:
            weights, model = weights_of(run, step), self._opened(run, step)
            scorer = self._scorer(run, model)
            for one in missing:
                self._say(f"{run.name}, step {step:,}: {one.task}")
                figures = self._figures[one.shots](model, one.task, scorer=scorer)
                scored = replace(one, figures=figures, weights=weights)
                notes = keep_scores(run, step, [scored])
                self.notes += [note for note in notes if note not in self.notes]
        found = {(one.asked, one.version): one for one in kept_scores(run, step)}
        keys = [(one.asked, one.version) for one in wanted]
        return [found[key] for key in keys if key in found]

    def _take_as_same(self, kept: Sequence[Scores]) -> None:
        """Says of which kept scores it is not known whether they answer today's questions."""
        for task in dict.fromkeys(one.task for one in kept if one.version is None):
            note = (
                f"{task}: its file says no version (metadata: {{version: …}}), so kept scores "
                "count as answers to the same questions."
            )
            self.notes += [note] if note not in self.notes else []

    def _scorer(self, run: Path, model: LanguageModel) -> Scorer:
        """The scorer of a run's checkpoints, whose programs are compiled once."""
        if run not in self._scorers:
            size = model.tokenizer.vocab_size
            self._scorers = {run: Scorer(model.run, model.params, vocab_size=size)}
        return self._scorers[run]


def checkpoints_of(run: Path) -> list[int]:
    """Steps of the whole checkpoints of a run, oldest first.

    Raises:
      UserError: there is no run.
    """
    run_file(run)
    folder = run / "checkpoints"
    return saved_steps(folder)[::-1] if folder.is_dir() else []


def follow(
    run: Path, checkpoints: Checkpoints, say: Say, *, patience: float = PATIENCE
) -> tuple[dict[int, list[Scores]], int]:
    """Scores each checkpoint of a run as it appears, until the run has ended.

    A checkpoint that is deleted before it could be read is left out, and that is said. A failure
    is said and counted, and the next checkpoint is tried.

    Args:
      patience: seconds without a writer after which an unfinished run counts as ended.

    Returns:
      The scores by step, and how many checkpoints could not be scored.

    Raises:
      UserError: there is no run.
    """
    found: dict[int, list[Scores]] = {}
    failures, seen, alone = 0, dict[int, str | None](), time.monotonic()
    while True:
        if writer_of(run, inside=True) is not None:
            alone = time.monotonic()
        new = [step for step in checkpoints_of(run) if _is_new(run, step, seen)]
        for step in new:
            seen[step] = weights_of(run, step)
            try:
                found[step] = checkpoints.score(run, step)
            except UserError as error:
                failures += 1
                say(
                    f"Checkpoint {step:,} was deleted before it was scored: raise "
                    "checkpoint.keep_last or checkpoint.keep_every."
                    if _deleted(run, step)
                    else f"Checkpoint {step:,} is not scored: {error}"
                )
        steps = read_config(run / "run.json", RunConfig).steps
        if steps in seen:
            return found, failures
        if not new and time.monotonic() - alone > patience:
            say(
                f"Nobody has written to {run} for {patience:.0f} s, and step {steps:,} has no "
                "checkpoint: the run counts as ended."
            )
            return found, failures
        time.sleep(PAUSE)


def _is_new(run: Path, step: int, seen: dict[int, str | None]) -> bool:
    """Whether a checkpoint has not been seen, or the run went back and saved it anew."""
    if step not in seen:
        return True
    weights = weights_of(run, step)
    return weights is not None and weights != seen[step]


def _deleted(run: Path, step: int) -> bool:
    """Whether a checkpoint is gone. One whose first files are just being deleted counts, so it is
    looked for until its folder has had the time to go."""
    until = time.monotonic() + DELETION
    while step in checkpoints_of(run):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
