"""RegMix's fit: it finds the optimum of a known function, and knows when it knows nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from llm_jax.config import UserError
from llm_jax.data import mixture_fit
from llm_jax.data.random_mixtures import LEAST, Around

SIZES = {"web": 5e6, "code": 3e6, "books": 1e6, "papers": 4e5}
TOKENS, EPOCHS = 3e6, 4.0
CAPS = np.array([*SIZES.values()]) * EPOCHS / TOKENS


def losses(W: np.ndarray) -> np.ndarray:
    """Of each source: a power law of its own share and of a little from the others."""
    taught = np.array([[0, 9, 3, 2], [6, 0, 3, 1], [3, 3, 0, 9], [2, 1, 6, 0]]) / 100
    return 1.5 + np.array([1.0, 0.8, 1.2, 0.5]) * (W + W @ taught.T + 0.01) ** -0.3


def drawn(count: int, seed: int = 0) -> np.ndarray:
    return Around(SIZES, TOKENS, EPOCHS).series(seed, count)


def test_the_optimum_of_a_known_function() -> None:
    W = drawn(48)
    Y = losses(W) + np.random.default_rng(1).normal(0, 0.01, (48, 4))
    quality = mixture_fit.explained(Y.mean(axis=1), mixture_fit.left_out(W, Y).mean(axis=1))
    assert quality["r2"] > 0.98 and quality["rank"] > 0.95 and quality["error"] < 0.03
    fits = mixture_fit.fit(W, Y)
    candidates = Around(SIZES, TOKENS, EPOCHS).many(0, mixture_fit.BEST)
    for columns in ([0, 1, 2, 3], [2]):
        best = mixture_fit.proposed(
            candidates, lambda W, c=columns: np.mean([fits[i](W) for i in c], axis=0)
        )
        true = losses(candidates)[:, columns].mean(axis=1)
        at_best = losses(best[None])[0, columns].mean()
        assert best.sum() == pytest.approx(1) and (best <= CAPS + 1e-9).all()
        # Of all that mixtures can gain over the natural one, at least 95% are gained.
        natural = losses(np.array([[*SIZES.values()]]) / sum(SIZES.values()))[0, columns].mean()
        assert (natural - at_best) / (natural - true.min()) > 0.95
    optimum = candidates[losses(candidates).mean(axis=1).argmin()]
    mean = mixture_fit.proposed(candidates, lambda W: np.mean([f(W) for f in fits], axis=0))
    assert np.abs(mean - optimum).max() < 0.05


@pytest.mark.slow
def test_random_losses_explain_nothing() -> None:
    """Of 200 series of noise, at most 1 in 100 reaches half of the variance."""
    reached = 0
    for seed in range(200):
        W, Y = drawn(16, seed), np.random.default_rng(seed).normal(size=(16, 4))
        predicted = mixture_fit.left_out(W, Y)
        reached += mixture_fit.explained(Y.mean(axis=1), predicted.mean(axis=1))["r2"] >= 0.5
    assert reached <= 2


def test_leave_one_out_is_that_of_fits_without_the_run() -> None:
    """The closed form that chooses penalties is the error of fits that are made again."""
    W = drawn(20)
    Y = losses(W)[:, :1]
    X = np.log(W + 0.03)
    ((error, found),) = mixture_fit._ridge("linear", X, Y)
    mean, scale = X.mean(axis=0), X.std(axis=0)
    Z = (X - mean) / scale
    by_penalty = []
    for penalty in mixture_fit.PENALTIES:
        total = 0.0
        for run in range(20):
            others = np.arange(20) != run
            # Ridge with a free constant, on features that are standardised by all runs.
            A = np.concatenate([Z[others], np.ones((19, 1))], axis=1)
            free = np.diag([penalty * 20] * 4 + [0.0])
            b = np.linalg.solve(A.T @ A + free, A.T @ Y[others, 0])
            total += (np.append(Z[run], 1) @ b - Y[run, 0]) ** 2
        by_penalty.append(total)
    assert error == pytest.approx(min(by_penalty), rel=1e-6)
    assert found.offset == pytest.approx(Y.mean())


def test_mixtures_keep_their_caps_and_their_numbers() -> None:
    W = drawn(24)
    assert np.array_equal(drawn(48)[:24], W)
    assert np.allclose(W.sum(axis=1), 1) and (W <= CAPS + 1e-9).all()
    assert W[W > 0].min() >= LEAST
    apart = np.abs(W[:, None] - W).max(axis=2)
    assert apart[~np.eye(24, dtype=bool)].min() > LEAST
    assert (W.max(axis=1) > 0.95).any() and (W.max(axis=1) < 0.6).any()
    candidates = Around(SIZES, TOKENS, EPOCHS).many(0, 128)
    assert len(candidates) >= 12_800 and (candidates <= CAPS + 1e-9).all()


def test_too_little_text_for_the_run() -> None:
    with pytest.raises(UserError, match="--max-epochs to") as caught:
        Around(SIZES, 1e9, 4.0)
    named = re.search(r"--max-epochs to ([\d.]+)", str(caught.value))
    assert named is not None
    tight = Around(SIZES, 1e9, float(named[1]))
    with pytest.raises(UserError, match="Hardly any mixture"):
        tight.series(0, 1)
