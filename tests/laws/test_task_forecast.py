"""The forecast of a task's scores, on figures that follow known curves."""

from __future__ import annotations

import numpy as np
import pytest

from llm_jax.config import UserError
from llm_jax.laws.task_forecast import Scored, forecast, largest_loss

N = np.array([1e6, 2e6, 4e6, 1e6, 2e6, 4e6, 1e6, 2e6, 8e6])
D = np.array([2e7, 2e7, 2e7, 6e7, 6e7, 6e7, 2e8, 2e8, 6e8])


def losses(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return 1.5 + 300 / params**0.4 + 200 / tokens**0.3


def task_loss(loss: np.ndarray) -> np.ndarray:
    return -0.4 + 0.5 * loss


def accuracy(t: np.ndarray, chance: float) -> np.ndarray:
    return chance + (1 - chance) / (1 + np.exp(8 * (t - 1.1)))


def scored(L: np.ndarray, chance: float, error: float, seed: int | None = None) -> list[Scored]:
    t = task_loss(L)
    a = accuracy(t, chance)
    if seed is not None:
        noise = np.random.default_rng(seed)
        t, a = t + error * noise.standard_normal(len(t)), a + error * noise.standard_normal(len(a))
    return [
        Scored(*map(float, row), error) for row in zip(L, t, np.full(len(L), error), a, strict=True)
    ]


def test_without_noise_the_largest_is_predicted_exactly() -> None:
    L = losses(N, D)
    loss = largest_loss(N, D, L)
    assert loss[0] == pytest.approx(L[-1], rel=1e-3)
    found = forecast(scored(L, 0.25, 1e-3), loss, chance=0.25)
    assert found.task_loss.predicted == pytest.approx(task_loss(L[-1:])[0], rel=5e-3)
    assert found.accuracy is not None
    assert found.accuracy.predicted == pytest.approx(accuracy(task_loss(L[-1:]), 0.25)[0], abs=0.01)
    assert found.loss.within and found.task_loss.within and found.accuracy.within


@pytest.mark.slow
def test_intervals_hold_what_they_say() -> None:
    """Of 24 ladders with noise, the measured figure lies in the 90% interval of most."""
    L = losses(N, D)
    loss = largest_loss(N, D, L)
    made = [forecast(scored(L, 0.25, 0.02, s), loss, chance=0.25, seed=s) for s in range(24)]
    for figures in ([one.task_loss for one in made], [one.accuracy for one in made]):
        share = np.mean([one is not None and one.within for one in figures])
        assert 0.75 <= share <= 1.0
    widths = [one.accuracy.high - one.accuracy.low for one in made if one.accuracy]
    assert np.median(widths) < 0.3


def test_models_that_scatter_more_than_their_errors_widen_the_interval() -> None:
    """Runs differ beside their examples' errors. Of 40 ladders of such runs, the measured figure
    lies in the 90% interval of most."""
    L = losses(N, D)
    loss = largest_loss(N, D, L)
    within = {0.03: 0, 0.001: 0}
    for seed in range(40):
        noise = 0.03 * np.random.default_rng(seed).standard_normal(len(L))
        t = task_loss(L) + noise
        for error in within:
            points = [
                Scored(float(a), float(b), error, 0.5, 0.1) for a, b in zip(L, t, strict=True)
            ]
            within[error] += forecast(points, loss, chance=None, seed=seed).task_loss.within
    assert 32 <= within[0.001] <= 39 and 32 <= within[0.03] <= 40


def test_what_is_at_chance_is_not_predicted() -> None:
    L = losses(N, D)
    flat = [Scored(p.loss, p.task_loss, p.task_error, 0.25, 0.03) for p in scored(L, 0.25, 0.03)]
    found = forecast(flat, largest_loss(N, D, L), chance=0.25)
    assert found.accuracy is None and found.task_loss.within


def test_no_loss_of_an_answer_is_below_0() -> None:
    L = np.linspace(3.0, 2.0, 5)
    points = [Scored(x, max(2 * (x - 2.2), 0.05), 0.3, 0.25, 0.03) for x in L]
    found = forecast(points, (2.0, np.full(200, 2.0)), chance=None).task_loss
    assert (found.predicted, found.low) == (0.0, 0.0)
    assert found.high > 0.0 and found.within


def test_the_last_checkpoint_of_one_run() -> None:
    tokens = np.array([1, 2, 4, 8, 16, 32]) * 1e6
    L = 2.0 + 3.0 * (tokens / 1e6) ** -0.5
    middle, drawn = largest_loss(np.full(6, 1e6), tokens, L)
    assert middle == pytest.approx(L[-1], rel=2e-3) and np.ptp(drawn) < 0.05
    with pytest.raises(UserError, match="keep_every"):
        largest_loss(np.full(4, 1e6), tokens[:4], L[:4])


def test_too_few_models_are_refused() -> None:
    L = losses(N, D)
    with pytest.raises(UserError, match="needs 3 models"):
        forecast(scored(L, 0.25, 0.02)[-3:], (1.0, np.ones(9)), chance=0.25)
