"""The public API: what a notebook needs. `import llm_jax as lj` offers it (docs/notebook.md).

Importing this module does not import JAX; the functions that need it do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_jax.config import ConfigError as ConfigError
from llm_jax.config import ModelConfig as ModelConfig
from llm_jax.config import RunConfig, UserError
from llm_jax.config import load as load_config
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers import Tokenizer as Tokenizer
from llm_jax.language_model import LanguageModel as LanguageModel
from llm_jax.language_model import load_model as load_model
from llm_jax.runs.plan_file import PlanRecord, plan_named


def open_dataset(path: str | Path) -> TokenDataset:
    """A dataset that `llm-jax data build` wrote. `.batches(...)` gives its batches.

    Args:
      path: folder of the dataset.

    Raises:
      UserError: `path` does not hold a finished dataset, or a file of it is missing or damaged.
    """
    return TokenDataset.open(path)


@dataclass(frozen=True)
class Planned:
    """A plan, as `plan_run` returns it.

    Attributes:
      config: the run, ready for `train_run`.
      prediction: what the plan predicts for it.
      figures: what `llm-jax plan --json` prints.
    """

    config: RunConfig
    prediction: PlanRecord
    figures: dict[str, Any]

    def __str__(self) -> str:
        """The table that `llm-jax plan` prints."""
        from llm_jax.report.plan_table import plan_table

        return plan_table(self.figures)


def plan_run(**flags: Any) -> Planned:
    """Plans a run; the arguments are the flags of `llm-jax plan` with underscores.

    `plan_run(usd=1000, chip="v5e")` is `llm-jax plan --usd 1000 --chip v5e`.

    Args:
      **flags: True for a flag without a value; None or False leaves a flag out; a list repeats it.

    Raises:
      UserError: an unknown flag, or a value that cannot be planned with.
    """
    from llm_jax.cli import parse

    if unfit := sorted({"write", "report", "law_only", "json"} & set(flags)):
        raise UserError(f"plan_run() returns its result, and has no {unfit[0]}: leave it out.")
    words: list[str] = []
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        several = value if isinstance(value, list) else [value]
        for one in several:
            words += [flag] if one is True else [] if one in (None, False) else [flag, str(one)]
    verb, args = parse("plan", words)
    _, figures, config, prediction = verb.planned(args)
    return Planned(config, prediction, figures)


def train_run(
    run: str | RunConfig | Planned,
    *,
    callback: Callable[[dict[str, Any]], object] | None = None,
    init: str | None = None,
    branch: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Trains a run, or resumes it if its folder holds one. It may be called from any thread.

    Args:
      run: a config, a plan, or what `load_config` takes.
      callback: called with each record of `metrics.jsonl` as it is written; if it returns False,
        the run saves and stops, which may be one step later.
      init: run whose weights a new run begins with, as `RUN` or `RUN@STEP`.
      branch: run that a new run goes on from with everything, as `RUN` or `RUN@STEP`.
      **fields: top-level fields of the config to replace, such as `steps=100, out="runs/b"`.

    Returns:
      The last figures: `step`, held-out `loss` in nats per token, `bits_per_byte`, `tokens`, the
      path `checkpoint` … `exit_code` is 0 when all steps are done.

    Raises:
      ConfigError: the config can never run.
      UserError: the data or the folder cannot be used, another process writes to the folder, the
        disk is full, or too many steps in a row were skipped.
    """
    from llm_jax.commands.training_tasks import check_tasks_of, task_scorer
    from llm_jax.train import loop

    prediction = None
    if isinstance(run, Planned):
        config, prediction = run.config, run.prediction
    elif isinstance(run, RunConfig):
        config = run
    else:
        config, prediction = load_config(run), plan_named(run)
    unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(RunConfig)})
    if unknown:
        raise UserError(f"A run has no field {unknown[0]!r}: see `RunConfig`.")
    config = dataclasses.replace(config, **fields)
    check_tasks_of(config)
    return loop.train(
        config, plan=prediction, init=init, branch=branch, callback=callback, tasks=task_scorer
    )
