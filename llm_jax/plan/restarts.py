"""Time that failures cost: how often a machine fails, and what each failure loses.

A failure of any chip stops all of them. It loses the work since the last checkpoint, and the time
until the run is going again. Young 1974 has the interval between checkpoints that loses least,
τ = √(2·δ·M) for a pause of δ seconds per checkpoint and M seconds between failures; Daly 2006 the
wall time of a run with failures at random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_jax.config import UserError

FAILURES_PER_CHIP_DAY = 419 / (54 * 16_384)
"""4.7e-4: Llama 3 405B had 419 unexpected interruptions in 54 days on 16,384 GPUs (Grattafiori et
al. 2024, table 5). TPUs have no published rate; they take the same."""
RESTART_MINUTES = 10.0
"""From a failure to training again: MegaScale detects a failure and tests the machines in less than
10 minutes on average (Jiang et al. 2024, §6.3)."""
SHORTEST, LONGEST = 300.0, 1800.0
"""Seconds between checkpoints: storage must have taken one before the next, and half an hour is
what a run can lose without much regret."""
HOPELESS = 20.0
"""A run that takes longer than this many times its work is refused."""


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """What failures cost a run."""

    rate: float
    """Failures per second, of all chips."""
    pause: float
    """Seconds that training waits for one checkpoint: its copy to the host's memory."""
    restart: float
    """Seconds from a failure to training again."""

    @property
    def interval(self) -> float:
        """Seconds of training between checkpoints: Young's, within `SHORTEST` and `LONGEST`."""
        if self.rate == 0:
            return LONGEST
        return min(LONGEST, max(SHORTEST, math.sqrt(2 * self.pause / self.rate)))

    @property
    def overhead(self) -> float:
        """Time lost, as a share of the time without failures (Daly 2006, the complete model).

        With M = 1/rate: M·e^(R/M)·(e^((τ+δ)/M) − 1)/τ − 1.

        Raises:
          UserError: failures come so often that the run hardly gets on.
        """
        if self.rate == 0:
            return self.pause / self.interval
        lost = (self.interval + self.pause) * self.rate
        waits = self.restart * self.rate
        if lost + waits < 100:
            share = math.exp(waits) * math.expm1(lost) / (self.interval * self.rate) - 1
            if share < HOPELESS:
                return share
        raise UserError(
            f"The machine would fail every {1 / self.rate:.3g} s, and a restart takes "
            f"{self.restart:.3g} s, so the run hardly gets on: take fewer chips, or a lower "
            "--failures-per-chip-day."
        )
