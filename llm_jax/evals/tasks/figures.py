"""A task's figures by name: those that it reports, and the smooth ones beside them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.evals.tasks import smooth
from llm_jax.evals.tasks.catalog import Loaded, Settings, load_tasks, version_of
from llm_jax.evals.tasks.harness import evaluate_loaded, seeded
from llm_jax.evals.tasks.results import TaskResult, TaskResults
from llm_jax.evals.tasks.versions import together
from llm_jax.runs.metric_names import CHANCE, COUNT, EXAMPLES, FLAWS, SHOTS, STDERR

if TYPE_CHECKING:
    from llm_jax.config import RunConfig
    from llm_jax.infer.engine.engine import Engine
    from llm_jax.infer.scoring import Scorer
    from llm_jax.language_model import LanguageModel

SEED = 0
Include = Path | str | Sequence[Path | str] | None
"""Folders or files with tasks of others."""


class TaskFigures:
    """Scores tasks again and again: on checkpoints, or on the parameters of a run that trains.
    Their data are read once.

    Args:
      include, few_shot, limit, trust_code: as of `evaluate_tasks`.
    """

    def __init__(
        self,
        *,
        include: Include = None,
        few_shot: int | None = None,
        limit: int | None = None,
        trust_code: bool = False,
    ) -> None:
        self._include, self._few_shot, self._limit = include, few_shot, limit
        self._trust_code = trust_code
        self._loaded: dict[tuple[str, tuple[str, ...]], Loaded] = {}

    def __call__(
        self, model: LanguageModel, task: str, *, scorer: Scorer, engine: Engine | None = None
    ) -> dict[str, float]:
        """The figures of `task` (`figures_of`).

        Args:
          scorer: with `model.params`.

        Raises:
          UserError: the task's data are not at hand, or it fails.
        """
        loaded = self.load(task, model.run)
        results = evaluate_loaded(
            model,
            loaded,
            few_shot=self._few_shot,
            limit=self._limit,
            samples=True,
            scorer=scorer,
            engine=engine,
            seed=SEED,
        )
        return figures_of(task, results, loaded, model, scorer)

    def digest(self, task: str, run: RunConfig) -> str:
        """SHA-256 of the questions and the solved examples that are asked for.

        Raises:
          UserError: the task's data are not at hand.
        """
        said = hashlib.sha256()
        for name, one in self.load(task, run).tasks.items():
            docs = [doc for _, doc in one.doc_iterator(rank=0, limit=self._limit, world_size=1)]
            wanted = one.get_config("num_fewshot") if self._few_shot is None else self._few_shot
            shots = [*(one.fewshot_docs() or ())] if wanted else []
            text = json.dumps([name, docs, shots], default=str, sort_keys=True)
            said.update(text.encode(errors="surrogatepass"))
        return said.hexdigest()

    def version(self, task: str) -> str | None:
        """The version of `task`; no data are read. None: its file says none."""
        return version_of(task, Settings(include=self._include, trust_code=self._trust_code))

    def load(self, task: str, run: RunConfig) -> Loaded:
        """The task with its data; raises `UserError` if they are not at hand."""
        folders = tuple(str(path) for path in run.data.folders.values() if path)
        key = task, folders  # cloze asks about the run's own text
        if key not in self._loaded:
            with seeded(SEED):
                settings = Settings(
                    include=self._include, trust_code=self._trust_code, datasets=folders
                )
                self._loaded[key] = load_tasks([task], settings)
        return self._loaded[key]


def figures_of(
    task: str,
    results: TaskResults,
    loaded: Loaded,
    model: LanguageModel,
    scorer: Scorer,
    *,
    chat: bool = False,
) -> dict[str, float]:
    """The figures of `task`, the first that it reports first.

    `NAME_stderr` is the standard error of NAME, `NAME_examples` how many examples have it where not
    all have, `chance` the value of the first figure for a guess, `n` the number of examples,
    `few_shot` how many solved ones stood before each; and those of `FLAWS` that are not 0.

    Args:
      results: of this task or group alone, with samples.
      chat: whether they were asked through the chat template.
    """
    found, one = dict[str, float](), summary(task, results)
    for name, figure in one.metrics.items():
        key = name.replace("/", ".")
        found[key] = figure.value
        if figure.stderr is not None:
            found[key + STDERR] = figure.stderr
        if figure.n != one.n:
            found[key + EXAMPLES] = float(figure.n)
    for key, values in _smooth(results, loaded, model, scorer, chat).items():
        if key not in found:
            found[key], error = smooth.mean(values)
            found |= {key + STDERR: error} if math.isfinite(error) else {}
    chance = next((figure.chance for figure in one.metrics.values()), None)
    found |= {} if chance is None else {CHANCE: chance}
    found |= {} if one.few_shot is None else {SHOTS: float(one.few_shot)}
    found |= {name: float(getattr(one, name)) for name in FLAWS if getattr(one, name)}
    return found | {COUNT: float(one.n)}


def summary(task: str, results: TaskResults) -> TaskResult:
    """The result of the task or group; of a group without figures of its own, the means of those
    that all of its tasks have, by their examples."""
    if task in results.tasks:
        return results.tasks[task]
    group, parts = results.groups.get(task), [*results.tasks.values()]
    flaws = {name: sum(getattr(one, name) for one in parts) for name in FLAWS}
    if group is not None and group.metrics:
        return dataclasses.replace(group, **flaws)
    n, shots = sum(one.n for one in parts), {one.few_shot for one in parts}
    shared = [name for name in parts[0].metrics if all(name in one.metrics for one in parts)]
    metrics = {}
    for name in shared:
        figures = [(one.n / n, one.metrics[name]) for one in parts]
        errors = [None if f.stderr is None else share * f.stderr for share, f in figures]
        guesses = [None if f.chance is None else share * f.chance for share, f in figures]
        metrics[name] = type(figures[0][1])(
            value=sum(share * figure.value for share, figure in figures),
            stderr=None if None in errors else math.hypot(*(e for e in errors if e is not None)),
            higher_is_better=figures[0][1].higher_is_better,
            chance=None if None in guesses else sum(g for g in guesses if g is not None),
            n=sum(figure.n for _, figure in figures),
        )
    return TaskResult(
        n=n,
        of=sum(one.of for one in parts),
        few_shot=shots.pop() if len(shots) == 1 else None,
        version=together({name: one.version for name, one in results.tasks.items()}),
        metrics=metrics,
        **flaws,
    )


def _smooth(
    results: TaskResults, loaded: Loaded, model: LanguageModel, scorer: Scorer, chat: bool
) -> dict[str, list[float]]:
    """Smooth figure → its value for each example."""
    found: dict[str, list[float]] = {}
    for name, samples in results.samples.items():
        examples, task = smooth.first_answers(samples), loaded.tasks[name]
        each, pairs = list[dict[str, float]](), list[tuple[str, str]]()
        for one in examples:
            if not isinstance(one["filtered_resps"][0], str):
                each.append(smooth.of_choices(one))
            elif rights := smooth.rights_of(one, _choices(task, one)):
                each.append(smooth.of_text(one, rights))
                pairs.append((one["arguments"][0][0], shown(task, one["doc"], rights[0], chat)))
        for figures in each + _right_answers(model, scorer, name, pairs, chat):
            for key, value in figures.items():
                found.setdefault(key, []).append(value)
    return found


def _choices(task: Any, sample: smooth.Sample) -> list[str] | None:
    """The choices that an example has; None if its answer is a text."""
    has = getattr(task.config, "doc_to_choice", None) is not None
    return list(task.doc_to_choice(sample["doc"])) if has else None


def shown(task: Any, doc: Any, answer: str, chat: bool) -> str:
    """What follows a question where its answer is shown, as in a solved example: with the task's
    delimiter. In a conversation the template has delimited it."""
    if prefix := task.doc_to_prefix(doc):  # begins the answer, and ends the prompt
        return answer if prefix[-1].isspace() or answer[0].isspace() else f" {answer}"
    return answer if chat else f"{task.config.target_delimiter}{answer}"


def _right_answers(
    model: LanguageModel, scorer: Scorer, task: str, pairs: list[tuple[str, str]], chat: bool
) -> list[dict[str, float]]:
    """The figures of right answers to questions whose answers were generated, each after its
    prompt."""
    from lm_eval.api.instance import Instance

    from llm_jax.evals.tasks.model import HarnessModel

    requests: list[Any] = [
        Instance("loglikelihood", {}, pair, place, (task, place, 1))
        for place, pair in enumerate(pairs)
    ]
    if not requests:
        return []
    scored = HarnessModel(model, scorer=scorer, seed=SEED, chat=chat).loglikelihood(requests)
    return [
        smooth.of_answer(log_prob, answer)
        for (log_prob, _), (_, answer) in zip(scored, pairs, strict=True)
    ]
