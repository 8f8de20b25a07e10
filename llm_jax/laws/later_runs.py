"""How far later runs end from what a law says of them, and a law that has learned from them.

The nine runs of a ladder share one seed and one order of the text. A later run has another size,
another number of steps and so another schedule, and small models differ by chance in what they
learn. The residuals of the fit know nothing of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llm_jax.config import RecurrentConfig, RunConfig, UserError, read_config
from llm_jax.facts.recurrent_counts import GATES
from llm_jax.laws import run_curves
from llm_jax.laws.law import Parametric
from llm_jax.laws.run_curves import Curve
from llm_jax.runs.history import read_history

OUTCOMES = (-0.008, -0.002, -0.001, -0.002, -0.007, -0.012, 0.004, -0.007, 0.010)
"""predicted/measured − 1 of nine quickstarts with two laws of the standard library: 0.69M and 0.66M
parameters (2026-11-26), three of 0.56M to 0.62M (2026-11-25), 0.60M (2026-11-26, a fresh clone),
and 1.00M, 0.68M and 1.16M (2026-11-27). docs/log.md; docs/planner.md lists each."""


def spread_of(outcomes: tuple[float, ...]) -> float:
    """Standard deviation of ln(measured/predicted) around 0, for an interval of ±1.645 of it.

    It is Student's t for so few runs, relative to 1.645, times their root mean square: the law is
    to be met, so a bias counts as spread.
    """
    mean_square = sum(math.log1p(error) ** 2 for error in outcomes) / len(outcomes)
    return _student(len(outcomes)) * math.sqrt(mean_square)


def _student(freedom: int) -> float:
    """Student's t of a 90% interval, relative to 1.645, that of infinitely many runs."""
    from scipy.stats import t

    return float(t.ppf(0.95, freedom)) / 1.645


RUN_TO_RUN = 0.007729
"""`spread_of(OUTCOMES)`: of a ladder's law of which no later runs are known."""


def met(law: Parametric, runs: Sequence[Curve]) -> Parametric:
    """`law` with E moved so that the last losses of `runs`, trained after it, lie around it.

    A law errs to one side for two reasons: the runs of its ladder share a seed, and a planner takes
    the size where the fitted law is lowest, so that errors which make it too low are met more often
    than others. The spread becomes that of the runs around their mean together with the error of
    the mean, s·√(1 + 1/n), by Student's t. One run tells nothing of a spread: it is `RUN_TO_RUN`,
    taken twice in squares.

    Raises:
      UserError: E would be below 0.
    """
    predicted = np.array([law.loss(run.params, run.tokens[-1]) for run in runs])
    measured = np.array([run.loss[-1] for run in runs])
    raised = float(np.mean(measured - predicted))
    if law.E + raised < 0:
        raise UserError(
            f"The runs lie so far below the law {law.name} that its E would be "
            f"{law.E + raised:.3f}: fit a law to them with `llm-jax fit` or `llm-jax ladder`."
        )
    errors = np.log(measured / (predicted + raised))
    count = len(errors)
    noise = _student(count - 1) * float(errors.std(ddof=1)) if count > 1 else RUN_TO_RUN
    return replace(
        law,
        E=law.E + raised,
        draws=tuple((E + raised, *rest) for E, *rest in law.draws),
        spread=noise * math.sqrt(1 + 1 / count),
    )


def read(law: Parametric, paths: Sequence[Path]) -> list[Curve]:
    """The runs in CSV files and run folders, from which `law` is to learn.

    Raises:
      UserError: a path holds no runs, or is there twice, or a folder's run has not ended, is of
        another family than the law's ladder, or read another dataset.
    """
    curves = []
    seen = [path.resolve() for path in paths]
    for path, place in zip(paths, seen, strict=True):
        if seen.count(place) > 1:
            raise UserError(f"{path} is there twice, and would count as two runs: give it once.")
    for path in paths:
        curves += run_curves.read([path], law.counts)
        if path.is_dir():
            _check(law, path)
    return curves


def _check(law: Parametric, folder: Path) -> None:
    config = read_config(folder / "run.json", RunConfig)
    cell = config.model.cell if isinstance(config.model, RecurrentConfig) else None
    wanted = law.recipe.family if law.recipe and law.recipe.family in GATES else None
    if law.recipe is not None and cell != wanted:
        raise UserError(
            f"{folder} is a run of {cell or 'a Transformer'}, and the law {law.name} one of "
            f"{wanted or 'Transformers'}: move the law with runs of its own family."
        )
    history = read_history(folder, config)
    texts = {entry.fingerprint for entry in history.entries}
    if law.recipe is not None and texts != {law.recipe.fingerprint}:
        raise UserError(
            f"{folder} read another dataset than the runs of the law {law.name} "
            f"({law.recipe.text}): move the law with runs on its own text."
        )
    done = max(
        (r["step"] for r in run_curves.records(folder / "metrics.jsonl", "validation")), default=0
    )
    if done < config.steps:
        raise UserError(
            f"{folder} was last evaluated at step {done:,} of {config.steps:,}: a law speaks of "
            "the end of a schedule, so train the run to its end first."
        )
