"""The figures of the largest of several models, as the smaller ones predict them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm_jax.config import UserError
from llm_jax.laws.task_forecast import DRAWS, Forecast, Predicted, Scored, forecast, largest_loss
from llm_jax.runs.metric_names import CHANCE, COUNT, STDERR

TASK_LOSS = "answer_nats_per_byte"
CONTINUOUS = {
    TASK_LOSS: "loss of the answer, nats per byte",
    "brier": "Brier score",
    "edit_distance": "edit distance",
}
"""Figures that need not leap; lower is better."""


@dataclass(frozen=True)
class Point:
    """A model: a run's checkpoint, and what it has cost."""

    name: str
    run: str
    step: int
    params: int
    tokens: int
    flops: float
    loss: float | None
    """Held-out loss in nats per token at this step; None if it was not measured there."""
    began_with: str | None = None
    """The run whose weights it began with: its tokens and FLOPs are not counted."""


def forecast_of(
    name: str, points: list[Point], figures: list[dict[str, float] | None]
) -> dict[str, Any]:
    """`forecast` of the last of `points`, or None; and `why` a part of it is missing."""
    known = [
        (point, one)
        for point, one in zip(points, figures, strict=True)
        if one is not None and point.loss is not None and {name, TASK_LOSS} <= one.keys()
    ]
    if begun := next((one for one in points if one.began_with), None):
        said = (
            f"the tokens of {begun.name} do not account for its loss: it began with other weights"
        )
        return {"forecast": None, "why": said}
    if not known or known[-1][0] != points[-1]:
        return {"forecast": None, "why": "the largest model has no loss or no such scores"}
    measured = [
        Scored(
            loss=float(point.loss or 0.0),
            task_loss=one[TASK_LOSS],
            task_error=one.get(TASK_LOSS + STDERR, 0.0),
            accuracy=one[name],
            accuracy_error=accuracy_error(name, one),
        )
        for point, one in known
    ]
    N, D = ([float(value) for value in column]
            for column in zip(*((p.params, p.tokens) for p, _ in known), strict=True))  # fmt: skip
    chance, barred = _accuracy_chance(name, [one for _, one in known])
    why, losses = [barred] if barred else [], [one.loss for one in measured]
    try:
        told = largest_loss(N, D, losses)
    except UserError as error:
        why.append(f"its loss is not forecast, so the steps begin with the measured one: {error}")
        told = losses[-1], np.full(DRAWS, losses[-1])
    try:
        made = forecast(measured, told, chance=chance)
    except UserError as error:
        return {"forecast": None, "why": str(error).rstrip(".")}
    parts = _as_dict(made) | ({"loss": None} if why else {})
    if made.accuracy is None and not barred:
        why.append("no smaller model is above chance, so the accuracy cannot be forecast")
    return {"forecast": parts, "why": "; ".join(one.rstrip(".") for one in why) or None}


def accuracy_error(name: str, figures: dict[str, float]) -> float:
    """The standard error of an accuracy. Where no example is right, or all are, it would be 0, as
    if there were no doubt: then it is that of 2 among n + 4 (Agresti and Coull 1998)."""
    error, n = figures.get(name + STDERR, 0.0), figures.get(COUNT)
    if error > 0 or n is None or figures[name] not in (0.0, 1.0):
        return error
    share = 2 / (n + 4)
    return math.sqrt(share * (1 - share) / (n + 4))


def _accuracy_chance(name: str, figures: list[dict[str, float]]) -> tuple[float | None, str | None]:
    """The level of chance of a figure that can be forecast as an accuracy; or None, and why it
    cannot: the sigmoid goes from chance to 1."""
    if name in CONTINUOUS or not all(0 <= one[name] <= 1 for one in figures):
        what = "it is no share of right answers between 0 and 1"
    elif not 0 <= figures[-1].get(CHANCE, -1.0) < 1:
        said = f"metadata: {{chance: {{{name}: …}}}}"
        what = f"its level of chance is not known ({said} in the task's file says it)"
    else:
        return figures[-1][CHANCE], None
    return None, f"{name} is not forecast, only the answer's loss, because {what}"


def _as_dict(made: Forecast) -> dict[str, Any]:
    parts = {"loss": made.loss, "task_loss": made.task_loss, "accuracy": made.accuracy}
    return {name: part and _compared(part) for name, part in parts.items()}


def _compared(part: Predicted) -> dict[str, Any]:
    return {
        "predicted": part.predicted,
        "interval": [part.low, part.high],
        "measured": part.measured,
        "difference": part.measured - part.predicted,
        "within": part.within,
    }
