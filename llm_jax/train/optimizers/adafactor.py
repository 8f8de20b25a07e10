"""Adafactor (Shazeer & Stern 2018): second moments by row and column."""

from __future__ import annotations

from typing import Any

import optax

from llm_jax.config import OptimConfig
from llm_jax.train.optimizers.common import decayed


def adafactor(optim: OptimConfig, rate: optax.Schedule, specs: Any) -> optax.GradientTransformation:
    direction = optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.ema(optim.b1),
    )
    return decayed(direction, optim, rate, specs)
