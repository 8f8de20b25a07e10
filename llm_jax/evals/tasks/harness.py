"""Scores of a model on tasks, with standard errors, counts and chance levels."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_jax.config import UserError
from llm_jax.evals.tasks.catalog import Loaded, Settings, check_names, load_tasks
from llm_jax.evals.tasks.chance import chances
from llm_jax.evals.tasks.library import harness

if TYPE_CHECKING:
    from llm_jax.infer.engine.engine import Engine
    from llm_jax.infer.scoring import Scorer
    from llm_jax.language_model import LanguageModel

BOOTSTRAPS = 1000
"""Draws for the standard errors of figures that are not means."""


@dataclass(frozen=True)
class Figure:
    """One measured figure of a task.

    Attributes:
      stderr: standard error of `value`; None where the harness has none.
      higher_is_better: None where the task does not say.
      chance: the value of a guess; None where it is not known.
    """

    value: float
    stderr: float | None
    higher_is_better: bool | None
    chance: float | None


@dataclass(frozen=True)
class TaskResult:
    """The result of one task, or of a group of tasks.

    Attributes:
      n: examples that were scored.
      of: examples that the task has.
      few_shot: solved examples before each question.
      version: of the task.
      truncated: requests that were longer than the model's context and lost their beginning.
      shortened: answers that could be shorter than the task allows, since the context is short.
      metrics: by name, and by `name/filter` where a task reads answers in several ways.
    """

    n: int
    of: int
    few_shot: int | None
    version: str
    truncated: int
    shortened: int
    metrics: dict[str, Figure]


@dataclass(frozen=True)
class TaskResults:
    """The results of tasks and of the groups that were asked for, by name.

    Attributes:
      samples: of each task, each example with what was asked, answered and counted; empty unless
        they were asked for.
    """

    tasks: dict[str, TaskResult]
    groups: dict[str, TaskResult] = field(default_factory=dict)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """The results as JSON has them, without the samples; null stands for what is not a finite
        number."""
        return {
            kind: {name: _plain(asdict(one)) for name, one in getattr(self, kind).items()}
            for kind in ("tasks", "groups")
        }


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    for figure in result["metrics"].values():
        if not math.isfinite(figure["value"]):
            figure["value"] = None
    return result


def check_tasks(
    names: Sequence[str],
    include: Path | str | Sequence[Path | str] | None = None,
    *,
    trust_code: bool = False,
    run_code: bool = False,
) -> None:
    """Checks names before a model is loaded. No data are read.

    Raises:
      UserError: a task is not known (the nearest is named), would run code that is not trusted, or
        needs a package that is not installed.
    """
    check_names(names, Settings(include=include, trust_code=trust_code, run_code=run_code))


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
      UserError: a task is not known, cannot be loaded or fails, or a value is out of range.
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
        _set_shots(task, few_shot)
        task.set_fewshot_seed(seed=seed)
    asked = HarnessModel(model, scorer=scorer, engine=engine, seed=seed)
    try:
        with seeded(seed):
            found = lm_eval.evaluator.evaluate(
                lm=asked,
                task_dict={"tasks": loaded.tasks, "groups": loaded.groups},
                limit=limit,
                bootstrap_iters=BOOTSTRAPS,
                log_samples=samples,
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
    return _results(found, loaded, asked)


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


def _set_shots(task: Any, few_shot: int | None) -> None:
    """As lm-eval does it: a task that fixes 0 in its file keeps it."""
    own = task.get_config("num_fewshot")
    if few_shot is not None and own != 0:
        if few_shot and task.fewshot_docs() is None:
            raise UserError(
                f"Task {task.task_name!r} has no solved examples: leave --few-shot out."
            )
        task.set_config(key="num_fewshot", value=few_shot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)


def _results(found: Mapping[str, Any], loaded: Loaded, asked: Any) -> TaskResults:
    made: dict[str, dict[str, TaskResult]] = {"tasks": {}, "groups": {}}
    grouped = found.get("groups") or {}
    for name, figures in found["results"].items():
        task = loaded.tasks.get(name)
        if task is None and name not in grouped:
            continue
        sizes = found["n-samples"].get(name, {})
        better, chance = found["higher_is_better"].get(name, {}), chances(task)
        made["groups" if task is None else "tasks"][name] = TaskResult(
            n=int(sizes.get("effective", figures.get("sample_len", 0))),
            of=int(sizes.get("original", figures.get("sample_len", 0))),
            few_shot=found["n-shot"].get(name),
            version=str(found["versions"].get(name)),
            truncated=asked.truncated[name],
            shortened=asked.shortened[name],
            metrics=dict(_figures(figures, better, chance)),
        )
    return TaskResults(**made, samples=found.get("samples") or {})


def _figures(
    figures: Mapping[str, Any], better: Mapping[str, Any], chance: Mapping[str, float]
) -> Iterator[tuple[str, Figure]]:
    for key, value in figures.items():
        name, comma, way = key.partition(",")
        if not comma or name.endswith("_stderr"):
            continue
        error = figures.get(f"{name}_stderr,{way}")
        yield (
            name if way == "none" else f"{name}/{way}",
            Figure(
                float(value),
                float(error) if isinstance(error, int | float) and math.isfinite(error) else None,
                better.get(name),
                chance.get(name),
            ),
        )
