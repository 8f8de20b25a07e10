"""The final losses of training runs: what a law is fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llm_jax.config import UserError


@dataclass(frozen=True)
class Runs:
    """Final losses of training runs; each array has one float64 per run.

    Raises:
      UserError: there are fewer than six runs, a value is not a finite number above 0, or all runs
        have the same size or the same number of tokens.
    """

    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    """Nats per token."""

    def __post_init__(self) -> None:
        n = len(self.loss)
        if n < 6:
            raise UserError(
                f"There are {n} runs to fit: the five numbers of a law need at least six runs, and "
                "useful intervals need eight or more."
            )
        for name in ("params", "tokens", "loss"):
            values = getattr(self, name)
            bad = np.flatnonzero(~np.isfinite(values) | (values <= 0))
            if bad.size:
                raise UserError(
                    f"Run {bad[0] + 1} has {name} = {values[bad[0]]}, which is not a finite number "
                    "above 0: remove the run."
                )
        for name, what in (("params", "model size"), ("tokens", "number of tokens")):
            if np.ptp(np.log(getattr(self, name))) < 1e-6:
                raise UserError(
                    f"All {n} runs have the same {what}: vary it, or its exponent cannot be fitted."
                )

    @property
    def flops(self) -> np.ndarray:
        """C = 6·N·D of each run."""
        return 6 * self.params * self.tokens

    def take(self, index: np.ndarray) -> Runs:
        """The runs at these indices."""
        return Runs(self.params[index], self.tokens[index], self.loss[index])
