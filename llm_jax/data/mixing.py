"""Weights of a mixture from the sizes of its sources."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llm_jax.config import UserError


def temperature(sizes: Mapping[str, float], T: float) -> dict[str, float]:
    """p_i ∝ n_i^(1/T): T = 1 is proportional to the sizes, a large T nearly uniform (Xue et al.
    2021, mT5, has 1/T = 0.3)."""
    largest = max(sizes.values())
    powers = {name: (size / largest) ** (1 / T) for name, size in sizes.items()}
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}


def unimax(sizes: Mapping[str, float], budget: float, most_epochs: float) -> dict[str, float]:
    """As uniform as possible with at most `most_epochs` of any source (Chung et al. 2023, UniMax,
    algorithm 1): from the smallest source to the largest, each gets an equal part of what is left
    of the budget, or its cap.

    Args:
      sizes: tokens of each source.
      budget: tokens to be read in all.

    Raises:
      UserError: the caps of all sources together are below the budget.
    """
    require_enough(sizes, budget, most_epochs)
    left, made = budget, dict[str, float]()
    for place, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        made[name] = min(left / (len(sizes) - place), most_epochs * size)
        left -= made[name]
    return {name: made[name] / budget for name in sizes}


def require_enough(sizes: Mapping[str, float], budget: float, most_epochs: float) -> None:
    """Raises `UserError` if `most_epochs` of all sources are fewer tokens than `budget`."""
    whole = most_epochs * sum(sizes.values())
    if whole < budget:
        needed = math.ceil(100 * budget / sum(sizes.values())) / 100
        raise UserError(
            f"--tokens is {budget:,.0f}, but the sources have {whole:,.0f} in {most_epochs:g} "
            f"epochs: raise --max-epochs to {needed:.2f} or more."
        )
