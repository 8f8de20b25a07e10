"""AdamW (Loshchilov & Hutter 2019)."""

from __future__ import annotations

from typing import Any

import optax

from llm_jax.config import OptimConfig
from llm_jax.train.optimizers.common import adam, decayed


def adamw(optim: OptimConfig, rate: optax.Schedule, specs: Any) -> optax.GradientTransformation:
    return decayed(adam(optim), optim, rate, specs)
