"""The objective of the robust fit, and its minimum (Hoffmann et al. 2022, sections 3.3 and D.2).

It is Σ Huber_δ(LSE(a − α·ln N, b − β·ln D, e) − ln L) with δ = 1e-3, a = ln A, b = ln B, e = ln E.
The *sum* matters: with a mean, L-BFGS with default tolerances stops at its start (Besiroglu et al.
2024). All starts run together in one batched, damped Gauss–Newton iteration. BFGS then refines the
best ones. A minimum whose gradient is not zero is refused.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.optimize import minimize

from llm_jax.config import UserError
from llm_jax.laws.run_losses import Runs

DELTA = 1e-3
STARTS = np.array(
    list(
        product(range(0, 30, 5), range(0, 30, 5), (-1, -0.5, 0, 0.5, 1), *[(0, 0.5, 1, 1.5, 2)] * 2)
    ),
    dtype=np.float64,
)
"""The grid of (a, b, e, α, β) of Hoffmann et al. 2022, appendix D.2: 4,500 starts."""
GRADIENT_LIMIT = 1e-4
"""Largest relative gradient of a converged fit. Typical values: about 1e-9 if converged, 0.01 to 1
if stopped early."""


class Objective:
    """The objective in centred coordinates θ = (a − α·mean ln N, b − β·mean ln D, e, α, β).

    Centring removes the near-collinearity of a with α and of b with β. In the methods, `weights`
    counts how often each run occurs, so a bootstrap sample is the same data with other weights.
    """

    def __init__(self, runs: Runs):
        self.log_n, self.log_d = np.log(runs.params), np.log(runs.tokens)
        self.mean_n, self.mean_d = self.log_n.mean(), self.log_d.mean()
        self.x_n, self.x_d = self.log_n - self.mean_n, self.log_d - self.mean_d
        self.target = np.log(runs.loss)

    def centre(self, plain: np.ndarray) -> np.ndarray:
        """(…, 5) of (a, b, e, α, β) to centred coordinates."""
        out = np.array(plain)
        out[..., 0] -= plain[..., 3] * self.mean_n
        out[..., 1] -= plain[..., 4] * self.mean_d
        return out

    def constants(self, theta: np.ndarray) -> np.ndarray:
        """(…, 5) centred coordinates to (E, A, B, α, β)."""
        a = theta[..., 0] + theta[..., 3] * self.mean_n
        b = theta[..., 1] + theta[..., 4] * self.mean_d
        with np.errstate(over="ignore"):  # draws that diverged are counted and left out
            E, A, B = np.exp(theta[..., 2]), np.exp(a), np.exp(b)
        return np.stack([E, A, B, theta[..., 3], theta[..., 4]], axis=-1)

    def residuals(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """r = ln L̂ − ln L of shape (S, n) and its Jacobian (S, 5, n) for θ of shape (S, 5)."""
        jacobian = np.empty((len(theta), 5, len(self.target)))
        share = jacobian[:, :3]
        share[:, 0] = theta[:, None, 0] - theta[:, None, 3] * self.x_n
        share[:, 1] = theta[:, None, 1] - theta[:, None, 4] * self.x_d
        share[:, 2] = theta[:, None, 2]
        top = share.max(axis=1, keepdims=True)
        np.exp(np.subtract(share, top, out=share), out=share)
        total = share.sum(axis=1, keepdims=True)
        share /= total
        np.multiply(share[:, 0], -self.x_n, out=jacobian[:, 3])
        np.multiply(share[:, 1], -self.x_d, out=jacobian[:, 4])
        return top[:, 0] + np.log(total[:, 0]) - self.target, jacobian

    def value(self, theta: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Σ w·Huber(r), shape (S,)."""
        residual = np.abs(self.residuals(theta)[0])
        return (weights * _huber(residual)).sum(axis=-1)

    def value_and_gradient(self, theta: np.ndarray, weights: np.ndarray):
        """The objective and its gradient for one θ of shape (5,), for SciPy."""
        residual, jacobian = self.residuals(theta[None])
        slope = weights * np.clip(residual[0], -DELTA, DELTA)
        return (weights * _huber(np.abs(residual[0]))).sum(), jacobian[0] @ slope

    def relative_gradient(self, theta: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Largest |Σ g_i|/Σ |g_i| over the coordinates, shape (S,); 0 at an optimum."""
        residual, jacobian = self.residuals(theta)
        parts = (weights * np.clip(residual, -DELTA, DELTA))[:, None] * jacobian
        size = np.abs(parts).sum(axis=-1)
        return (np.abs(parts.sum(axis=-1)) / np.where(size > 0, size, 1)).max(axis=-1)


def _huber(distance: np.ndarray) -> np.ndarray:
    inside = distance <= DELTA
    return np.where(inside, 0.5 * distance**2, DELTA * (distance - 0.5 * DELTA))


def solve_batch(
    objective: Objective, theta: np.ndarray, weights: np.ndarray, steps: int, tolerance: float
) -> np.ndarray:
    """Damped Gauss–Newton on Huber's reweighted least squares, for all starts at once.

    Args:
      theta: (S, 5) centred starts.
      weights: (S, n), or (1, n) for the same data everywhere.
      steps: largest number of iterations. A start leaves the batch when its step is below
        `tolerance`.

    Returns:
      (S, 5) centred solutions.
    """
    theta = theta.copy()
    weights = np.broadcast_to(weights, (len(theta), weights.shape[-1]))
    damping = np.full(len(theta), 1e-3)
    live = np.arange(len(theta))
    residual, jacobian = objective.residuals(theta)
    best = (weights * _huber(np.abs(residual))).sum(axis=-1)
    for _ in range(steps):
        weight = weights[live]
        pull = weight * np.minimum(1.0, DELTA / np.maximum(np.abs(residual), 1e-300))
        weighted = jacobian * pull[:, None]
        hessian = np.matmul(weighted, jacobian.transpose(0, 2, 1))
        gradient = np.matmul(weighted, residual[..., None])
        scale = np.einsum("sii->si", hessian) + 1e-12
        hessian[:, np.arange(5), np.arange(5)] += damping[live, None] * scale + 1e-14
        step = np.clip(-np.linalg.solve(hessian, gradient)[..., 0], -2.0, 2.0)
        new_residual, new_jacobian = objective.residuals(theta[live] + step)
        value = (weight * _huber(np.abs(new_residual))).sum(axis=-1)
        better = value <= best[live]
        theta[live[better]] += step[better]
        best[live[better]] = value[better]
        damping[live] = np.where(better, damping[live] / 5, damping[live] * 5)
        residual = np.where(better[:, None], new_residual, residual)
        jacobian = np.where(better[:, None, None], new_jacobian, jacobian)
        done = (better & (np.abs(step).max(axis=-1) < tolerance)) | (damping[live] > 1e8)
        if done.any():
            live, residual, jacobian = live[~done], residual[~done], jacobian[~done]
        if not len(live):
            break
    return theta


def polish(objective: Objective, theta: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """BFGS with analytic gradients and tight tolerances, from one centred start (5,).

    The objective is divided by δ², so that gradients are of order one. It stays a sum.
    """

    def scaled(x: np.ndarray):
        value, gradient = objective.value_and_gradient(x, weights)
        return value / DELTA**2, gradient / DELTA**2

    for _ in range(3):
        theta = minimize(
            scaled, theta, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000}
        ).x
    return theta


def best_theta(objective: Objective, weights: np.ndarray) -> np.ndarray:
    """The best result of all 4,500 starts, (5,) centred. Three rounds keep the best 400, 40 and 4.

    Raises:
      UserError: the gradient at the best point is not zero.
    """
    starts = objective.centre(STARTS)
    value = objective.value(starts, weights[None])
    theta = starts[np.isfinite(value)]
    for keep, steps in ((400, 6), (40, 25), (4, 300)):
        theta = np.concatenate(
            [
                solve_batch(objective, part, weights[None], steps, 1e-12)
                for part in np.array_split(theta, -(-len(theta) // 500))
            ]
        )
        theta = theta[np.argsort(objective.value(theta, weights[None]))[:keep]]
    finished = [polish(objective, start, weights) for start in theta] + [theta[0]]
    best = min(finished, key=lambda theta: float(objective.value(theta[None], weights)[0]))
    left = float(objective.relative_gradient(best[None], weights)[0])
    exact = float(np.abs(objective.residuals(best[None])[0]).max()) < 1e-9
    if left > GRADIENT_LIMIT and not exact:
        raise UserError(
            f"The fit has not converged: its relative gradient is {left:.2g}, and an optimum has "
            "0. The runs do not determine the law: add runs at other sizes and tokens."
        )
    return best
