"""Checks on a fit: dropped points, IsoFLOP parabolas (approach 2), the envelope (approach 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm_jax.plan.fit import PARAMETERS, Objective, Runs, logarithms, polish, solve_batch
from llm_jax.plan.laws import Parametric
from llm_jax.plan.runs import Curve


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
    """The fit again without the 1, 2, … `most` runs of highest loss.

    Rows hold `dropped, E, A, B, alpha, beta`. A handful of early, high-loss points can move β by
    a third (Besiroglu et al. 2024, section 5).
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
    """Approach 2: a parabola of loss in ln N for each compute budget; its minimum is N_opt.

    Runs whose compute differs by less than `spread` (relative, from one to the next) form a
    budget. Budgets whose parabola has no minimum among its sizes are left out, and said.
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
    """Approach 1: at each compute, the run whose loss curve is lowest there; its N is N_opt.

    Curves are interpolated in ln C. Points inside of a run carry a learning rate that has not
    decayed, which makes them too high: Hoffmann et al. 2022 use schedules matched to each length.
    Where the lowest curve is of the smallest or largest size there, the best may lie beyond it:
    such budgets are left out.
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
