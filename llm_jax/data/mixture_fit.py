"""The loss of each source as a function of a mixture's weights, fitted to few runs.

RegMix (Liu et al. 2024, 2407.01492) fits LightGBM to 512 runs; trees have nothing to say with the
dozens that a laptop makes. Here it is ridge regression, as in the paper's linear baseline, on the
weights, on their logarithms too, or on products of logarithms. Each source takes the form and the
penalty whose leave-one-out error is smallest. The error that is reported is that of runs which took
no part in this choice either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

PENALTIES = np.array([1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])
"""Of the squared coefficients of standardised features, per run."""
OFFSETS = (0.003, 0.01, 0.03, 0.1)
"""Weights at which a logarithm turns flat: text of other sources teaches some of each."""
BEST = 128
"""Simulated mixtures whose mean is proposed, as in the authors' code."""
Features = Callable[[np.ndarray], np.ndarray]


def _linear(W: np.ndarray) -> np.ndarray:
    return W


def _logarithmic(W: np.ndarray, offset: float) -> np.ndarray:
    return np.concatenate([W, np.log(W + offset)], axis=1)


def _quadratic(W: np.ndarray, offset: float) -> np.ndarray:
    logs = np.log(W + offset)
    rows, columns = np.triu_indices(W.shape[1])
    return np.concatenate([logs, logs[:, rows] * logs[:, columns]], axis=1)


FORMS: dict[str, Features] = {
    "linear": _linear,
    **{f"logarithmic from {at:g}": partial(_logarithmic, offset=at) for at in OFFSETS},
    **{f"quadratic in logarithms from {at:g}": partial(_quadratic, offset=at) for at in OFFSETS},
}
MOST_FEATURES = 2 / 3
"""Of a form, per run: with more, the best of simulated mixtures is where the fit errs most
(docs/log.md)."""


@dataclass(frozen=True)
class Regression:
    """One source's loss: ridge regression on standardised features."""

    form: str
    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    offset: float

    def __call__(self, W: np.ndarray) -> np.ndarray:
        """Losses (n,) at the mixtures W (n, sources)."""
        return (FORMS[self.form](W) - self.mean) / self.scale @ self.coefficients + self.offset


def fit(W: np.ndarray, losses: np.ndarray) -> list[Regression]:
    """A regression for each column of `losses` (runs, columns) on the weights W (runs, sources)."""
    best: list[tuple[float, Regression]] = []
    for form, features in FORMS.items():
        X = features(W)
        if form != "linear" and X.shape[1] > MOST_FEATURES * len(W):
            continue
        for column, found in enumerate(_ridge(form, X, losses)):
            if column == len(best):
                best.append(found)
            elif found[0] < best[column][0]:
                best[column] = found
    return [regression for _, regression in best]


def _ridge(form: str, X: np.ndarray, Y: np.ndarray) -> list[tuple[float, Regression]]:
    """For each column of Y the best penalty: its squared leave-one-out error, and the fit.

    That error is Σ((y − ŷ)/(1 − h))² with the leverages h, without fitting again (Allen 1974).
    """
    n, mean, scale = len(X), X.mean(axis=0), X.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    U, s, Vt = np.linalg.svd((X - mean) / scale, full_matrices=False)
    centred = Y - Y.mean(axis=0)
    along = U.T @ centred
    errors = []
    for penalty in PENALTIES:
        kept = s**2 / (s**2 + penalty * n)
        leverage = np.minimum(U**2 @ kept + 1 / n, 1 - 1e-9)
        residual = centred - U @ (kept[:, None] * along)
        errors.append(((residual / (1 - leverage)[:, None]) ** 2).sum(axis=0))
    found = []
    for column, place in enumerate(np.argmin(errors, axis=0)):
        b = Vt.T @ (s / (s**2 + PENALTIES[place] * n) * along[:, column])
        made = Regression(form, mean, scale, b, float(Y[:, column].mean()))
        found.append((float(errors[place][column]), made))
    return found


def left_out(W: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """(runs, columns): what `fit` of all other runs predicts for each run."""
    found = np.empty_like(losses)
    for run in range(len(W)):
        others = np.arange(len(W)) != run
        for column, predict in enumerate(fit(W[others], losses[others])):
            found[run, column] = predict(W[run : run + 1])[0]
    return found


def explained(measured: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """How well runs (n,) were predicted that took no part in the fit.

    Returns:
      `r2`: share of the variance that is explained, against the mean of the other runs; 0 or less
      says nothing. `error`: root mean square, in nats. `rank`: Spearman's correlation.
    """
    n = len(measured)
    error = float(((measured - predicted) ** 2).sum())
    spread = float((((measured - measured.mean()) * n / (n - 1)) ** 2).sum())
    first, second = (np.argsort(np.argsort(one)).astype(float) for one in (measured, predicted))
    varies = np.ptp(measured) > 0 and np.ptp(predicted) > 0
    return {
        "r2": 1 - error / spread if spread > 0 else 0.0,
        "error": float(np.sqrt(error / n)),
        "rank": float(np.corrcoef(first, second)[0, 1]) if varies else 0.0,
    }


def proposed(
    mixtures: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], best: int = BEST
) -> np.ndarray:
    """(sources,): the mean of the `best` of `mixtures` (n, sources) by predicted loss."""
    order = np.argsort(predict(mixtures), kind="stable")
    return mixtures[order[:best]].mean(axis=0)
