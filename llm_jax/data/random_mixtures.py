"""Random mixtures around the natural one, for RegMix (Liu et al. 2024, 2407.01492).

A mixture is drawn from a Dirichlet distribution. Its centre is the sizes of the sources to the
power of 1/2, as in the authors' code, and its concentration one of 15 from 0.1 (nearly one source
alone) to 5. Mixtures that would read a source more often than its cap are drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llm_jax.config import UserError
from llm_jax.data.mixing import require_enough, temperature

CONCENTRATIONS = np.geomspace(0.1, 5.0, 15)
LEAST = 0.005
"""A smaller weight becomes 0: a short run would hardly see such a source."""
TRIES = 10_000
"""Draws for one mixture, after which the caps are too tight for another."""
SIMULATED = 100_000
"""Mixtures that are simulated to find the best, as in the paper."""
ROUNDS = 20
"""Times that so many are drawn, if few of them keep the caps."""


class Around:
    """Draws mixtures of sources.

    Args:
      sizes: tokens of each source.
      budget: tokens of the run that a mixture is for.
      most_epochs: cap of each source in that run.

    Raises:
      UserError: all sources together have too few tokens.
    """

    def __init__(self, sizes: Mapping[str, float], budget: float, most_epochs: float) -> None:
        require_enough(sizes, budget, most_epochs)
        self._centre = np.array([*temperature(sizes, 2.0).values()])
        self._caps = np.array([*sizes.values()]) * most_epochs / budget
        self._refusal = UserError(
            f"Hardly any mixture reads each source at most {most_epochs:g} times in {budget:,.0f} "
            "tokens: raise --max-epochs, or lower --tokens."
        )

    def series(self, seed: int, count: int) -> np.ndarray:
        """(count, sources): mixtures that all differ. A longer series begins with a shorter one."""
        rng, found = np.random.default_rng([seed]), np.empty((0, len(self._caps)))
        for _ in range(count):
            found = np.concatenate([found, self._another(rng, found)])
        return found

    def _another(self, rng: np.random.Generator, before: np.ndarray) -> np.ndarray:
        for _ in range(TRIES):
            drawn = _without_traces(rng.dirichlet(self._centre * rng.choice(CONCENTRATIONS), 1))
            is_new = (np.abs(before - drawn).max(axis=1, initial=0.0) > LEAST).all()
            if is_new and self._keeps_caps(drawn)[0]:
                return drawn
        raise self._refusal

    def many(self, seed: int, least: int) -> np.ndarray:
        """(n, sources): mixtures, at least `least` of them."""
        rng, found = np.random.default_rng([seed, 1]), np.empty((0, len(self._caps)))
        for _ in range(ROUNDS):
            each = SIMULATED // len(CONCENTRATIONS)
            drawn = [rng.dirichlet(self._centre * one, each) for one in CONCENTRATIONS]
            mixtures = _without_traces(np.concatenate(drawn))
            found = np.concatenate([found, mixtures[self._keeps_caps(mixtures)]])
            if len(found) >= 100 * least:
                return found
        if len(found) < least:
            raise self._refusal
        return found

    def _keeps_caps(self, mixtures: np.ndarray) -> np.ndarray:
        return np.all(mixtures <= self._caps * (1 + 1e-9), axis=1)


def _without_traces(mixtures: np.ndarray) -> np.ndarray:
    kept = np.where(mixtures < LEAST, 0.0, mixtures)
    return kept / kept.sum(axis=1, keepdims=True)
