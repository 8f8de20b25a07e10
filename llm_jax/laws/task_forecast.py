"""A task's score of a large model, predicted from smaller ones in two steps.

The task loss, -log p of the right answer, follows the held-out loss: over the range of a ladder a
line is enough. Accuracy follows the task loss: a sigmoid from chance to 1 (Grattafiori et al. 2024,
§3.2.1; Bhagia et al. 2024; Gadre et al. 2024 go from the loss to the error in one step). What has
not risen above chance in any of the smaller models says nothing about when it will (Schaeffer et
al. 2023): then no accuracy is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import norm

from llm_jax.config import UserError
from llm_jax.laws.fitting import fit
from llm_jax.laws.later_runs import RUN_TO_RUN
from llm_jax.laws.run_losses import Runs

DRAWS = 200
LEAST = 4
"""Fewest points of a forecast: three smaller ones and the largest."""
SURE = 0.95
"""Probability with which none of several models at chance counts as better than chance."""
STEEPEST = 100.0
"""Largest slope of a sigmoid, over the range of the task losses."""
TINY = 1e-4
"""Least standard error of a point: one without any would outweigh all others."""


@dataclass(frozen=True)
class Scored:
    """A model's figures on one task, each with its standard error."""

    loss: float
    """Held-out loss, nats per token."""
    task_loss: float
    """-log p of the right answer, nats per byte."""
    task_error: float
    accuracy: float
    accuracy_error: float


@dataclass(frozen=True)
class Predicted:
    """A predicted figure, its 90% interval for a measurement, and what was measured."""

    predicted: float
    low: float
    high: float
    measured: float

    @property
    def within(self) -> bool:
        """Whether the measured figure lies in the interval."""
        return self.low <= self.measured <= self.high


@dataclass(frozen=True)
class Forecast:
    """Of the largest model: each figure from those of the smaller ones."""

    loss: Predicted
    task_loss: Predicted
    accuracy: Predicted | None
    """None if no smaller model is above chance, or what chance is is not known."""


def largest_loss(
    params: Sequence[float], tokens: Sequence[float], loss: Sequence[float], *, seed: int = 0
) -> tuple[float, np.ndarray]:
    """The loss of the last model from those before it, and `DRAWS` draws of a measurement of it.

    Models of several sizes: the law L(N, D) of `laws/fitting.py`. Checkpoints of one model:
    L(D) = E + B/D^beta.

    Args:
      params, tokens, loss: of each model, the last one the largest.

    Raises:
      UserError: the others do not determine a law.
    """
    N, D, L = (np.asarray(column, float) for column in (params, tokens, loss))
    draw = np.random.default_rng(seed)
    if len(set(N)) == 1:
        middle, spread = _checkpoint_loss(D, L)
        return middle, middle + spread * draw.standard_normal(DRAWS)
    law = fit(Runs(N[:-1], D[:-1], L[:-1]), bootstraps=DRAWS, name="smaller runs", seed=seed)
    E, A, B, alpha, beta = np.asarray(law.draws).T
    drawn = E + A / N[-1] ** alpha + B / D[-1] ** beta
    drawn = draw.choice(drawn, DRAWS) * (1 + RUN_TO_RUN * draw.standard_normal(DRAWS))
    return float(law.loss(N[-1], D[-1])), drawn


def _checkpoint_loss(D: np.ndarray, L: np.ndarray) -> tuple[float, float]:
    """The last loss from those before it, and the deviation of a loss from the fitted curve."""
    if len(D) < LEAST + 1:
        raise UserError(
            f"A forecast from the checkpoints of one run needs {LEAST} before the last, and there "
            f"are {len(D) - 1}: keep more (checkpoint.keep_every)."
        )
    scale, least = D[0], float(L[:-1].min())

    def curve(theta: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return theta[0] + theta[1] * (tokens / scale) ** -theta[2]

    found = least_squares(
        lambda theta: curve(theta, D[:-1]) - L[:-1],
        [0.9 * least, L[0] - 0.9 * least, 0.5],
        bounds=([0.0, 0.0, 1e-3], [least, np.inf, 3.0]),
    )
    spread = np.sqrt(np.sum(found.fun**2) / max(len(D) - 1 - 3, 1))
    return float(curve(found.x, D[-1:])[0]), float(spread)


def forecast(
    points: Sequence[Scored],
    loss: tuple[float, np.ndarray],
    *,
    chance: float | None,
    seed: int = 0,
) -> Forecast:
    """The figures of the last of `points` from those before it, and its loss from `largest_loss`.

    Args:
      chance: accuracy without knowledge; None: the figure is not an accuracy, or that is not known,
        and only the losses are predicted.

    Raises:
      UserError: there are too few points.
    """
    if len(points) < LEAST:
        raise UserError(
            f"A forecast needs {LEAST - 1} models beside the largest: there are {len(points) - 1}."
        )
    columns = np.array([[vars(one)[name] for name in vars(points[0])] for one in points])
    others, last = columns[:-1].T, points[-1]
    draw = np.random.default_rng(seed)
    middle, losses = loss
    L, t, dt, a, da = others
    dt, da = np.maximum(dt, TINY), np.maximum(da, TINY)
    task_loss = float(_line(L, t, dt, middle))
    wide = _scatter(t - _line(L, t, dt, L), dt)
    off_t = wide * dt * draw.standard_normal((len(losses), len(t)))
    drawn_t = np.array([_line(L, t + off, dt, one) for off, one in zip(off_t, losses, strict=True)])
    measured_t = drawn_t + wide * max(last.task_error, TINY) * draw.standard_normal(len(drawn_t))
    accuracy = None
    if chance is not None and np.any(a - chance > norm.ppf(SURE ** (1 / len(a))) * da):
        best = _fitted(t, a, da, chance)
        told = float(_sigmoid(best, task_loss, chance))
        wide = _scatter(a - _sigmoid(best, t, chance), da)
        noise = wide * da * draw.standard_normal((len(drawn_t), len(a)))
        drawn_a = np.array(
            [
                _sigmoid(_fitted(t, a + off, da, chance, best), one, chance)
                for one, off in zip(drawn_t, noise, strict=True)
            ]
        )
        drawn_a += wide * max(last.accuracy_error, TINY) * draw.standard_normal(len(drawn_a))
        accuracy = _predicted(told, np.clip(drawn_a, 0, 1), last.accuracy)
    return Forecast(
        loss=_predicted(middle, losses, last.loss),
        # A line may go below 0, which no loss of an answer does.
        task_loss=_predicted(max(task_loss, 0.0), np.maximum(measured_t, 0.0), last.task_loss),
        accuracy=accuracy,
    )


def _predicted(middle: float, draws: np.ndarray, measured: float) -> Predicted:
    low, high = np.quantile(draws, [0.05, 0.95])
    return Predicted(float(middle), float(low), float(high), float(measured))


def _line(
    x: np.ndarray, y: np.ndarray, error: np.ndarray, at: np.ndarray | float
) -> np.ndarray | float:
    """The value at `at` of the line through (x, y), weighted by 1/error²."""
    slope, offset = np.polyfit(x, y, 1, w=1 / error)
    return offset + slope * at


def _scatter(off: np.ndarray, error: np.ndarray) -> float:
    """By what factor points lie further from a curve of two parameters than their errors say, at
    least 1 (Birge 1932). Errors are those of a task's examples; runs differ beside them."""
    return max(1.0, float(np.sqrt(np.sum((off / error) ** 2) / max(len(off) - 2, 1))))


def _fitted(
    t: np.ndarray,
    a: np.ndarray,
    error: np.ndarray,
    chance: float,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Middle and slope of the sigmoid through (task loss, accuracy); a task loss that falls never
    lowers accuracy.

    Args:
      start: where to search from; None: from several places.
    """
    width = max(float(np.ptp(t)), TINY)
    middles = (float(t.min()) - width, float(t.min()), float(t.mean()))
    found = [
        least_squares(
            lambda theta: (_sigmoid(theta, t, chance) - a) / error,
            begin,
            jac=lambda theta: _slopes(theta, t, chance) / error[:, None],
            bounds=([-np.inf, 0.0], [np.inf, STEEPEST / width]),
        )
        for begin in ([[middle, 2 / width] for middle in middles] if start is None else [start])
    ]
    return np.asarray(min(found, key=lambda one: one.cost).x)


def _slopes(theta: np.ndarray, t: np.ndarray, chance: float) -> np.ndarray:
    """Derivatives of `_sigmoid` with respect to middle and slope, (n, 2)."""
    share = (_sigmoid(theta, t, chance) - chance) / (1 - chance)
    middle, slope = theta
    bend = (1 - chance) * share * (1 - share)
    return np.stack([bend * slope, -bend * (t - middle)], axis=1)


def _sigmoid(theta: np.ndarray, t: np.ndarray | float, chance: float) -> np.ndarray:
    middle, slope = theta
    return chance + (1 - chance) / (1 + np.exp(np.clip(slope * (np.asarray(t) - middle), -50, 50)))
