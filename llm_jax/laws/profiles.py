"""Checks of a fit: dropped points, IsoFLOP parabolas (approach 2), the envelope (approach 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm_jax.laws.fitting import PARAMETERS, logarithms
from llm_jax.laws.law import Parametric
from llm_jax.laws.objective import Objective, polish, solve_batch
from llm_jax.laws.run_curves import Curve
from llm_jax.laws.run_losses import Runs


@dataclass(frozen=True)
class Exponent:
    """N_opt = k·C^a through `points` (C, N_opt); a and k are None with fewer than two points."""

    points: tuple[tuple[float, float], ...]
    a: float | None
    k: float | None


def power_law(points: Sequence[tuple[float, float]]) -> Exponent:
    """Least squares in logarithms."""
    if len(points) < 2:
        return Exponent(tuple(points), None, None)
    flops, params = np.log(np.asarray(points)).T
    a, log_k = np.polyfit(flops, params, 1)
    return Exponent(tuple(points), float(a), float(np.exp(log_k)))


def drop_sensitivity(runs: Runs, law: Parametric, most: int = 5) -> list[dict[str, float]]:
    """Fits without the 1, 2, … `most` runs of highest loss.

    Each row has `dropped, E, A, B, alpha, beta`. A few early points with a high loss can change β
    by a third (Besiroglu et al. 2024, section 5).
    """
    order = np.argsort(runs.loss)[::-1]
    rows = []
    for dropped in range(1, most + 1):
        kept = np.sort(order[dropped:])
        if len(kept) < 6 or min(np.ptp(runs.params[kept]), np.ptp(runs.tokens[kept])) == 0:
            break
        objective = Objective(runs.take(kept))
        weights = np.ones(len(kept))
        start = objective.centre(logarithms(law))
        theta = solve_batch(objective, start[None], weights[None], 300, 1e-12)
        values = objective.constants(polish(objective, theta[0], weights))
        rows.append({"dropped": dropped, **dict(zip(PARAMETERS, values.tolist(), strict=True))})
    return rows


def isoflop(runs: Runs, spread: float = 0.1) -> tuple[Exponent, list[str]]:
    """Approach 2: a parabola of the loss in ln N for each compute budget; its minimum is N_opt.

    Runs form a budget if the compute of each differs from the next by less than `spread`
    (relative). A budget is left out if its parabola has no minimum between its sizes.

    Returns:
      The exponent, and a sentence for each budget that was left out.
    """
    order = np.argsort(runs.flops)
    cuts = np.flatnonzero(np.diff(np.log(runs.flops[order])) > np.log1p(spread)) + 1
    points, notes = [], []
    for group in np.split(order, cuts):
        sizes = np.log(runs.params[group])
        if len(np.unique(sizes.round(6))) < 3:
            continue
        flops = float(np.exp(np.log(runs.flops[group]).mean()))
        curve, slope, _ = np.polyfit(sizes, runs.loss[group], 2)
        bottom = -slope / (2 * curve) if curve != 0 else np.inf
        if curve <= 0 or not sizes.min() <= bottom <= sizes.max():
            notes.append(
                f"The {len(group)} runs at {flops:.2g} FLOPs show no minimum between their sizes."
            )
            continue
        points.append((flops, float(np.exp(bottom))))
    return power_law(points), notes


def envelope(curves: Sequence[Curve], budgets: int = 200) -> Exponent:
    """Approach 1: N_opt at a compute budget is the N of the run with the lowest loss curve there.

    Curves are interpolated in ln C. Inside a run the learning rate has not decayed, so these losses
    are too high; Hoffmann et al. 2022 match the schedule to each length. If the lowest curve has
    the smallest or the largest size at a budget, the optimum may be outside: that budget is left
    out.
    """
    long = [curve for curve in curves if len(curve.tokens) > 1]
    if len({curve.params for curve in long}) < 3:
        return Exponent((), None, None)
    logs = [np.log(6 * c.params * np.asarray(c.tokens)) for c in long]
    grid = np.linspace(min(x[0] for x in logs), max(x[-1] for x in logs), budgets)
    losses = np.array(
        [
            np.interp(grid, x, c.loss, left=np.inf, right=np.inf)
            for x, c in zip(logs, long, strict=True)
        ]
    )
    sizes = np.array([c.params for c in long])
    points = []
    for x, column in zip(grid, losses.T, strict=True):
        covering = sizes[np.isfinite(column)]
        best = sizes[column.argmin()]
        if len(covering) > 2 and covering.min() < best < covering.max():
            points.append((float(np.exp(x)), float(best)))
    return power_law(points)
