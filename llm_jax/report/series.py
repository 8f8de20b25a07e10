"""What a run measured on its way, as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_jax.config import RunConfig
from llm_jax.laws.run_curves import records
from llm_jax.report.outcome import METRICS, is_number, skipped_steps
from llm_jax.runs.history import History
from llm_jax.runs.json_lines import read_records
from llm_jax.runs.metric_names import LOSS_OF
from llm_jax.runs.scores import score_curves
from llm_jax.runs.starts import read_starts

DRAWN = 800
"""Most points of a drawn curve."""


Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Curves over tokens read; a figure that the run did not record has an empty curve."""

    loss: Curve
    """Training loss in nats per token."""
    smooth_loss: Curve
    validation: Curve
    by_source: dict[str, Curve]
    """Validation loss of each source of a mixture."""
    learning_rate: Curve
    grad_norm: Curve
    smooth_grad_norm: Curve
    tokens_per_second: Curve
    mfu: Curve
    step_seconds: Curve
    restarts: list[float]
    """Tokens that were read when the run resumed."""
    skipped: list[float]
    """Tokens that were read when the guard skipped a step."""
    scores: dict[str, Curve]
    """The first figure of each task, `TASK/FIGURE`, where it lies between 0 and 1."""


def smoothed(values: Sequence[float], half: int) -> list[float]:
    """The mean of each value and the `half` values on both sides of it.

    Near the beginning, where a loss falls steeply, as few are taken after a value as there are
    before it, so that the slope is not shifted. Near the end, it is those that there are.
    """
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    means = []
    for i in range(len(values)):
        first, last = max(0, i - half), min(i + min(half, i), len(values) - 1)
        means.append(float(sums[last + 1] - sums[first]) / (last + 1 - first))
    return means


def series(folder: Path, config: RunConfig, history: History) -> Series:
    """The curves of the run in `folder`.

    Raises:
      UserError: its metrics are damaged.
    """
    train = records(folder / METRICS, "train", "tokens_per_second")

    def curve(name: str) -> Curve:
        return [(r["tokens"], r[name]) for r in train if is_number(r.get(name))]

    held_out = records(folder / METRICS, "validation")
    by_source: dict[str, Curve] = {}
    for record in held_out:
        for name, value in record.items():
            if name.startswith(LOSS_OF) and is_number(value):
                own = by_source.setdefault(name.removeprefix(LOSS_OF), [])
                own.append((record["tokens"], value))
    loss, norms = curve("loss"), curve("grad_norm")
    starts = read_starts(folder)[1:]
    return Series(
        loss=loss,
        smooth_loss=_smooth(loss),
        validation=[(r["tokens"], r["loss"]) for r in held_out],
        by_source=by_source,
        learning_rate=curve("learning_rate"),
        grad_norm=norms,
        smooth_grad_norm=_smooth(norms),
        tokens_per_second=curve("tokens_per_second"),
        mfu=curve("mfu"),
        step_seconds=[
            (r["tokens"], history.step_tokens(r["step"]) / r["tokens_per_second"]) for r in train
        ],
        restarts=[history.tokens(min(start.first, config.steps)) for start in starts],
        skipped=[history.tokens(step) for step in skipped_steps(folder)],
        scores=score_curves(record for _, record in read_records(folder / METRICS)),
    )


def thinned(curve: Curve) -> Curve:
    """At most about `DRAWN` of the points, evenly, and the last one."""
    every = math.ceil(len(curve) / DRAWN)
    return curve if every <= 1 else [*curve[:-1:every], curve[-1]]


def _smooth(curve: Curve) -> Curve:
    """Each point as the mean of about √n of the n points around it."""
    values = smoothed([value for _, value in curve], max(1, math.isqrt(len(curve)) // 2))
    return [(tokens, value) for (tokens, _), value in zip(curve, values, strict=True)]
