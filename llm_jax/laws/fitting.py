"""Fits L(N, D) = E + A/N^α + B/D^β to runs, with a bootstrap for its uncertainty."""

from __future__ import annotations

import numpy as np

from llm_jax.config import UserError
from llm_jax.laws.law import Counts, Fitted, Parametric, Recipe
from llm_jax.laws.objective import Objective, best_theta, solve_batch
from llm_jax.laws.run_losses import Runs

PARAMETERS = ("E", "A", "B", "alpha", "beta")


def fit(
    runs: Runs,
    *,
    name: str = "fitted",
    source: str = "fitted to own runs",
    counts: Counts = "all",
    bootstraps: int = 4000,
    seed: int = 0,
    recipe: Recipe | None = None,
) -> Parametric:
    """The law of `runs`, with `bootstraps` draws. Each draw is the fit of a sample with
    replacement.

    Args:
      counts: whether `runs.params` are all parameters or those without embeddings.
      recipe: how the runs were trained; None if not known.

    Raises:
      UserError: the runs cannot determine a law, or the fit has not converged.
    """
    objective = Objective(runs)
    n = len(runs.loss)
    theta = best_theta(objective, np.ones(n))
    draws = bootstrap(objective, theta, bootstraps, seed)
    E, A, B, alpha, beta = objective.constants(theta)
    if min(alpha, beta) <= 0:
        raise UserError(
            f"The best fit has alpha = {alpha:.3g} and beta = {beta:.3g}, so its loss rises with "
            "size or data: check the runs, or add runs at other sizes and tokens."
        )
    if bootstraps and not len(draws):
        raise UserError(
            "No bootstrap sample of the runs determines a law: add runs at other sizes and tokens."
        )
    residual = objective.residuals(theta[None])[0][0]
    return Parametric(
        name=name,
        source=source,
        counts=counts,
        fitted=Fitted(*(_span(x) for x in (runs.flops, runs.params, runs.tokens))),
        E=float(E),
        A=float(A),
        B=float(B),
        alpha=float(alpha),
        beta=float(beta),
        draws=tuple(tuple(map(float, row)) for row in draws),
        residual=float(np.sqrt((residual**2).sum() / max(1, n - 5))),
        recipe=recipe,
    )


def logarithms(law: Parametric) -> np.ndarray:
    """(ln A, ln B, ln E, α, β) of a law."""
    return np.array([*np.log([law.A, law.B, law.E]), law.alpha, law.beta])


def huber(runs: Runs, law: Parametric) -> float:
    """Sum of the Huber losses of `law` on `runs`."""
    objective = Objective(runs)
    theta = objective.centre(logarithms(law))
    return float(objective.value(theta[None], np.ones(len(runs.loss)))[0])


def _span(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def bootstrap(objective: Objective, theta: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Up to `count` draws of (E, A, B, α, β), (draws, 5): the fits of samples with replacement.

    Each fit starts at the fit of all runs. Samples that do not determine the law (an exponent at or
    below 0) are left out.
    """
    n = len(objective.target)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
    fitted = [
        solve_batch(objective, np.tile(theta, (len(part), 1)), part, 200, 1e-7)
        for part in np.array_split(weights, max(1, count // 250))
        if len(part)
    ]
    constants = objective.constants(np.concatenate(fitted)) if fitted else np.empty((0, 5))
    return constants[(constants[:, 3:] > 0).all(axis=1) & np.isfinite(constants).all(axis=1)]
